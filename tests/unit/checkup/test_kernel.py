"""The kernel's view of persistent memory."""

import pytest

from tests.unit.checkup.conftest import levels
from vpmem_driver.checkup import kernel


def test_a_sound_kernel(made):
    found = [*kernel.modules(made), *kernel.drivers(made), *kernel.media(made)]
    assert levels(found) == ["ok", "ok", "ok"]
    assert "1 region" in found[0].message
    assert "2 with memory" in found[1].message


def test_no_nvdimm_bus(tmp_path, made):
    empty = type(made)(tmp_path / "empty")
    (found,) = kernel.modules(empty)
    assert (str(found.level), found.id) == ("failure", "VPMEM-C01")
    assert "libnvdimm is not loaded" in found.message
    assert [*kernel.drivers(empty), *kernel.media(empty)] == []


def test_no_region(tmp_path, made):
    host = type(made)(tmp_path / "other")
    host.path("/sys/bus/nd/devices").mkdir(parents=True)
    (found,) = kernel.modules(host)
    assert "no region" in found.message


def test_no_driver(tmp_path, made):
    host = type(made)(tmp_path / "other")
    host.write("/sys/bus/nd/devices/region0/badblocks")
    (found,) = kernel.modules(host)
    assert found.remedy == "Run 'modprobe device_dax dax_pmem'"


@pytest.mark.parametrize(
    ("driver", "who", "free"),
    [
        ("kmem", "the kernel uses it", "'daxctl reconfigure-device --force --mode=devdax dax1.0'"),
        ("fsdev_dax", "a filesystem has it", "unbind dax1.0 from fsdev_dax"),
    ],
)
def test_a_device_that_cannot_be_mapped(made, driver, who, free):
    made.bind("dax1.0", driver)
    (found,) = kernel.drivers(made)
    assert (str(found.level), found.id) == ("warning", "VPMEM-C02")
    assert f"/dev/dax1.0 is bound to {driver} and cannot be mapped: {who}" in found.message
    assert free in found.remedy


def test_empty_slots_and_unbound_devices_are_no_fault(made):
    made.bind("dax1.0", None)
    made.write("/sys/bus/dax/devices/dax2.0/size", "0\n")
    (found,) = kernel.drivers(made)
    assert "3 with memory" in found.message


def test_bad_addresses(made):
    made.write("/sys/bus/nd/devices/region0/badblocks", "8 1\n100 2\n")
    (found,) = kernel.media(made)
    assert (str(found.level), found.id) == ("failure", "VPMEM-C18")
    assert found.message == "region0 cannot be read at bytes 4096 to 4607, bytes 51200 to 52223"


@pytest.mark.parametrize("text", ["x\n", "1\n", "1 2 3\n", "-1 5\n"])
def test_bad_addresses_of_another_form(made, text):
    made.write("/sys/bus/nd/devices/region0/badblocks", text)
    (found,) = kernel.media(made)
    assert f"'{text.strip()}'" in found.message


def test_many_bad_addresses(made):
    made.write("/sys/bus/nd/devices/region0/badblocks", "".join(f"{number} 1\n" for number in range(20)))
    (found,) = kernel.media(made)
    assert "and 12 more" in found.message


def test_bad_addresses_that_this_user_may_not_read(made):
    made.path("/sys/bus/nd/devices/region0/badblocks").unlink()
    (found,) = kernel.media(made)
    assert levels([found]) == ["unseen"]
    assert found.remedy == "Run this as root"


def cxl(host, number, *, used):
    """A CXL memory device with persistent memory, and a region of it."""
    host.write(f"/sys/bus/cxl/devices/mem{number}/pmem/size", "0x20000000\n")
    host.write(f"/sys/bus/cxl/devices/mem{number}/serial", f"0x{number}c\n")
    if used:
        host.write(f"/sys/bus/cxl/devices/region{number}/target0", f"decoder{number}.0\n")
        host.path(f"/sys/bus/cxl/devices/endpoint{number}").mkdir()
        host.path(f"/sys/bus/cxl/devices/endpoint{number}/uport").symlink_to(f"../../x/mem{number}")
        host.path(f"/sys/bus/cxl/devices/region{number}/driver").symlink_to("../../drivers/cxl_region")


def test_regions_that_are_enabled(made):
    cxl(made, 0, used=True)
    assert [*kernel.regions(made)] == []


@pytest.mark.parametrize(("bus", "program"), [("nd", "ndctl"), ("cxl", "cxl")])
def test_a_disabled_region_is_named_with_its_remedy(made, bus, program):
    cxl(made, 0, used=True)
    made.path(f"/sys/bus/{bus}/devices/region0/driver").unlink()
    (found,) = kernel.regions(made)
    assert (str(found.level), found.id) == ("failure", "VPMEM-C20")
    assert found.message == f"{program} region region0 is disabled"
    assert found.remedy == f"Run '{program} enable-region region0'"


def test_cxl_memory_without_a_region(made):
    cxl(made, 0, used=True)
    cxl(made, 1, used=False)
    (found,) = kernel.regions(made)
    assert (str(found.level), found.id) == ("warning", "VPMEM-C20")
    assert found.message == "mem1, serial number 0x1c, has 512.00 MiB without a region"


def test_a_host_with_volatile_memory_only(tmp_path, made):
    host = type(made)(tmp_path / "other")
    host.bind("dax0.0", "device_dax")
    (found,) = kernel.modules(host)
    assert (str(found.level), found.message) == ("ok", "1 volatile device, device_dax")


LIST = "cxl list --memdevs --media-errors"


def test_poison_that_a_cxl_device_knows_of(made):
    cxl(made, 0, used=True)
    made.programs[LIST] = """[
      {"memdev":"mem0","pmem_size":536870912,"serial":17,"host":"0000:0d:00.0",
       "media_errors":[{"offset":268435456,"length":64,"source":"Injected"}]},
      {"memdev":"mem1","serial":34}
    ]"""
    (found,) = kernel.poison(made)
    assert (str(found.level), found.id) == ("failure", "VPMEM-C18")
    assert found.message == "mem0, serial number 0x11, cannot be read at bytes 268435456 to 268435519 of the device"


def test_cxl_devices_without_poison(made):
    cxl(made, 0, used=True)
    made.programs[LIST] = '[{"memdev":"mem0","serial":17}]'
    (found,) = kernel.poison(made)
    assert (str(found.level), found.message) == ("ok", "no errors known in 1 CXL device")


@pytest.mark.parametrize("text", [None, "", "{", '[{"memdev":1}]'])
def test_poison_that_cannot_be_listed(made, text):
    cxl(made, 0, used=True)
    made.programs[LIST] = text
    assert levels(kernel.poison(made)) == ["unseen"]


def test_without_cxl_devices_nobody_is_asked(made):
    assert [*kernel.poison(made)] == []
