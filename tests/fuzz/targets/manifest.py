"""The manifest of a snapshot, beside two complete files."""

import pathlib
import random
from collections.abc import Iterator

import msgspec

from tests.fuzz import mutation
from tests.fuzz.finding import literal
from tests.fuzz.target import Target, words
from tests.fuzz.targets import archive as archives
from tests.fuzz.targets import made
from vpmem_driver.sizes import MIB
from vpmem_driver.transfer import archive, manifest


def read(directory: pathlib.Path, data: bytes) -> None:
    """Read a snapshot with this manifest: what it names must be what is there."""
    (directory / manifest.FILE_NAME).write_bytes(data)
    for entry in manifest.read(directory).namespaces:
        header, digest = archive.read_total(directory / entry.file)
        assert (entry.size, entry.align, entry.hardware) == (header.size, header.align, header.hardware)
        assert bytes.fromhex(entry.digest) == digest


class Fuzzed(Target):
    words = words("vpmem domain name namespaces file label size align digest hardware 0.vpmem 1.vpmem ../0.vpmem")

    def __init__(self, root: pathlib.Path) -> None:
        super().__init__(root)
        for number in (0, 1):
            (root / manifest.file_name(number)).write_bytes(archives.written(2 + number, align=2 * MIB, label_size=0))

    def seeds(self) -> Iterator[bytes]:
        entries = []
        for number in (0, 1):
            header, digest = archive.read_total(self.root / manifest.file_name(number))
            entry = msgspec.structs.asdict(header)
            del entry["vpmem"]
            entries.append(manifest.Entry(file=manifest.file_name(number), digest=digest.hex(), **entry))
        whole = manifest.Manifest(domain=made.OWNERS[0], name="db", namespaces=tuple(entries))
        yield msgspec.json.encode(whole)

    def run(self, data: bytes) -> None:
        read(self.root, data)

    def shown(self, data: bytes) -> str:
        return f"read(tmp_path, {literal(data)})"

    def mutate(self, data: bytes, chance: random.Random) -> bytes | None:
        return mutation.json_document(data, chance, self.words, self.max_bytes)
