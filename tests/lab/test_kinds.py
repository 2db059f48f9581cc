"""The lives of guests on device-dax and on files of a DAX filesystem."""

import pytest

from tests.lab import life as lives
from tests.lab import ready
from tests.lab.host import STATE

_MOUNTED = "/mnt/life"

_MOUNT = f"""
set -e
mkdir -p {_MOUNTED}
mount -o dax "$1" {_MOUNTED} || {{ mkfs.ext4 -q -b 4096 "$1" && mount -o dax "$1" {_MOUNTED}; }}
"""
_UNMOUNT = f"! mountpoint -q {_MOUNTED} || umount {_MOUNTED}"


def device_dax(host):
    options = f"discovery = ndctl\nstate_path = {STATE}"
    return lives.NAMES, f"{options}\n", f"{options}/other\n"


def dax_files(host):
    (found,) = [found for found in host.run("ndctl", "list").json if found.get("name") == "files"]
    host.run("sh", "-c", _MOUNT, "sh", f"/dev/{found['blockdev']}")
    return lives.files(host, _MOUNTED)


#: How libvirt tells QEMU of memory with <pmem/>, and with an alignment.
_PMEM = ",pmem=on,align=2M"

KINDS = [
    lives.Kind("devdax", device_dax, _PMEM, pins=(0, 1), node=1),
    lives.Kind("dax file", dax_files, _PMEM, pins=(0, 1), node=1),
]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name.replace(" ", "-"))
def life(request, host):
    """The guest of one kind."""
    yield lives.Story(host, request.param)
    host.run("sh", "-c", _UNMOUNT)
    ready.configure(host)


class TestLife(lives.Life):
    pass
