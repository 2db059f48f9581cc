"""The conversation of two hosts about copies: the sending side and the receiving side, over ssh."""
