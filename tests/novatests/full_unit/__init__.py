"""nova.tests.unit.virt.libvirt.test_driver, unmodified, with our driver."""

from novatests import load, switch

switch.by_class()


def load_tests(loader, tests, pattern):
    return load.load("nova.tests.unit.virt.libvirt.test_driver")
