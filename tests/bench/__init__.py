"""Speed, measured: each row of work beside Nova's own code for it and beside the machine's limit. See __main__.py."""
