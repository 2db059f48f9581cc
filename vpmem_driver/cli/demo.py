"""The command ``vpmem demo``."""

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
from vpmem_driver.cli import common
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.sizes import MIB

_TEST_URI = "test:///default"

#: The simulated host: file, bytes, NUMA node.
_NAMESPACES = (("large0", 64 * MIB, 0), ("small0", 16 * MIB, 0), ("small1", 16 * MIB, 1))
_LABELS = "LARGE:large0,SMALL:small0|small1"
_FLAVOR = "LARGE,SMALL"


class Demo(common.Command):
    """Simulate a host with files and take one namespace through its whole life cycle.

    The demo needs no configuration, no root and no daemon. The namespaces are files in a private temporary directory,
    and the guest is a domain of libvirt's built-in test driver. Each step is a command that you can type yourself.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--keep", action="store_true", help="keep the directory with files, configuration and ledger"
        )
        parser.add_argument(
            "--connect", metavar="URI", default=_TEST_URI, help="libvirt URI for the guest (%(default)s)"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        root = pathlib.Path(tempfile.mkdtemp(prefix="vpmem-demo-"))
        try:
            _Steps(root, parsed_args.connect, self.app.stdout, self.app.stderr).run()
        finally:
            if parsed_args.keep:
                self.app.stdout.write(f"\nKept: {root}\n")
            else:
                shutil.rmtree(root)


class _Steps:
    """The steps of the demo, on a simulated host in the directory `root`. A failed step raises an error."""

    def __init__(self, root: pathlib.Path, uri: str, stdout: typing.TextIO, stderr: typing.TextIO) -> None:
        self._root = root
        self._uri = uri
        self._stdout = stdout
        self._stderr = stderr
        self._config_file = root / "vpmem.conf"
        self._step = 0
        self._titles: list[str] = []
        self._warnings: set[str] = set()

    def run(self) -> None:
        first, second = str(uuid.uuid4()), str(uuid.uuid4())
        self._make_host()
        self._begin("List the namespaces of this host", "they are unknown, because they may contain someone's data")
        self._vpmem("namespace", "list")
        self._begin(
            f"Claim namespaces for a guest whose flavor asks for {_FLAVOR}", "unknown namespaces are wiped first"
        )
        self._vpmem("claim", first, _FLAVOR)
        self._begin(
            "Print the domain XML of the guest", "a file without DAX is a virtio-pmem, whose flushes reach the disk"
        )
        domain_xml = self._vpmem(
            "domain", "xml", first, "--name", "demo", "--type", self._domain_type, "--memory", "64"
        )
        self._run_guest(domain_xml)
        self._begin("Claim the same for a second guest", "too few are free, so nothing is claimed (exit code 3)")
        self._vpmem("claim", second, _FLAVOR, expected=3)
        self._begin("Delete the first guest", "its namespaces are released and wiped")
        self._vpmem("-v", "release", first, "--wait")
        self._check_zeros(device.path for device in guestxml.devices(domain_xml))
        self._begin("Repeat the claim for the second guest", "it gets namespaces without data of the first guest")
        served = json.loads(self._vpmem("claim", second, _FLAVOR, "-f", "json", shown=False))
        self._vpmem("namespace", "list")
        self._check_zeros(namespace["device"] for namespace in served)
        self._begin("Show the history")
        self._vpmem("history", "--last", "8")
        self._write("\nSummary:\n" + "".join(f"  {number}. {line}\n" for number, line in enumerate(self._titles, 1)))

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
        lines.append(f"connection_uri = {self._uri}")
        self._config_file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._write(f"A simulated host in {self._root}: two NUMA nodes, three namespaces, each a file.\n")

    def _run_guest(self, domain_xml: str) -> None:
        """Define and start the domain, write like its guest, restart it, and compare the memory."""
        self._begin(f"Start the guest on {self._uri}, write to its memory, stop it and start it again")
        domains = Domains(self._uri)
        with domains.connection() as connection, domains.errors():
            domain = domains.define(connection, domain_xml)
            try:
                domain.create()
                written = {device.path: _write_pattern(device) for device in guestxml.devices(domain.XMLDesc())}
                domain.destroy()
                domain.create()
                for device in guestxml.devices(domain.XMLDesc()):
                    fact = f"the {device.guest_size // MIB} MiB that the guest wrote survive stop and start"
                    kept = _contents(device.path).startswith(written[device.path])
                    self._check(kept, f"{pathlib.Path(device.path).name}: {fact}")
                domain.destroy()
            finally:
                domain.undefine()

    def _vpmem(self, *words: str, expected: int = 0, shown: bool = True) -> str:
        """Run a command, show it with its output, check its exit code, and return its standard output."""
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
            if line not in self._warnings:  # show a warning once, not for each command
                self._warnings.add(line)
                self._write(line + "\n")
        if shown:
            self._write(done.stdout)
        if done.returncode != expected:
            raise exception.HostToolError(
                what=f"The step 'vpmem {' '.join(words)}'",
                reason=f"exit code {done.returncode} instead of {expected}",
                remedy="Use --keep to keep its files",
            )
        if expected:
            self._check(True, f"refused with exit code {done.returncode}")
        return done.stdout

    def _begin(self, title: str, remark: str = "") -> None:
        self._step += 1
        self._titles.append(title)
        self._write(f"\n== {self._step}. {title}{': ' + remark if remark else ''}\n")

    def _check_zeros(self, paths: typing.Iterable[str]) -> None:
        for path in paths:
            self._check(not any(_contents(path)), f"{pathlib.Path(path).name}: every byte is zero")

    def _check(self, true: bool, fact: str) -> None:
        if not true:
            raise exception.HostToolError(
                what="The demo", reason=f"this is false: {fact}", remedy="Please report this with the output above"
            )
        self._write(f"   ok: {fact}\n")

    def _write(self, text: str) -> None:
        self._stdout.write(text)
        self._stdout.flush()


def _write_pattern(device: guestxml.MemoryDevice) -> bytes:
    """Write a pattern to all of the device that the guest sees, through a mapping like QEMU's."""
    pattern = (os.urandom(4096) * -(-device.guest_size // 4096))[: device.guest_size]
    with pathlib.Path(device.path).open("r+b") as file, mmap.mmap(file.fileno(), device.size) as memory:
        memory[: len(pattern)] = pattern
    return pattern


def _contents(path: str) -> bytes:
    return pathlib.Path(path).read_bytes()
