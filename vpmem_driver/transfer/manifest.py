"""A snapshot: a directory with a file for each namespace of a domain and, when all are complete, manifest.json."""

import os
import pathlib
from typing import Annotated, Literal

import msgspec

from vpmem_driver import exception
from vpmem_driver.model import IN_TREE, Described, Hardware
from vpmem_driver.protocol import NOT_UNDERSTOOD
from vpmem_driver.stream import StreamDamaged
from vpmem_driver.transfer import archive
from vpmem_driver.transfer.archive import Header

FILE_NAME = "manifest.json"
_SUFFIX = ".vpmem"

_FileName = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,9}\.vpmem$")]
_Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One namespace. Sizes are bytes; `digest` is that of all cells (:meth:`vpmem_driver.stream.Digests.total`)."""

    file: _FileName
    name: str
    label: str | None
    size: int
    align: int
    digest: _Digest
    hardware: Hardware = IN_TREE

    @classmethod
    def of(cls, namespace: Described, *, file: str, digest: str) -> "Entry":
        """Return the entry for a namespace whose content is in `file`."""
        return cls(
            file=file,
            name=namespace.name,
            label=namespace.label,
            size=namespace.size,
            align=namespace.align,
            digest=digest,
            hardware=namespace.hardware,
        )

    @property
    def header(self) -> Header:
        """The header of its file."""
        return Header.of(self)


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of a domain. Namespaces are in the order of its devices."""

    vpmem: Literal[1] = 1
    domain: str
    name: str
    namespaces: Annotated[tuple[Entry, ...], msgspec.Meta(min_length=1)]


def file_name(index: int) -> str:
    """Return the name of the file of a device."""
    return f"{index}{_SUFFIX}"


def prepare(directory: pathlib.Path, count: int) -> None:
    """Create the directory of a snapshot, or use that of an interrupted one.

    :raises InvalidRequest: it contains something else
    :raises OSError: it cannot be created or read
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    others = set(os.listdir(directory)) - {file_name(index) for index in range(count)}
    if others:
        reason = "it has a complete snapshot" if FILE_NAME in others else f"it contains {exception.listed(others)}"
        raise exception.InvalidRequest(
            what="directory", value=directory, reason=reason, remedy="Name a new or an empty directory"
        )


def write(directory: pathlib.Path, manifest: Manifest) -> None:
    """Write the manifest durably. :raises OSError: that failed."""
    draft = directory / f"{FILE_NAME}.part"
    with draft.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    draft.rename(directory / FILE_NAME)


def read(directory: pathlib.Path) -> Manifest:
    """Read the manifest, and verify that each file is complete and is the one that it names.

    :raises InvalidRequest: it is not a complete snapshot
    :raises OSError: it cannot be read
    """
    try:
        content = (directory / FILE_NAME).read_bytes()
        manifest = msgspec.json.decode(content, type=Manifest)
    except FileNotFoundError as error:
        raise _invalid(directory, f"it has no {FILE_NAME}: it is not a complete snapshot") from error
    except NOT_UNDERSTOOD as error:
        raise _invalid(directory, f"its {FILE_NAME} cannot be used: {error}") from error
    for entry in manifest.namespaces:
        try:
            found = archive.read_total(directory / entry.file)
        except FileNotFoundError as error:
            raise _invalid(directory, f"{entry.file} is missing") from error
        except StreamDamaged as error:
            raise _invalid(directory, f"{entry.file} is damaged: {error}") from error
        if found != (entry.header, bytes.fromhex(entry.digest)):
            raise _invalid(directory, f"{entry.file} is not the file that its {FILE_NAME} names")
    return manifest


def _invalid(directory: pathlib.Path, reason: str) -> exception.InvalidRequest:
    return exception.InvalidRequest(
        what="directory", value=directory, reason=reason, remedy="Use another snapshot. Nothing was changed"
    )
