"""The worker process, which accesses the devices and may run as root. The engine starts it; nothing imports it."""
