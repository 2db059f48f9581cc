"""The lives of guests on CXL memory, persistent and volatile, and on files as virtio-pmem, by libvirt 11."""

import pytest

from tests.lab import life as lives
from tests.lab.cxl import ready
from tests.lab.host import STATE


def persistent(host):
    return lives.NAMES, *_options(host)


def volatile(host):
    here, there = _options(host)
    return tuple(ready.volatile_names(ready.listed(host, "sysfs"))), here, there


def _options(host):
    if not ready.has_regions(host):
        ready.make_regions(host)
    options = f"discovery = ndctl\nstate_path = {STATE}"
    return f"{options}\n", f"{options}/other\n"


def disk_files(host):
    host.run("mkdir", "-p", f"{STATE}/life")
    return lives.files(host, f"{STATE}/life")


KINDS = [
    lives.Kind("virtio-pmem", disk_files),
    lives.Kind("cxl", persistent, ",pmem=on,align=2M", pins=(None, 0), node=0),
    lives.Kind("volatile", volatile, ",align=2M", label="VOLATILE", pins=(None, 0)),
]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def life(request, host):
    """The guest of one kind."""
    yield lives.Story(host, request.param)
    if not ready.has_regions(host):
        ready.make_regions(host)
    ready.configure(host)


class TestLife(lives.Life):
    pass
