"""The process that touches bytes. It may run as root. Nothing imports it: the engine starts it."""
