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
    host.pmem_namespaces = ["PRIVATE:private0"]
    host.make("private0")
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
