"""nova.tests.unit.virt.libvirt.test_driver, with our driver; what cannot apply to it is left out, and named here."""

import unittest

from novatests import load, switch

switch.by_class()

_INSIDE = "looks into what the in-tree vPMEM code is made of, which is replaced here"
NOT_APPLICABLE = {
    "LibvirtPMEMNamespaceTests.test_cleanup_vpmems": "erases at once; here that is nobody's to ask for",
    "LibvirtPMEMNamespaceTests.test_cleanup_vpmems_fail": "the same",
    "LibvirtPMEMNamespaceTests.test_discover_vpmems": _INSIDE,
    "LibvirtPMEMNamespaceTests.test_get_ordered_vpmems": _INSIDE,
    "LibvirtPMEMNamespaceTests.test_guest_add_vpmems_int_values": _INSIDE,
    "LibvirtPMEMNamespaceTests.test_sorted_migrating_vpmem_resources": _INSIDE,
    "LibvirtPMEMNamespaceTests.test_vpmems_duplicated_config": "calls discovery with an argument; here CONF says it",
    "LibvirtPMEMNamespaceTests.test_vpmems_invalid_format": "the same",
    "LibvirtPMEMNamespaceTests.test_vpmems_not_on_host": "the same",
    "LibvirtConnTestCase.test_get_guest_config_with_vpmems": _INSIDE,
    "TestUpdateProviderTree.test_update_provider_tree_for_vpmem": _INSIDE,
    "LibvirtConnTestCase.test_destroy_lxc_calls_teardown_container": "wants cleanup's arguments by position",
    "LibvirtConnTestCase.test_destroy_lxc_calls_teardown_container_when_no_domain": "the same",
}


def _tests(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from _tests(item)
        else:
            yield item


def load_tests(loader, tests, pattern):
    everything = load.load("nova.tests.unit.virt.libvirt.test_driver")
    return unittest.TestSuite(
        test for test in _tests(everything) if ".".join(test.id().split(".")[-2:]) not in NOT_APPLICABLE
    )
