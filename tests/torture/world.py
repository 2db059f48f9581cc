"""The host of one round: files as namespaces, what is in them, and what befalls a host."""

import dataclasses
import os
import pathlib
import random
import struct

PAGE = 4096
UNIT = 16
#: Of SQLite's write-ahead log, and of each page in it.
_LOG_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24


def pattern(name: str, size: int) -> bytes:
    """Bytes that tell who wrote them: `name`, again and again."""
    return name.encode().ljust(UNIT, b".")[:UNIT] * (size // UNIT)


def is_zero(data: bytes) -> bool:
    return data == bytes(len(data))


def contents(data: bytes) -> str:
    """What is in a piece, in words: who wrote it, or zeros."""
    found: dict[str, int] = {}
    for at in range(0, len(data), UNIT):
        unit = data[at : at + UNIT]
        word = "zeros" if is_zero(unit) else unit.decode("ascii", "replace").rstrip(".")
        found[word] = found.get(word, 0) + len(unit)
    most = sorted(found.items(), key=lambda item: -item[1])[:4]
    return ", ".join(f"{count} bytes of {word}" for word, count in most) + (" and others" if len(found) > 4 else "")


@dataclasses.dataclass(eq=False)
class Namespace:
    """One file.

    :ivar inode: its identity; a file that is renamed stays the same namespace
    :ivar content: what was in it when last looked at
    :ivar durable: what a power loss leaves in it
    :ivar lost: the offset of a byte for which the medium has lost a zero
    :ivar may_fail: the medium has failed, so that quarantining it is right
    """

    path: pathlib.Path
    inode: int
    content: bytes
    durable: bytes
    lost: int | None = None
    may_fail: bool = False

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def size(self) -> int:
        return len(self.content)

    def read(self) -> bytes:
        return self.path.read_bytes()

    def store(self, content: bytes) -> None:
        """Have it contain that, durably."""
        with self.path.open("r+b") as file:
            if len(content) != self.size:
                os.ftruncate(file.fileno(), min(len(content), self.size))
                os.posix_fallocate(file.fileno(), 0, len(content))
            file.write(content)
        self.content = self.durable = content


class World:
    """The files, the configuration, and accidents. All choices come from `rng`."""

    def __init__(self, directory: pathlib.Path, rng: random.Random) -> None:
        self.directory = directory / "pmem"
        self.state_path = directory / "state"
        self.ledger_path = self.state_path / "ledger.sqlite3"
        self.config_path = directory / "vpmem.conf"
        self._rng = rng
        self.directory.mkdir()
        self._durable_log: tuple[bytes, int, int] | None = None
        self.labels = ["A", "B"][: rng.choice([1, 1, 2])]
        self.namespaces: list[Namespace] = []
        self._made: list[int] = []
        self.label_of: dict[str, str] = {}
        for number in range(rng.choice([2, 2, 3, 4])):
            label = self.labels[number % len(self.labels)]
            namespace = self._make(f"{label.lower()}{number}", PAGE * rng.choice([16, 40, 64, 90]))
            self.label_of[namespace.name] = label
        self.options = {
            "discovery": "directory",
            "directory": str(self.directory),
            "state_path": str(self.state_path),
            "connection_uri": None,
            "wipe_parallel": rng.choice([1, 1, 2]),
            "wipe_threads": 1,
            "wipe_rate": rng.choice([0, 1, 1]),
        }

    def _make(self, name: str, size: int) -> Namespace:
        path = self.directory / name
        content = pattern(f"made{len(self._made)}:{name}", size)
        with path.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)  # else processes that may not be looked at could have it mapped
            os.posix_fallocate(file.fileno(), 0, size)
            file.write(content)
        made = Namespace(path, path.stat().st_ino, content, content)
        self._made.append(made.inode)
        self.namespaces.append(made)
        return made

    @property
    def pmem_namespaces(self) -> list[str]:
        """The option [libvirt] pmem_namespaces."""
        return [
            f"{label}:{'|'.join(name for name, its in self.label_of.items() if its == label)}" for label in self.labels
        ]

    def write_config(self) -> None:
        """The options, for the command line."""
        lines = ["[libvirt]", f"pmem_namespaces = {','.join(self.pmem_namespaces)}", "[vpmem]"]
        lines += [f"{name} = {value}" for name, value in self.options.items() if value is not None]
        new = self.config_path.with_suffix(".new")
        new.write_text("\n".join(lines) + "\n")
        new.replace(self.config_path)  # a command that runs in the background may be reading it

    def by_inode(self, inode: int | None) -> Namespace | None:
        return next((namespace for namespace in self.namespaces if namespace.inode == inode), None)

    def by_name(self, name: str | None) -> Namespace | None:
        return next((namespace for namespace in self.namespaces if namespace.name == name), None)

    # Accidents

    def lose_power(self) -> None:
        """Have each page that was not made durable be as it was, or not. Every process is dead."""
        for namespace in self.namespaces:
            now = namespace.read()
            pages = [
                (namespace.durable if self._rng.random() < 0.5 else now)[at : at + PAGE]
                for at in range(0, len(now), PAGE)
            ]
            namespace.store(b"".join(pages))

    def note_durable_ledger(self) -> None:
        """What was committed so far is on the disk."""
        self._durable_log = self._log_position()

    def lose_commits(self) -> bool:
        """Have the ledger forget what was committed after the last durable commit. :returns: whether there was any"""
        now, then = self._log_position(), self._durable_log
        if now is None or then is None or now[0] != then[0] or now[1] <= then[1]:
            return False  # or it was copied into the database, which is durable
        os.truncate(f"{self.ledger_path}-wal", _LOG_HEADER_BYTES + then[1] * (_FRAME_HEADER_BYTES + now[2]))
        os.unlink(f"{self.ledger_path}-shm")
        return True

    def _log_position(self) -> tuple[bytes, int, int] | None:
        """Generation of the write-ahead log, its frames and the size of their pages (SQLite: walformat.html, 2.1)."""
        try:
            with open(f"{self.ledger_path}-shm", "rb") as file:
                header = file.read(48)
        except FileNotFoundError:
            return None
        if len(header) < 48:
            return None
        page_size, frames = struct.unpack_from("=HI", header, 14)
        return header[32:40], frames, page_size

    def lose_a_zero(self, namespace: Namespace) -> None:
        """Have the medium forget one zero."""
        at = self._rng.choice([0, namespace.size - 1, self._rng.randrange(namespace.size)])
        with namespace.path.open("r+b") as file:
            os.pwrite(file.fileno(), b"\xff", at)
        content = bytearray(namespace.content)
        content[at] = 0xFF
        namespace.content = bytes(content)
        durable = bytearray(namespace.durable)
        durable[at] = 0xFF
        namespace.durable = bytes(durable)
        namespace.lost, namespace.may_fail = at, True

    def resize(self, namespace: Namespace) -> None:
        """Have an operator replace the end of a file by something else, shorter or longer."""
        sizes = [PAGE * count for count in (16, 24, 40, 64, 90, 100) if PAGE * count != namespace.size]
        size = self._rng.choice(sizes)
        kept = PAGE * self._rng.randrange(8, min(size, namespace.size) // PAGE + 1)
        if namespace.lost is not None and namespace.lost >= kept:
            namespace.lost = None
        namespace.store(namespace.content[:kept] + pattern(f"resized:{namespace.name}", size - kept))

    def replace(self, namespace: Namespace) -> Namespace:
        """Have an operator replace a file by another of that name: a new namespace, and the old one is gone."""
        self.namespaces.remove(namespace)
        namespace.path.unlink()
        return self._make(namespace.name, namespace.size)

    def swap_names(self) -> None:
        """Have two files of one label change names, as device nodes do at a boot."""
        label = self._rng.choice(self.labels)
        names = [name for name, its in self.label_of.items() if its == label]
        if len(names) < 2:
            return
        first, second = (self.by_name(name) for name in self._rng.sample(names, 2))
        assert first is not None and second is not None
        aside = self.directory / ".aside"
        first.path.rename(aside)
        second.path.rename(first.path)
        aside.rename(second.path)
        first.path, second.path = second.path, first.path
