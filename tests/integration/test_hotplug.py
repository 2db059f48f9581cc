"""vpmem domain attach --live: a running guest gets another device, and its definition too; or nothing has changed."""

import pytest

from tests import waiting
from tests.functional.conftest import MIB
from tests.machine import guest


@pytest.fixture(scope="module")
def paths(host):
    host.pmem_namespaces = ["FIRST:first0", "NEXT:next0|next1"]
    return {name: host.make(name, size=8 * MIB) for name in ("first0", "next0", "next1")}


@pytest.fixture(scope="module")
def first(new_guest, paths):
    return new_guest(mode="vpmem.plug")


def held(vpmem, domain):
    return {name for name, row in vpmem("namespace", "list")[1].items() if row["owner"] == domain.uuid}


def test_without_room_nothing_is_claimed(vpmem, first, seen):
    code, _, err = vpmem("domain", "attach", first.name, "NEXT", "--live")
    assert (code, "it is shut off. Leave out --live" in err) == (4, True)
    assert vpmem("domain", "attach", first.name, "FIRST")[0] == 0
    first.start()
    first.report()
    before = first.definition()
    code, _, err = vpmem("domain", "attach", first.name, "NEXT", "--live")
    assert code == 4
    assert "it has 0 free memory slots, and 1 are needed. Run 'vpmem domain attach DOMAIN --reserve N:SIZE'" in err
    assert held(vpmem, first) == {"first0"}
    assert first.definition() == before
    seen("attach --live without a free slot", "exit code 4; nothing is claimed")
    first.shut_down()


def test_a_running_guest_gets_another_device(vpmem, first, paths, seen):
    assert vpmem("domain", "attach", first.name, "--reserve", "1:8M")[0] == 0
    first.start()
    assert len(first.report().devices) == 1
    code, listed, err = vpmem("domain", "attach", first.name, "NEXT", "--live")
    assert code == 0, err
    (name,) = listed
    waiting.wait_until(first.plugged, seconds=guest.BOOT_SECONDS)
    (device,) = first.plugged()
    assert (device.slot, device.size, device.zeros) == (1, 6 * MIB, True)
    assert device.holds(first.uuid, 1)
    assert guest.holds(paths[name], first.uuid, 1, device.size)
    assert held(vpmem, first) == {"first0", name}
    seen("attach --live", f"the running guest sees {device.name}, {device.size // MIB} MiB, all zeros, and fills it")
    assert vpmem("domain", "detach", first.name)[0] == 4
    first.shut_down()
    first.start()
    report = first.report()
    assert [found.text for found in report.devices] == [f"{first.uuid} 0", f"{first.uuid} 1"]
    seen("stop and start after that", "both devices are there, with all bytes")


def test_what_qemu_refuses_is_rolled_back(vpmem, new_guest, paths, seen):
    """A machine that was started without a nvdimm takes none: QEMU would say "nvdimm is not enabled"."""
    other = new_guest()
    assert vpmem("domain", "attach", other.name, "--reserve", "1:8M")[0] == 0
    other.start()
    before = other.definition()
    code, _, err = vpmem("domain", "attach", other.name, "NEXT", "--live")
    assert code == 4
    assert "it was started without a nvdimm" in err
    assert held(vpmem, other) == set()
    assert other.definition() == before
    seen("attach --live to a machine without nvdimm", "exit code 4; what was claimed is released")
