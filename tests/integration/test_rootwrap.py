"""A service that is not root has a namespace wiped, through real sudo, real rootwrap and this project's filter."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.functional.conftest import new_owner
from tests.machine import libvirtd

PROGRAMS = pathlib.Path(sys.executable).parent
FILTERS = pathlib.Path(__file__).parents[2] / "packaging" / "rootwrap.d"

#: In a mount namespace with an /etc of its own, as root: what an operator sets up. Then the rest of the command line
#: as an unprivileged user, who may write nothing, and read all: the environment may be below a private directory.
SCRIPT = r"""
set -e
umask 022
mount -t tmpfs tmpfs "$1"
cp -a /etc "$1/etc"
mount --bind "$1/etc" /etc
mkdir -p /etc/vpmem /etc/nova/rootwrap.d
cp "$3"/* /etc/nova/rootwrap.d/
printf '[DEFAULT]\nfilters_path=/etc/nova/rootwrap.d\nexec_dirs=%s\n' "$2" > /etc/nova/rootwrap.conf
echo "nobody ALL=(root) NOPASSWD: $2/oslo-rootwrap /etc/nova/rootwrap.conf *" > /etc/sudoers.d/vpmem
chmod 440 /etc/sudoers.d/vpmem
# The tests' own directory is below one that others may write to, where nothing is wiped.
mkdir /etc/vpmem/memory
mount --bind "$4" /etc/vpmem/memory
printf '[vpmem]\ndiscovery=directory\ndirectory=/etc/vpmem/memory\n' > /etc/vpmem/vpmem.conf
shift 4
exec setpriv --reuid nobody --regid nogroup --clear-groups --inh-caps=-all,+dac_read_search \
    --ambient-caps=-all,+dac_read_search "$@"
"""


@pytest.fixture
def as_service(host, tmp_path):
    """Run a command line as an unprivileged user; returns exit code, and what it says."""
    subprocess.run([*libvirtd.ROOT, "chown", "-R", "nobody", host.state_path], check=True)
    subprocess.run([*libvirtd.ROOT, "chown", "-R", "root", host.directory], check=True)
    subprocess.run([*libvirtd.ROOT, "chmod", "go-w", host.directory], check=True)

    def run(*words):
        setup = ["unshare", "--mount", "sh", "-c", SCRIPT, "sh", tmp_path, PROGRAMS, FILTERS, host.directory]
        line = [*libvirtd.ROOT, *setup, *words]
        done = subprocess.run(list(map(str, line)), check=False, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    yield run
    subprocess.run([*libvirtd.ROOT, "chown", "-R", str(os.getuid()), host.state_path, host.directory], check=True)


@pytest.fixture
def host(host):
    host.pmem_namespaces = ["PRIVATE:private0|private1|private2"]
    for number in range(3):
        host.make(f"private{number}")
    host.state_path.mkdir(exist_ok=True)
    host.options["connection_uri"] = "test:///default"
    return host


def contents(path):
    """What is in a file of root's."""
    return subprocess.run([*libvirtd.ROOT, "cat", path], check=True, stdout=subprocess.PIPE).stdout


def test_it_is_wiped_by_rootwrap_and_by_nothing_less(host, as_service, seen):
    path = host.path("private0")
    claim = [PROGRAMS / "vpmem", "--config-file", host.config_file(), "claim", new_owner(), "PRIVATE"]
    before = contents(path)
    code, said = as_service(*claim)
    assert code == 5, said
    assert "Permission denied" in said
    assert contents(path) == before
    host.options["wipe_command"] = f"sudo --non-interactive {PROGRAMS}/oslo-rootwrap /etc/nova/rootwrap.conf vpmem-wipe"
    host.config_file()
    code, said = as_service(*claim)
    assert code == 0, said
    assert any(before)
    assert not any(contents(path))
    code, said = as_service("sudo", "--non-interactive", PROGRAMS / "oslo-rootwrap", "/etc/nova/rootwrap.conf", "id")
    assert code == 99, said  # rootwrap's own: the filters do not allow it
    seen("a wipe for a service that is not root", "refused by the kernel; done through sudo and rootwrap")


def test_it_is_exported_and_imported_by_rootwrap(host, as_service, seen):
    """The descriptor of the stream passes through sudo and rootwrap, on the socket that is the worker's stdin."""
    vpmem = [PROGRAMS / "vpmem", "--config-file", host.config_file()]
    owner, heir = new_owner(), new_owner()
    code, said = as_service(*vpmem, "adopt", owner, "private1")
    assert code == 0, said
    directory = host.directory.parent / "files"
    directory.mkdir()
    directory.chmod(0o777)
    file = directory / "file"
    code, said = as_service(*vpmem, "namespace", "export", "private1", file)
    assert (code, "Permission denied" in said) == (7, True), said
    rootwrap = f"sudo --non-interactive {PROGRAMS}/oslo-rootwrap /etc/nova/rootwrap.conf"
    host.options["copy_command"] = f"{rootwrap} vpmem-copy"
    host.config_file()
    for words in (["export", "private1", file], ["import", file, "private2", "--owner", heir]):
        code, said = as_service(*vpmem, "namespace", *words)
        assert code == 0, said
    assert contents(host.path("private2")) == contents(host.path("private1"))
    assert any(contents(host.path("private2")))
    host.options["copy_command"] = f"{rootwrap} vpmem-wipe"
    host.config_file()
    code, said = as_service(*vpmem, "namespace", "export", "private1", directory / "other")
    assert code == 7, said
    seen("export and import for a service that is not root", "refused by the kernel; done through sudo and rootwrap")
