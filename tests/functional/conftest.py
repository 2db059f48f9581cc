"""A host whose namespaces are files: real discovery, real ledger, real wipes in child processes."""

import contextlib
import os
import pathlib
import shlex
import sqlite3
import sys
import uuid

import msgspec
import pytest
from oslo_config import cfg

from vpmem_driver import conf, discovery
from vpmem_driver.discovery import directory, interface
from vpmem_driver.pool import Pool
from vpmem_driver.sizes import MIB


def fill(path: pathlib.Path) -> bytes:
    """Write bytes of its own over all of a namespace, as a guest would; returns them."""
    pattern = os.urandom(4096) * (path.stat().st_size // 4096)
    with path.open("r+b") as file:
        file.write(pattern)
    return pattern


def is_zero(path: pathlib.Path) -> bool:
    return not any(path.read_bytes())


#: A child that wipes as ever, on a medium that has forgotten one zero by the time it is read back.
_FORGETFUL = """
import os, sys
from vpmem_driver.worker import session, wipe
path, at, verify = sys.argv[1], int(sys.argv[2]), wipe.Wipe.verify
def forget_and_verify(passes, start):
    if os.path.samestat(os.fstat(passes._device.fd), os.stat(path)):
        os.pwrite(passes._device.fd, b"x", at)
    verify(passes, start)
wipe.Wipe.verify = forget_and_verify
sys.exit(session.main())
"""


class VolatileFiles(directory.DirectoryDiscovery):
    """Files, which it takes for memory that loses its content when the host restarts.

    :ivar system_ram: names of those that it takes for system memory of the kernel
    :ivar persistent: names of those that it takes for persistent memory
    """

    system_ram: frozenset[str] = frozenset()
    persistent: frozenset[str] = frozenset()

    def namespaces(self):
        return tuple(map(self._volatile, super().namespaces()))

    def _volatile(self, found):
        used = {"mode": "system-ram", "unusable": "it is used"} if found.name in self.system_ram else {}
        return msgspec.structs.replace(found, volatile=found.name not in self.persistent, **used)


class Host:
    """A directory of namespaces and a state directory, with any number of pools on them.

    :ivar volatile: whether its memory loses its content when it restarts
    """

    volatile = False

    def __init__(self, root: pathlib.Path) -> None:
        self.directory = root / "pmem"
        self.state_path = root / "state"
        self.directory.mkdir()
        # Files without DAX would be virtio-pmem, and most tests are about nvdimms.
        self.options: dict[str, object] = {"wipe_threads": 1, "device_model": ["nvdimm"]}
        self.pmem_namespaces = ["LARGE:large0|large1", "SMALL:small0|small1|small2"]
        self._pools: list[Pool] = []

    def make(self, name: str, *, node: int | None = None, size: int = 4 * MIB, full: bool = True) -> pathlib.Path:
        """A preallocated file, full of somebody's bytes."""
        parent = self.directory if node is None else self.directory / f"node{node}"
        parent.mkdir(exist_ok=True)
        path = parent / name
        with path.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)  # else processes that may not be looked at could have it mapped
            os.posix_fallocate(file.fileno(), 0, size)
        if full:
            fill(path)
        return path

    def conf(self) -> cfg.ConfigOpts:
        options = cfg.ConfigOpts()
        conf.register_opts(options)
        options([], default_config_files=[])
        options.set_override("pmem_namespaces", self.pmem_namespaces, group="libvirt")
        values = {"discovery": "directory", "directory": str(self.directory), "state_path": str(self.state_path)}
        for name, value in (values | self.options).items():
            options.set_override(name, value, group="vpmem")
        return options

    def config_file(self) -> pathlib.Path:
        """The same options, for the command line."""
        lines = ["[libvirt]", f"pmem_namespaces = {','.join(self.pmem_namespaces)}", "[vpmem]"]
        values = {"discovery": "directory", "directory": self.directory, "state_path": self.state_path}
        for name, value in (values | self.options).items():
            lines.append(f"{name} = {','.join(value) if isinstance(value, list) else value}")
        path = self.directory.parent / "vpmem.conf"
        text = "\n".join(lines) + "\n"
        if not path.exists() or path.read_text() != text:  # a command that runs in the background may be reading it
            path.write_text(text)
        return path

    def pool(self) -> Pool:
        """Another pool, as another process would open it."""
        options = self.conf()
        self._pools.append(Pool.from_conf(options, source=self.source(options)))
        return self._pools[-1]

    def source(self, options: cfg.ConfigOpts) -> interface.Discovery:
        return VolatileFiles(str(self.directory)) if self.volatile else discovery.from_conf(options)

    def restart(self) -> None:
        """Have the ledger come from an earlier boot. Nobody has a guest or a pool any more."""
        self.close()
        self._pools.clear()
        with contextlib.closing(sqlite3.connect(self.state_path / "ledger.sqlite3")) as database, database:
            database.execute("UPDATE namespace SET boot = ? WHERE boot IS NOT NULL", (str(uuid.uuid4()),))

    def path(self, name: str) -> pathlib.Path:
        (found,) = self.directory.rglob(name)
        return found

    def forgetful(self, path: str | pathlib.Path, at: int) -> str:
        """A ``wipe_command`` for which the byte `at` of this namespace is not zero when it is read back."""
        program = self.directory.parent / "forgetful.py"
        program.write_text(_FORGETFUL)
        return shlex.join([sys.executable, str(program), str(path), str(at)])

    def close(self) -> None:
        for pool in self._pools:
            pool.close()


def new_owner() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def host(tmp_path):
    made = Host(tmp_path)
    for number in range(2):
        made.make(f"large{number}", node=number, size=8 * MIB)
    for number in range(3):
        made.make(f"small{number}", node=number % 2, size=4 * MIB)
    yield made
    made.close()


@pytest.fixture
def other(tmp_path):
    """A second host with the same labels and sizes."""
    (tmp_path / "other").mkdir()
    made = Host(tmp_path / "other")
    for number in range(2):
        made.make(f"large{number}", size=8 * MIB)
    for number in range(3):
        made.make(f"small{number}", size=4 * MIB)
    yield made
    made.close()
