"""vpmem demo."""

import argparse
import json
import mmap
import os
import pathlib
import shutil
import subprocess
import tempfile
import typing
import uuid

from vpmem_driver import exception, guestxml, interpreter
from vpmem_driver.cli import commands
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.sizes import MIB

_TEST_URI = "test:///default"

#: The simulated host: file, bytes, NUMA node.
_NAMESPACES = (("large0", 64 * MIB, 0), ("small0", 16 * MIB, 0), ("small1", 16 * MIB, 1))
_LABELS = "LARGE:large0,SMALL:small0|small1"
_FLAVOR = "LARGE,SMALL"

#: What of a listing fits on a page.
_COLUMNS = tuple(f"-c{column}" for column in ("name", "label", "size", "numa_node", "state", "owner"))


class Demo(commands.Command):
    """Show the whole way of a namespace on this machine: into a guest and back, and on to the next.

    Needs no configuration, no root and no daemon: namespaces are files in a private temporary directory, the guest is a
    domain of libvirt's built-in test driver. Each step is a command that you could type.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add --keep and --connect."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--keep", action="store_true", help="leave the directory with files, configuration and ledger"
        )
        parser.add_argument(
            "--connect", metavar="URI", default=_TEST_URI, help="libvirt to define and start the guest on (%(default)s)"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Run all steps; the first that goes another way than it should ends it with an error."""
        root = pathlib.Path(tempfile.mkdtemp(prefix="vpmem-demo-"))
        try:
            _Play(root, parsed_args.connect, self.app.stdout, self.app.stderr).run()
        finally:
            if parsed_args.keep:
                self.app.stdout.write(f"\nKept: {root}\n")
            else:
                shutil.rmtree(root)


class _Play:
    """The steps, on a host made of files below `root`."""

    def __init__(self, root: pathlib.Path, uri: str, stdout: typing.TextIO, stderr: typing.TextIO) -> None:
        self._root = root
        self._uri = uri
        self._stdout = stdout
        self._stderr = stderr
        self._config_file = root / "vpmem.conf"
        self._step = 0
        self._shown: list[str] = []
        self._warned: set[str] = set()

    def run(self) -> None:
        first, second = str(uuid.uuid4()), str(uuid.uuid4())
        self._make_host()
        self._say("What this host has", "nothing is known of these namespaces yet: they may hold anybody's data")
        self._vpmem("namespace", "list", *_COLUMNS)
        self._say(f"A guest is made from a flavor that asks for {_FLAVOR}", "they are wiped first, as they are unknown")
        self._vpmem("claim", first, _FLAVOR, *_COLUMNS)
        self._say("The domain XML of that guest", "each device on the guest cell of its own NUMA node")
        domain_xml = self._vpmem(
            "domain", "xml", first, "--name", "demo", "--type", self._domain_type, "--memory", "64"
        )
        self._run_guest(domain_xml)
        self._say("A second guest asks for the same", "nothing is free, and it gets nothing: exit code 3")
        self._vpmem("claim", second, _FLAVOR, expected=3)
        self._say("The first guest is deleted", "its namespaces are released, and wiped at once")
        self._vpmem("-v", "release", first, "--wait", *_COLUMNS)
        self._expect_zeros(device.path for device in guestxml.devices(domain_xml))
        self._say("The second guest asks again", "and is served, with nothing left of the first")
        served = json.loads(self._vpmem("claim", second, _FLAVOR, "-f", "json", shown=False))
        self._vpmem("namespace", "list", *_COLUMNS)
        self._expect_zeros(namespace["device"] for namespace in served)
        self._say("What the ledger has to say of all this")
        self._vpmem("history", "--last", "8", "-c", "name", "-c", "from_state", "-c", "to_state", "-c", "reason")
        self._write("\nIn short:\n" + "".join(f"  {number}. {line}\n" for number, line in enumerate(self._shown, 1)))

    @property
    def _domain_type(self) -> str:
        return "test" if self._uri.startswith("test:") else "qemu"

    def _make_host(self) -> None:
        for name, size, node in _NAMESPACES:
            path = self._root / "pmem" / f"node{node}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            with path.open("r+b") as file:
                file.write(os.urandom(4096) * (size // 4096))
        lines = ["[libvirt]", f"pmem_namespaces = {_LABELS}", "[vpmem]", "discovery = directory"]
        lines += [f"directory = {self._root}/pmem", f"state_path = {self._root}/state"]
        self._config_file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._write(f"A simulated host in {self._root}: two NUMA nodes, three namespaces, each a file.\n")

    def _run_guest(self, domain_xml: str) -> None:
        """Define and start the domain, write as its guest would, stop and start it, and look again."""
        self._say(f"The guest is started on {self._uri}, writes into its memory, is stopped and started again")
        domains = Domains(self._uri)
        with domains.connection() as connection, domains.errors():
            domain = domains.define(connection, domain_xml)
            try:
                domain.create()
                written = {device.path: _write_pattern(device) for device in guestxml.devices(domain.XMLDesc())}
                domain.destroy()
                domain.create()
                for device in guestxml.devices(domain.XMLDesc()):
                    fact = f"after stop and start it has the {device.guest_size // MIB} MiB that the guest wrote"
                    kept = _contents(device.path).startswith(written[device.path])
                    self._expect(kept, f"{pathlib.Path(device.path).name}: {fact}")
                domain.destroy()
            finally:
                domain.undefine()

    def _vpmem(self, *words: str, expected: int = 0, shown: bool = True) -> str:
        """Run one command line, show it and what it prints, and check its exit code; returns standard output."""
        if shown:
            self._write(f"\n$ vpmem {' '.join(words)}\n")
        terminal = self._stderr.isatty()
        done = subprocess.run(
            interpreter.command("vpmem_driver.cli.main", "--config-file", str(self._config_file), *words),
            env=interpreter.environment(),
            stdout=subprocess.PIPE,
            stderr=None if terminal else subprocess.PIPE,
            text=True,
            check=False,
        )
        for line in (done.stderr or "").splitlines():
            if line not in self._warned:  # a warning is for each command; here once will do
                self._warned.add(line)
                self._write(line + "\n")
        if shown:
            self._write(done.stdout)
        if done.returncode != expected:
            raise exception.HostToolError(
                what=f"The step 'vpmem {' '.join(words)}'",
                reason=f"exit code {done.returncode}, not {expected}",
                remedy="--keep leaves what it worked on.",
            )
        if expected:
            self._expect(True, f"refused with exit code {done.returncode}")
        return done.stdout

    def _say(self, title: str, remark: str = "") -> None:
        self._step += 1
        self._shown.append(title)
        self._write(f"\n== {self._step}. {title}{': ' + remark if remark else ''}\n")

    def _expect_zeros(self, paths: typing.Iterable[str]) -> None:
        for path in paths:
            self._expect(not any(_contents(path)), f"{pathlib.Path(path).name}: every byte is zero")

    def _expect(self, true: bool, fact: str) -> None:
        if not true:
            raise exception.HostToolError(
                what="The demo", reason=f"this is not so: {fact}", remedy="Please report this with what is above."
            )
        self._write(f"   ok: {fact}\n")

    def _write(self, text: str) -> None:
        self._stdout.write(text)
        self._stdout.flush()


def _write_pattern(device: guestxml.MemoryDevice) -> bytes:
    """Store a pattern over all that the guest sees of a device, the way QEMU maps it."""
    pattern = (os.urandom(4096) * -(-device.guest_size // 4096))[: device.guest_size]
    with pathlib.Path(device.path).open("r+b") as file, mmap.mmap(file.fileno(), device.size) as memory:
        memory[: len(pattern)] = pattern
    return pattern


def _contents(path: str) -> bytes:
    return pathlib.Path(path).read_bytes()
