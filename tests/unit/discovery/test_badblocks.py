"""What the kernel and CXL devices know of bad media, from a made-up sysfs and a made-up cxl."""

import json

import pytest

from tests.unit.discovery.hosts import Slot, Tree
from vpmem_driver import exception
from vpmem_driver.discovery import badblocks, poison
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


class TestPoison:
    """Of a CXL device, which the kernel does not put into badblocks. Offsets are from the start of the region."""

    @pytest.fixture
    def cxl(self, tree, monkeypatch, tmp_path):
        """Give the region a bus of CXL devices. Call it with what ``cxl list`` prints, and its exit code."""
        (tree.root / "devices/platform/ndbus0/provider").write_text("CXL\n")
        monkeypatch.setattr("os.geteuid", lambda: 0)
        monkeypatch.setattr(poison, "_latest", poison._Latest())
        programs = tmp_path / "programs"
        programs.mkdir()
        monkeypatch.setenv("PATH", f"{programs}:/bin:/usr/bin")

        def install(printed, code=0):
            text = printed if isinstance(printed, str) else json.dumps(printed)
            (tmp_path / "printed").write_text(text)
            script = f'[ "$*" = "list --regions --media-errors" ] || exit 9\ncat {tmp_path}/printed\nexit {code}\n'
            (programs / "cxl").write_text(f"#!/bin/sh\necho >> {tmp_path}/runs\n{script}")
            (programs / "cxl").chmod(0o755)

        return install

    def errors(self, *offsets, resource=REGION):
        listed = [{"offset": DEVICE - REGION + at, "length": 64, "source": "Injected"} for at in offsets]
        return {"region": "region0", "resource": resource, "size": 1 << 30, "media_errors": listed}

    def test_those_in_the_device_count(self, tree, cxl):
        cxl([{"region": "region1", "resource": 0}, self.errors(-64, 8192, 16 * MIB)])
        assert bad(tree) == ((8192, 64),)

    def test_they_come_after_those_of_the_kernel(self, tree, mark, cxl):
        mark((8, 1))
        cxl([self.errors(8192)])
        assert bad(tree) == ((4096, 512), (8192, 64))

    @pytest.mark.parametrize("found", ["", []])
    def test_none_are_known(self, tree, cxl, found):
        cxl(found)
        assert bad(tree) == ()

    def test_those_of_another_region(self, tree, cxl):
        cxl([self.errors(8192, resource=REGION + 4096)])
        assert bad(tree) == ()

    def test_only_root_can_ask(self, tree, cxl, monkeypatch):
        cxl("", code=1)
        monkeypatch.setattr("os.geteuid", lambda: 1000)
        assert bad(tree) == ()

    def test_other_memory_is_not_asked(self, tree, cxl):
        cxl("", code=1)
        (tree.root / "devices/platform/ndbus0/provider").write_text("ACPI.NFIT\n")
        assert bad(tree) == ()

    @pytest.mark.parametrize(("printed", "code"), [("", 1), ("x", 0), ("{}", 0), ('[{"region": "region0"}]', 0)])
    def test_an_answer_that_tells_nothing(self, tree, cxl, printed, code):
        cxl(printed, code)
        with pytest.raises(exception.HostToolError, match="bad addresses of region0 for /dev/dax0.1"):
            bad(tree)

    def test_without_the_program(self, tree, cxl, monkeypatch):
        monkeypatch.setenv("PATH", "/nonexistent")
        with pytest.raises(exception.HostToolError, match="No such file"):
            bad(tree)

    def test_one_list_serves_all_that_are_asked_for_one_after_the_other(self, tree, cxl, tmp_path, monkeypatch):
        cxl([self.errors(8192)])
        for _ in range(3):
            assert bad(tree) == ((8192, 64),)
        assert (tmp_path / "runs").read_text() == "\n"
        monkeypatch.setattr(poison._Latest, "SECONDS", 0.0)
        bad(tree)
        assert (tmp_path / "runs").read_text() == "\n" * 4  # bad() asks three times

    def test_cxl_ram(self, tree, cxl, monkeypatch):
        """Its region is that of the CXL root decoder, and has no badblocks."""
        region = tree.root / "devices/platform/ACPI0017:00/root0/decoder0.0/region7"
        device = region / "dax_region7/dax7.0"
        device.mkdir(parents=True)
        (region / "resource").write_text(f"{REGION:#x}\n")
        (device / "resource").write_text(f"{DEVICE:#x}\n")
        (device / "size").write_text(f"{16 * MIB}\n")
        (tree.root / "bus/dax/devices/dax7.0").symlink_to(device)
        cxl([])
        assert badblocks.bad_ranges("/dev/dax7.0", str(tree.root)) == ()
        monkeypatch.setattr(poison, "_latest", poison._Latest())
        cxl([self.errors(8192)])
        assert badblocks.bad_ranges("/dev/dax7.0", str(tree.root)) == ((8192, 64),)
