"""A tree like that of ``/sys``, as a JSON object: contents of attributes and targets of links, by path."""

import contextlib
import json
import os
import pathlib
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping

import msgspec

from tests.fuzz import mutation
from tests.fuzz.target import Target, words
from tests.fuzz.targets import checks
from tests.unit.discovery import hosts
from vpmem_driver.discovery import sysfs

_IMPOSSIBLE = contextlib.suppress(OSError, ValueError, RecursionError)


class Described(msgspec.Struct):
    """A tree. Paths are relative to its root; the targets of links are relative to the link."""

    files: dict[str, str] = {}
    links: dict[str, str] = {}
    directories: list[str] = []


def make_tree(root: pathlib.Path, tree: Described) -> None:
    """Make the tree below `root`, leaving out what leads out of it and what cannot be made."""
    for path in ("bus/nd/devices", "bus/dax/devices"):
        (root / path).mkdir(parents=True, exist_ok=True)
    for path in filter(_inside, tree.directories):
        with _IMPOSSIBLE:
            (root / path).mkdir(parents=True, exist_ok=True)
    for path, content in tree.files.items():
        with _IMPOSSIBLE:
            if _inside(path):
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_bytes(content.encode(errors="surrogatepass"))
    for path, target in tree.links.items():  # last, so that nothing is made through one
        with _IMPOSSIBLE:
            if _inside(path) and _inside(os.path.join(os.path.dirname(path), target)):
                parent = (root / path).parent
                if os.path.realpath(parent) == str(parent):
                    parent.mkdir(parents=True, exist_ok=True)
                    (root / path).symlink_to(target)


def _inside(path: str) -> bool:
    """Whether a path, taken by its text, is below the root."""
    normal = os.path.normpath(path)
    return bool(path) and not normal.startswith(("/", "..")) and normal != "."


def described(root: pathlib.Path) -> Mapping[str, object]:
    """The tree at `root`."""
    paths = sorted(root.rglob("*"))
    return {
        "files": {str(path.relative_to(root)): path.read_text() for path in paths if path.is_file()},
        "links": {str(path.relative_to(root)): os.readlink(path) for path in paths if path.is_symlink()},
        "directories": [str(path.relative_to(root)) for path in paths if path.is_dir() and not path.is_symlink()],
    }


class Fuzzed(Target):
    words = words(
        """driver uuid size align holder mode alt_name numa_node target_node resource bus/nd/devices/namespace0.0
        bus/nd/devices/dax0.0 bus/dax/devices/dax0.0 ../../../devices/x dax0.0 memory raw safe kmem device_dax 0x10 -1
        region0 badblocks . /"""
    )

    def seeds(self) -> Iterator[bytes]:
        for kind in ("devdax", "fsdax", "disabled", "unnamed", "split", "system-ram", "seed"):
            with tempfile.TemporaryDirectory(dir=self.root) as directory:
                hosts.Tree(pathlib.Path(directory)).slot(slot := hosts.Slot(kind))
                region = pathlib.Path(directory, f"devices/platform/ndbus{slot.region}/region{slot.region}")
                for name, text in {"resource": "0x100000000\n", "badblocks": "8 1\n100 2\n"}.items():
                    (region / name).write_text(text)
                for holder in region.glob("dax*"):
                    (holder / "resource").write_text("0x100200000\n")
                yield json.dumps(described(pathlib.Path(directory))).encode()

    def run(self, data: bytes) -> None:
        try:
            tree = msgspec.json.decode(data, type=Described)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        root = self.root / "sys"
        try:
            make_tree(root, tree)
            source = sysfs.SysfsDiscovery(str(root))
            found = source.namespaces()
            checks.discovered(found)
            for namespace in found:
                checks.bad(source.bad_ranges(namespace.device or ""))
        finally:
            shutil.rmtree(root)

    def shown(self, data: bytes) -> str:
        tree = msgspec.json.decode(data, type=Described)
        return f"make_tree(root, {tree!r}); sysfs.SysfsDiscovery(str(root)).namespaces()"

    def mutate(self, data: bytes, chance: random.Random) -> bytes | None:
        return mutation.json_document(data, chance, self.words, self.max_bytes)
