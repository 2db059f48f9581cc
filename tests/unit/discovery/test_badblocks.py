"""What the kernel knows of bad media, from a made-up sysfs."""

import pytest

from tests.unit.discovery.hosts import Slot, Tree
from vpmem_driver import exception
from vpmem_driver.discovery import badblocks
from vpmem_driver.discovery.ndctl import NdctlDiscovery
from vpmem_driver.discovery.sysfs import SysfsDiscovery
from vpmem_driver.sizes import MIB

#: Physical addresses: the region, and what a guest gets of the second namespace.
REGION, DEVICE = 0x1_0000_0000, 0x1_0420_0000


@pytest.fixture
def tree(tmp_path):
    made = Tree(tmp_path / "sys")
    made.slot(Slot(number=0, claim=1))
    made.slot(Slot(number=1, claim=0, size=16 * MIB))
    region = made.root / "devices/platform/ndbus0/region0"
    (region / "resource").write_text(f"{REGION:#x}\n")
    (region / "badblocks").write_text("")
    (region / "dax0.0/resource").write_text(f"{DEVICE:#x}\n")
    return made


@pytest.fixture
def mark(tree):
    """Write the list of the region: sectors from the start of the device dax0.1."""

    def write(*ranges):
        first = (DEVICE - REGION) // 512
        text = "".join(f"{first + start} {count}\n" for start, count in ranges)
        (tree.root / "devices/platform/ndbus0/region0/badblocks").write_text(text)

    return write


def bad(tree):
    found = badblocks.bad_ranges("/dev/dax0.1", str(tree.root))
    assert SysfsDiscovery(str(tree.root)).bad_ranges("/dev/dax0.1") == found
    assert NdctlDiscovery(sysfs_root=str(tree.root)).bad_ranges("/dev/dax0.1") == found
    return found


def test_good_media(tree):
    assert bad(tree) == ()


def test_ranges_are_those_of_the_device(tree, mark):
    mark((8, 1), (100, 2))
    assert bad(tree) == ((4096, 512), (51200, 1024))
    assert badblocks.text(bad(tree)) == "bad media: bytes 4096 to 4607, bytes 51200 to 52223"


def test_what_is_outside_does_not_count_and_what_crosses_is_cut(tree, mark):
    sectors = 16 * MIB // 512
    mark((-100, 50), (-1, 2), (sectors - 1, 5), (sectors, 7))
    assert bad(tree) == ((0, 512), (16 * MIB - 512, 512))


def test_good_media_needs_no_address(tree):
    (tree.root / "devices/platform/ndbus0/region0/resource").unlink()
    assert bad(tree) == ()


@pytest.mark.parametrize("file", ["resource", "dax0.0/resource"])
@pytest.mark.parametrize("text", [None, "", "x\n"])
def test_addresses_that_this_user_cannot_see(tree, mark, file, text):
    mark((8, 1))
    path = tree.root / "devices/platform/ndbus0/region0" / file
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(exception.HostToolError, match=r"bad addresses of region0 for /dev/dax0.1"):
        bad(tree)


@pytest.mark.parametrize("text", ["x\n", "1\n", "1 2 3\n", "1.5 2\n"])
def test_a_list_that_cannot_be_read(tree, text):
    (tree.root / "devices/platform/ndbus0/region0/badblocks").write_text(text)
    with pytest.raises(exception.HostToolError):
        bad(tree)


def test_no_list(tree):
    (tree.root / "devices/platform/ndbus0/region0/badblocks").unlink()
    with pytest.raises(exception.HostToolError):
        bad(tree)


@pytest.mark.parametrize("device", ["/dev/dax9.9", "/mnt/pmem0/ns0", "", "/dev/null"])
def test_what_is_no_device_dax(tree, device):
    assert badblocks.bad_ranges(device, str(tree.root)) == ()
    assert badblocks.namespace_of(device, str(tree.root)) is None


def test_the_namespace_of_a_device_is_the_one_that_its_holder_claims(tree):
    assert badblocks.namespace_of("/dev/dax0.1", str(tree.root)) == "namespace0.1"
    assert badblocks.namespace_of("/dev/dax0.0", str(tree.root)) == "namespace0.0"
