"""``./dev sanitize``: the compiled modules under AddressSanitizer and UndefinedBehaviorSanitizer, with their tests."""
