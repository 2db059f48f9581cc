"""Opening, locking and mapping real files; a made-up sysfs for device-dax."""

import mmap
import os

import msgspec
import pytest

from tests.unit.files import PATTERN, fill, is_locked, is_untouched, namespaces
from vpmem_driver import model
from vpmem_driver.discovery import interface
from vpmem_driver.protocol import Outcome
from vpmem_driver.worker import device
from vpmem_driver.worker.device import Device, Failed

SIZE = 8 * mmap.PAGESIZE
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="device nodes and other users take root")


class Fixed(interface.Discovery):
    """Says that one namespace is at `path`, and runs `hook` after each time it said so."""

    name = "fixed"

    def __init__(self, path, size=SIZE, hook=lambda: None, identity="u"):
        self.identity = identity
        self.namespace = model.Namespace(
            uuid="u", name="n", size=size, align=4096, numa_node=None, mode="file", device=str(path), pmem=False
        )
        self.hook = hook

    def options(self):
        return {}

    def namespaces(self):
        return (self.namespace,)

    def identity_of(self, fd):
        return self.identity

    def find(self, uuid):
        found = super().find(uuid)
        self.hook()
        return found


@pytest.fixture
def file(tmp_path):
    return fill(tmp_path / "ns0", SIZE)


def open_device(source, uuid="u", size=SIZE):
    """Open it, and close it when that went well."""
    opened = Device.open(source, uuid, size)
    os.close(opened.fd)
    return opened


def test_it_is_found_by_uuid_opened_and_locked(tmp_path):
    source, found = namespaces(tmp_path, {"ns0": SIZE, "ns1": SIZE})
    opened = Device.open(source, found["ns1"].uuid, SIZE)
    try:
        assert os.path.samestat(os.fstat(opened.fd), os.stat(tmp_path / "ns1"))
        assert not os.get_inheritable(opened.fd)
        assert is_locked(tmp_path / "ns1")
        assert not is_locked(tmp_path / "ns0")
        with pytest.raises(Failed, match=r"process \d+ \(.*\) holds the lock on it") as failure:
            Device.open(source, found["ns1"].uuid, SIZE)
        assert failure.value.outcome is Outcome.BUSY
    finally:
        os.close(opened.fd)
    assert not is_locked(tmp_path / "ns1")


def check_refused(source, outcome, match, **arguments):
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(Failed, match=match) as failure:
        open_device(source, **arguments)
    assert failure.value.outcome is outcome
    assert set(os.listdir("/proc/self/fd")) == before


def test_what_discovery_does_not_find_is_missing(file):
    check_refused(Fixed(file), Outcome.MISSING, "discovery does not find it", uuid="another")


def test_a_symbolic_link_is_not_followed(file):
    link = file.with_name("link")
    link.symlink_to(file)
    check_refused(Fixed(link), Outcome.HOST, "it is a symbolic link")


def test_a_path_that_leads_nowhere_is_missing(file):
    check_refused(Fixed(file.with_name("gone")), Outcome.MISSING, "gone does not exist")


def test_a_file_replaced_between_finding_and_opening_it_is_refused(file):
    """Discovery that saw the old file, which is kept elsewhere, and the path that leads to the new one now."""
    seen = []

    def replace():
        seen.append(file)
        if len(seen) == 2:
            file.rename(file.with_name("old"))
            fill(file, SIZE)

    check_refused(Fixed(file, hook=replace), Outcome.MISSING, "was replaced or removed while it was being opened")
    assert len(seen) == 2
    assert is_untouched(file)


def test_a_file_that_went_away_while_it_was_opened_is_missing(file):
    seen = []

    def remove():
        seen.append(file)
        if len(seen) == 2:
            file.unlink()

    check_refused(Fixed(file, hook=remove), Outcome.MISSING, "was replaced or removed")


@pytest.mark.parametrize("identity", ["another", None])
def test_what_is_open_is_asked_who_it_is_and_not_only_the_path(file, identity):
    check_refused(Fixed(file, identity=identity), Outcome.MISSING, "was replaced or removed while it was being opened")
    assert is_untouched(file)


def test_a_symbolic_link_on_the_way_is_not_followed(file):
    """O_NOFOLLOW is for the last name only: who may write to a directory on the way had any file overwritten."""
    link = file.parent.with_name("link")
    link.symlink_to(file.parent)
    check_refused(Fixed(link / file.name), Outcome.HOST, "a directory on the way is a symbolic link")


def open_directory(path):
    """Open it as a privileged process, and close it; returns its inode."""
    fd = device.open_directory(str(path), privileged=True)
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


def test_a_privileged_process_uses_a_directory_that_only_its_user_may_write_to(unshared_path):
    (unshared_path / "inner").mkdir(mode=0o755)
    assert open_directory(unshared_path / "inner") == (unshared_path / "inner").stat().st_ino
    assert open_directory("/") == os.stat("/").st_ino


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
@pytest.mark.parametrize("inner", ["", "inner"])
def test_a_privileged_process_refuses_a_directory_that_others_may_write_to(unshared_path, mode, inner):
    """They could put another file there between a look at the path and its use. The sticky bit does not hinder that."""
    shared = unshared_path / "shared"
    (shared / "inner").mkdir(parents=True)
    shared.chmod(mode)
    with pytest.raises(
        Failed, match=f"users other than root may write to {shared}; to fix that, run 'chown root"
    ) as failure:
        open_directory(shared / inner)
    assert failure.value.outcome is Outcome.HOST
    os.close(device.open_directory(str(shared / inner), privileged=False))


@needs_root
def test_a_privileged_process_refuses_a_directory_that_belongs_to_another(unshared_path):
    (unshared_path / "theirs").mkdir(mode=0o755)
    os.chown(unshared_path / "theirs", 65534, 65534)
    with pytest.raises(Failed, match="users other than root may write"):
        open_directory(unshared_path / "theirs")


def test_a_privileged_process_opens_nothing_where_others_may_write(unshared_path):
    path = fill(unshared_path / "ns0", SIZE)
    opened = Device.open(Fixed(path), "u", SIZE, privileged=True)
    os.close(opened.fd)
    unshared_path.chmod(0o777)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(Failed, match="users other than root may write"):
        Device.open(Fixed(path), "u", SIZE, privileged=True)
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("length,said,asked", [(SIZE, SIZE, 4096), (SIZE, 4096, SIZE), (4096, SIZE, SIZE)])
def test_of_another_size_it_is_not_the_namespace_that_was_meant(file, length, said, asked):
    fill(file, length)
    match = f"its size is {length} bytes, discovery reports {said}, the ledger has {asked}"
    check_refused(Fixed(file, size=said), Outcome.MISSING, match, size=asked)


def test_what_is_neither_device_nor_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    check_refused(Fixed(tmp_path / "fifo"), Outcome.HOST, "neither a device-dax nor a file")
    check_refused(Fixed(tmp_path), Outcome.HOST, "cannot be opened: Is a directory")


def test_a_character_device_that_is_no_device_dax_is_refused():
    check_refused(Fixed("/dev/null"), Outcome.HOST, "not a device-dax")


@needs_root
def test_who_may_not_write_to_it_is_told_who_may(file):
    file.parent.chmod(0o755)
    os.seteuid(65534)
    try:
        check_refused(Fixed(file), Outcome.HOST, "cannot be opened: Permission denied; run this as")
    finally:
        os.seteuid(0)


def fake_sysfs(path, subsystem, size):
    node = path / "dev" / "char" / "252:3"
    node.mkdir(parents=True)
    (path / "bus" / subsystem).mkdir(parents=True)
    (node / "subsystem").symlink_to(path / "bus" / subsystem)
    (node / "size").write_text(size)
    return path


def test_the_size_of_a_device_dax_comes_from_sysfs(tmp_path):
    assert device.dax_size(os.makedev(252, 3), str(fake_sysfs(tmp_path, "dax", "65011712\n"))) == 65011712


@pytest.mark.parametrize("driver", ["kmem", "fsdev_dax"])
def test_what_another_driver_has_is_not_wiped(tmp_path, driver):
    sysfs = fake_sysfs(tmp_path, "dax", "65011712\n")
    (sysfs / "bus" / "dax" / driver).mkdir()
    (sysfs / "dev" / "char" / "252:3" / "driver").symlink_to(sysfs / "bus" / "dax" / driver)
    with pytest.raises(Failed, match=f"bound to {driver} and cannot be mapped"):
        device.dax_size(os.makedev(252, 3), str(sysfs))


@pytest.mark.parametrize("subsystem,size", [("mem", "65011712\n"), ("dax", "?\n")])
def test_what_sysfs_does_not_call_a_device_dax_is_none(tmp_path, subsystem, size):
    with pytest.raises(Failed, match="not a device-dax"):
        device.dax_size(os.makedev(252, 3), str(fake_sysfs(tmp_path, subsystem, size)))


@pytest.fixture
def opened(file):
    found = Device.open(Fixed(file), "u", SIZE)
    yield found
    os.close(found.fd)


def test_what_is_mapped_is_its_content_and_stays_out_of_core_dumps(opened):
    with opened.map(mmap.PAGESIZE, 2 * mmap.PAGESIZE, mmap.PROT_READ) as memory:
        assert memory[:] == bytes([PATTERN]) * 2 * mmap.PAGESIZE
        with open("/proc/self/smaps", encoding="utf-8") as smaps:
            of_ours = smaps.read().partition("/ns0\n")[2].partition("VmFlags:")[2].partition("\n")[0]
    assert "dd" in of_ours.split()  # "dd: do not include area into core dump", proc.rst of Linux 6.1


def test_what_has_become_shorter_cannot_be_mapped(opened):
    os.ftruncate(opened.fd, 0)
    with pytest.raises(Failed, match="its size has decreased"):
        opened.map(0, SIZE, mmap.PROT_READ)


def test_without_dax_a_page_cache_is_in_between(opened):
    """On this filesystem, whichever it is, unless tests run on a DAX one: then MAP_SYNC really is what is used."""
    if not opened.cached:
        pytest.skip("the tests' directory is on DAX")
    assert opened.region == device.CACHED_REGION
    opened.make_durable()
    opened.drop_cache()


def test_regions_are_multiples_of_every_alignment(opened):
    assert device.REGION % (2 << 20) == 0
    assert device.REGION % (1 << 30) == 0


def test_one_without_a_device_is_missing(file):
    source = Fixed(file)
    source.namespace = msgspec.structs.replace(source.namespace, device=None)
    with pytest.raises(Failed, match="it has no device") as raised:
        open_device(source)
    assert raised.value.outcome is Outcome.MISSING
