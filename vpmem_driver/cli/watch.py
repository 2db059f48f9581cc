"""The command ``vpmem watch``."""

import argparse
import contextlib
import time

from rich import live

from vpmem_driver import exception, model
from vpmem_driver.checkup.host import Host
from vpmem_driver.cli import common, host_show, hostmap, owners, tables
from vpmem_driver.discovery import from_conf, interface
from vpmem_driver.pool import snapshot

#: How often the ledger is read, and how often devices and owners are looked up, in seconds.
_INTERVAL, _LONG_INTERVAL = 1.0, 30.0


class Watch(common.Command):
    """Show the map of 'vpmem host show' and follow it, until Ctrl-C.

    It reads the ledger once a second, and devices and owners every 30 seconds. It takes no lock and changes nothing.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        common.add_connect_argument(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        screen = tables.Screen.of(self.app.stdout)
        if screen.width is None:
            raise exception.InvalidRequest(
                what="standard output",
                value="not a terminal",
                reason="'vpmem watch' needs a terminal",
                remedy="Use 'vpmem status' or 'vpmem host show'",
            )
        target = host_show.make_console(screen, self.app.stdout)
        view = _View(self, parsed_args.connect)
        with (
            contextlib.suppress(KeyboardInterrupt),
            live.Live(view.map(), console=target, screen=True, auto_refresh=False) as shown,
        ):
            while True:
                begin = time.monotonic()
                target.width = tables.Screen.of(self.app.stdout).width or target.width
                shown.update(view.map(), refresh=True)
                time.sleep(max(0.1, _INTERVAL - (time.monotonic() - begin)))


class _View:
    """Makes the maps, and remembers what changes rarely."""

    def __init__(self, cmd: common.Command, connect: str | None) -> None:
        app = common.app(cmd)
        self._conf = app.configuration()
        self._domains = app.domains(connect)
        self._source = _Remembered(from_conf(self._conf))
        self._memory = hostmap.memory_of(Host())
        self._named: frozenset[str] = frozenset()
        self._names = owners.Owners((), self._domains)
        self._names_at = time.monotonic()

    def map(self) -> hostmap.HostMap:
        """Return the map of now."""
        now = snapshot.read(self._conf, source=self._source)
        if now.owners != self._named or time.monotonic() - self._names_at > _LONG_INTERVAL:
            self._names = owners.Owners(now.owners, self._domains)
            self._named, self._names_at = now.owners, time.monotonic()
        return hostmap.HostMap(now, self._memory, self._names)


class _Remembered(interface.Discovery):
    """A discovery whose answer is used for a while."""

    def __init__(self, source: interface.Discovery) -> None:
        self.name = source.name
        self._source = source
        self._found: tuple[model.Namespace, ...] | None = None
        self._found_at = 0.0

    def namespaces(self) -> tuple[model.Namespace, ...]:
        """Return the last answer, or a new one."""
        if self._found is None or time.monotonic() - self._found_at > _LONG_INTERVAL:
            self._found = self._source.namespaces()
            self._found_at = time.monotonic()
        return self._found

    def options(self) -> dict[str, str]:
        """Return the options of the discovery."""
        return self._source.options()

    def identity_of(self, fd: int) -> str | None:
        """Return the identity of an open device."""
        return self._source.identity_of(fd)
