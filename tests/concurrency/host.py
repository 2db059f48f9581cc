"""The host that all processes share: files as namespaces, one configuration, one ledger. No code of the package."""

import dataclasses
import hashlib
import os
import pathlib

#: The least that a guest's device may have.
SIZE = 4 << 20
PAGE = 4096
LABELS = ("LARGE", "SMALL")

#: The pages that an owner writes: the first, one in the middle, the last. Every other page of its namespace is zero.
PAGES = (0, SIZE // 2 - PAGE, SIZE - PAGE)


@dataclasses.dataclass(frozen=True)
class Host:
    """Where everything is. `memory` has the namespaces; `root` has all else."""

    root: pathlib.Path
    memory: pathlib.Path

    @property
    def config_file(self) -> pathlib.Path:
        return self.root / "vpmem.conf"

    @property
    def ledger(self) -> pathlib.Path:
        return self.root / "state" / "ledger.sqlite3"

    @property
    def stop_file(self) -> pathlib.Path:
        """When it is there, every process finishes what it has begun, and ends."""
        return self.root / "stop"

    def account(self, process: str) -> pathlib.Path:
        return self.root / f"{process}.account"

    def make(self, namespaces: int) -> None:
        """Make the files, `namespaces` for each label, full of somebody's bytes, and the configuration."""
        entries = []
        for label in LABELS:
            names = [f"{label.lower()}{number}" for number in range(namespaces)]
            entries.append(f"{label}:{'|'.join(names)}")
            for name in names:
                with (self.memory / name).open("wb") as file:
                    os.fchmod(file.fileno(), 0o600)
                    file.write(os.urandom(PAGE) * (SIZE // PAGE))
        self.config_file.write_text(
            f"[libvirt]\npmem_namespaces = {','.join(entries)}\n[vpmem]\ndiscovery = directory\n"
            f"directory = {self.memory}\nstate_path = {self.root / 'state'}\nwipe_threads = 1\n"
            "connection_uri = test:///default\n"
        )


def content(owner: str, uuid: str, generation: int, offset: int) -> bytes:
    """What `owner` writes to the page at `offset` the `generation`-th time."""
    return hashlib.shake_128(f"{owner} {uuid} {generation} {offset}".encode()).digest(PAGE)


def write(path: str, owner: str, uuid: str, generation: int) -> None:
    """Write as a guest does. A file that stays open counts as used, so this closes it."""
    with open(path, "r+b", buffering=0) as file:
        for offset in PAGES:
            os.pwrite(file.fileno(), content(owner, uuid, generation, offset), offset)


def has_content(path: str, owner: str, uuid: str, generation: int) -> bool:
    """Whether the owner's pages are as it has written them."""
    with open(path, "rb", buffering=0) as file:
        return all(
            os.pread(file.fileno(), PAGE, offset) == content(owner, uuid, generation, offset) for offset in PAGES
        )


def is_zero(path: str | pathlib.Path) -> bool:
    return pathlib.Path(path).read_bytes() == bytes(SIZE)
