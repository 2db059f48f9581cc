"""nova.tests.functional.libvirt, unmodified, with our driver."""

from novatests import load, switch

switch.by_option(wipes=False)


def load_tests(loader, tests, pattern):
    return load.load("nova.tests.functional.libvirt")
