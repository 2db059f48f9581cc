"""Random walks over Nova's API: ``./dev walk``."""

#: What a process of walks exits with when one of them fails.
FAILED = 3
