"""A process that runs ``vpmem`` again and again, as an operator or a script does."""

import json
import os
import random
import subprocess
import sys
import time
import uuid as uuids
from collections.abc import Callable, Mapping

from vpmem_driver import exception

from . import host
from .account import Account, Guest, Operation

#: The documented exit codes: refused, and not enough free.
REFUSED, TOO_FEW = 4, exception.InsufficientNamespaces.exit_code

#: Between two commands. Each starts an interpreter, which costs as much as hundreds of a pool's operations.
PAUSE_SECONDS = 4.0


class Refused(Exception):
    """The command ended with a documented exit code."""


class CommandUser:
    """One after the other."""

    def __init__(self, where: host.Host, account: Account, rng: random.Random, stopped: Callable[[], bool]) -> None:
        self._where = where
        self._account = account
        self._rng = rng
        self._stopped = stopped

    def run(self) -> None:
        while not self._stopped():
            self._cycle()

    def _cycle(self) -> None:
        guest = Guest(self._account, str(uuids.UUID(int=self._rng.getrandbits(128), version=4)))
        label = self._rng.choice(host.LABELS)
        self._pause()
        with self._account.operation("vpmem claim", guest.owner, refusals=(Refused,)) as done:
            self._begin(guest, done, self._vpmem("claim", guest.owner, label))
        self._list()
        for uuid in guest.held:
            self._release(guest, uuid)
            self._pause()
            with self._account.operation("vpmem adopt", guest.owner, refusals=(Refused,)) as done:
                self._vpmem("adopt", guest.owner, uuid)
                done.got = [uuid]
                # 'vpmem release' starts a wipe: then the adoption is refused, or the wipe.
                done.failed = guest.comes_back(uuid)
        self._pause()
        with self._account.operation("vpmem history"):
            self._vpmem("history", "--last", "5")
        for uuid in guest.held:
            self._release(guest, uuid)
            self._pause()
            with self._account.operation("vpmem wipe", refusals=(Refused,)) as done:
                self._vpmem("wipe", "--namespace", uuid)
                done.wiped = [uuid]

    @staticmethod
    def _begin(guest: Guest, done: Operation, rows: list[Mapping[str, str]]) -> None:
        done.got = [row["uuid"] for row in rows]
        done.failed = "; ".join(filter(None, [guest.starts(row["uuid"], row["device"]) for row in rows]))

    def _pause(self) -> None:
        if not self._stopped():
            time.sleep(PAUSE_SECONDS)

    def _list(self) -> None:
        self._pause()
        with self._account.operation("vpmem namespace list") as done:
            row = self._rng.choice(self._vpmem("namespace", "list"))
            done.seen = [row["uuid"], row["state"], row["owner"]]

    def _release(self, guest: Guest, uuid: str) -> None:
        wrong = guest.leaves(uuid)
        self._pause()
        with self._account.operation("vpmem release", guest.owner) as done:
            done.failed = wrong
            self._vpmem("release", guest.owner, "--namespace", uuid)
            done.gave = [uuid]
            guest.left(uuid)

    def _vpmem(self, *words: str) -> list[Mapping[str, str]]:
        command = [sys.executable, "-m", "vpmem_driver.cli.main", "--config-file", str(self._where.config_file)]
        done = subprocess.run(
            [*command, *words, "-f", "json"], capture_output=True, text=True, check=False, env=dict(os.environ)
        )
        if done.returncode in {REFUSED, TOO_FEW}:
            raise Refused
        if done.returncode:
            raise RuntimeError(f"vpmem {' '.join(words)} ended with {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)
