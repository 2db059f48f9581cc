"""libvirtd starts no guest on another's memory, where it asks our hook."""

import pathlib
import sys

import libvirt
import pytest

from tests.functional import conftest as functional
from tests.functional.test_renumbered import swap
from tests.integration.domain import Guest
from tests.machine import libvirtd

#: As /etc/libvirt/hooks/qemu.d/vpmem is, with another place for what belongs to root.
HOOK = """\
#!{python}
import sys
from vpmem_driver import conf
from vpmem_driver.hook import main
conf.CONFIG_FILE = {config_file!r}
sys.exit(main.main())
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    made = functional.Host(tmp_path_factory.mktemp("host"))
    for name in ("small0", "small1", "small2"):
        made.make(name)
    made.pmem_namespaces = ["SMALL:small0|small1|small2"]
    yield made
    made.close()


@pytest.fixture(scope="module")
def uri(host):
    hook = HOOK.format(python=sys.executable, config_file=str(host.directory.parent / "vpmem.conf"))
    with libvirtd.running(hook) as running:
        host.options["connection_uri"] = running
        yield running


DISK = "<disk type='file'><driver name='qemu' type='raw'/><source file='{}'/><target dev='vda' bus='virtio'/></disk>"


def test_a_start_on_anothers_memory_is_refused(host, uri, boot, vpmem, tmp_path, seen):
    connection = libvirt.open(uri)
    guests = [Guest(connection, boot, tmp_path / f"{number}.log") for number in range(2)]
    for guest in guests:
        assert vpmem("domain", "attach", guest.name, "SMALL")[0] == 0
    paths = [pathlib.Path(host.pool().grants(guest.uuid)[0].device) for guest in guests]
    guests[0].domain.create()
    guests[0].domain.destroy()
    swap(host, *(path.name for path in paths))
    with pytest.raises(libvirt.libvirtError, match=f"'vpmem domain refresh {guests[0].name}'"):
        guests[0].domain.create()
    assert not guests[0].domain.isActive()
    code, _, said = vpmem("domain", "refresh")
    assert code == 0, said
    guests[0].domain.create()
    assert str(paths[1]) in guests[0].domain.XMLDesc()
    for guest in guests:
        guest.close()
    connection.close()
    seen("a path that leads to another's memory", "libvirtd does not start it; 'vpmem domain refresh', and it does")


def test_a_start_with_anothers_memory_as_a_disk_is_refused(host, uri, boot, vpmem, tmp_path, seen):
    """By another path, too. A domain that has nothing of this host's namespaces is started."""
    connection = libvirt.open(uri)
    owner, stranger = [Guest(connection, boot, tmp_path / f"{number}.log") for number in range(2)]
    assert vpmem("domain", "attach", owner.name, "SMALL")[0] == 0
    (grant,) = host.pool().grants(owner.uuid)
    plain = stranger.definition()
    stranger.start()
    stranger.domain.destroy()
    link = tmp_path / "link"
    link.symlink_to(grant.device)
    for path in (grant.device, link):
        stranger.define(plain.replace("</devices>", f"{DISK.format(path)}</devices>"))
        with pytest.raises(libvirt.libvirtError, match=f"which belongs to {owner.uuid}"):
            stranger.domain.create()
        assert not stranger.domain.isActive()
    for guest in (owner, stranger):
        guest.close()
    connection.close()
    seen("another's memory as a disk", "libvirtd does not start it")
