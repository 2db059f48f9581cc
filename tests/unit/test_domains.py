"""Which libvirt is asked when none is configured."""

import pytest

from vpmem_driver import domains


@pytest.mark.parametrize(("kind", "uri"), [("absent", None), ("there", "qemu:///system"), ("hidden", "qemu:///system")])
def test_the_hosts_own_daemon_is_asked_unless_there_is_surely_none(tmp_path, monkeypatch, kind, uri):
    path = tmp_path / "libvirt-sock"
    if kind == "there":
        path.touch()
    elif kind == "hidden":
        path.symlink_to(path)  # cannot be looked at, root or not
    monkeypatch.setattr(domains, "_DAEMON_SOCKETS", (str(path),))
    assert domains.Domains(None).uri == uri
