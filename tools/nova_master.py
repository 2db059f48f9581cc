"""Compare a Nova with the releases that this package is tested with, by the methods that the mixin overrides.

Without a version it takes the newest Nova of the package registry, pre-releases too. For each method that differs from
that of every recorded release it prints the difference to the newest one, and ends with exit code 1.
"""

import argparse
import ast
import difflib
import json
import pathlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping

from vpmem_driver.nova import known_methods
from vpmem_driver.nova.known_methods import Method

ROOT = pathlib.Path(__file__).resolve().parents[1]
MIXINS = tuple(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("vpmem_driver/nova/*mixin.py")))


class Nova:
    """A release of Nova from the package registry: the text of the module with the driver."""

    def __init__(self, version: str | None) -> None:
        with tempfile.TemporaryDirectory() as directory:
            wanted = ["--pre", "nova"] if version is None else [f"nova=={version}"]
            pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"]
            subprocess.run([*pip, "--no-deps", "--only-binary", ":all:", "--dest", directory, *wanted], check=True)
            (wheel,) = pathlib.Path(directory).glob("nova-*.whl")
            self.version = wheel.name.split("-")[1]
            with zipfile.ZipFile(wheel) as file:
                self.source = file.read("nova/virt/libvirt/driver.py").decode()

    def text(self, name: str) -> list[str]:
        """The lines of a method; none if there is no such method."""
        for node in ast.walk(ast.parse(self.source)):
            if isinstance(node, ast.ClassDef) and node.name == known_methods.CLASS:
                for method in node.body:
                    if isinstance(method, ast.FunctionDef) and method.name == name:
                        return self.source.splitlines()[method.lineno - 1 : method.end_lineno]
        return []


def overridden() -> set[str]:
    """Return the names of all methods of the mixins. Those that LibvirtDriver does not have are no overrides."""
    return {
        method.name
        for mixin in MIXINS
        for node in ast.parse((ROOT / mixin).read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
        for method in node.body
        if isinstance(method, ast.FunctionDef)
    }


def compare(nova: Nova) -> int:
    """Print which overridden methods of this Nova are unknown; the exit code."""
    recorded = known_methods.record()
    unknown = known_methods.unknown(nova.source, recorded)
    if not unknown:
        print(f"Nova {nova.version}: all {len(recorded)} methods that the mixin overrides are known")
        return 0
    newest = Nova(max(releases(recorded), key=numbers))
    before = known_methods.methods(newest.source, recorded)
    present = known_methods.methods(nova.source, recorded)
    for name in unknown:
        print(f"\nNova {nova.version}: {name} {difference(before[name], present[name])} since {newest.version}")
        lines = difflib.unified_diff(newest.text(name), nova.text(name), newest.version, nova.version, lineterm="")
        print("\n".join(lines))
    print(f"\nNova {nova.version}: {len(unknown)} of {len(recorded)} methods that the mixin overrides are unknown")
    return 1


def releases(recorded: Mapping[str, Mapping[Method, list[str]]]) -> set[str]:
    """All releases that are recorded."""
    return {release for known in recorded.values() for named in known.values() for release in named}


def difference(before: Method, now: Method) -> str:
    """Say what changed in a method."""
    if now == known_methods.ABSENT:
        return "does not exist any more,"
    if before.signature != now.signature:
        return f"has other parameters ({now.signature} instead of {before.signature})"
    return "has another body"


def write_record(versions: list[str]) -> None:
    """Record the methods of these releases, and only of them."""
    names = sorted(overridden() - {"__init__"})
    recorded: dict[str, dict[Method, list[str]]] = {name: {} for name in names}
    for version in sorted(versions, key=numbers):
        for name, method in known_methods.methods(Nova(version).source, names).items():
            recorded[name].setdefault(method, []).append(version)
    written = {
        name: [method._asdict() | {"releases": " ".join(releases)} for method, releases in known.items()]
        for name, known in recorded.items()
        if known.keys() != {known_methods.ABSENT}  # else it is a method of the mixin's own
    }
    known_methods.RECORD.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    print(f"recorded {len(written)} methods of {len(versions)} releases")


def numbers(version: str) -> list[int]:
    """The order of releases."""
    return [int(number) for number in version.split(".")]


def main() -> int:
    """Compare, or record."""
    parser = argparse.ArgumentParser(
        prog="./dev nova-master", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("version", metavar="VERSION", nargs="*", help="a release instead of the newest one")
    parser.add_argument("--record", action="store_true", help="record these releases, after the tests passed on them")
    arguments = parser.parse_args()
    if arguments.record:
        if not arguments.version:
            parser.error("--record needs the versions of all releases to record")
        write_record(arguments.version)
        return 0
    return max(compare(Nova(version)) for version in arguments.version or [None])


if __name__ == "__main__":
    sys.exit(main())
