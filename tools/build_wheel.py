"""Build the release files into a directory: source archive, manylinux wheel, software bill of materials.

The wheel is built twice: from the source archive in the environment of this program, and from an unpacked copy of the
archive elsewhere, outside git and in an isolated environment. Both must be the same, byte for byte.
"""

import gzip
import hashlib
import io
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
PINNED = ROOT / "requirements" / "wheel.txt"

#: The time of every file if neither the environment nor git has one: the earliest that a zip file can store.
EARLIEST = 315532800


def epoch() -> int:
    """The time of every file in the release, in seconds: SOURCE_DATE_EPOCH, or that of the last commit."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    try:
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return EARLIEST


def only(directory: pathlib.Path, pattern: str) -> pathlib.Path:
    """The one file of this name."""
    (found,) = directory.glob(pattern)
    return found


def build_archive(directory: pathlib.Path, seconds: int) -> pathlib.Path:
    """Build the source archive."""
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", directory, ROOT],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    archive = only(directory, "*.tar.gz")
    normalize(archive, seconds)
    return archive


def normalize(archive: pathlib.Path, seconds: int) -> None:
    """Write a source archive again, with one time and one owner for all its files."""
    content = io.BytesIO()
    with tarfile.open(archive) as given, tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as made:
        for member in sorted(given.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = seconds, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            made.addfile(member, given.extractfile(member) if member.isfile() else None)
    with archive.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=seconds) as packed:
        packed.write(content.getvalue())


def build_wheel(archive: pathlib.Path, directory: pathlib.Path, seconds: int, *, isolated: bool) -> pathlib.Path:
    """Build the wheel from an unpacked archive, and repair it: every Linux with that libc can install it.

    :param isolated: in an environment of its own, with the build requirements of the archive, pinned with hashes
    """
    environment = os.environ | {
        "SOURCE_DATE_EPOCH": str(seconds),
        "CFLAGS": "-g0",  # debug information has the directory of the build, and the build id is made of it
        "PIP_CONSTRAINT": str(PINNED),
        "PIP_BUILD_CONSTRAINT": str(PINNED),
    }
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(archive) as file:
            file.extractall(scratch, filter="data")
        source = only(pathlib.Path(scratch), "*")
        subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--outdir", f"{scratch}/wheel", source]
            + ([] if isolated else ["--no-isolation"]),
            check=True,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        built = only(pathlib.Path(scratch, "wheel"), "*.whl")
        subprocess.run(
            [sys.executable, "-m", "auditwheel", "repair", "--strip", "--wheel-dir", directory, built],
            check=True,
            env=environment,
        )
    return only(directory, "*.whl")


def main(directory: pathlib.Path) -> None:
    """Replace the release files in `directory`.

    :raises SystemExit: the two wheels differ
    """
    seconds = epoch()
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        archive = build_archive(scratch, seconds)
        wheel = build_wheel(archive, scratch / "first", seconds, isolated=False)
        again = build_wheel(archive, scratch / "second", seconds, isolated=True)
        if wheel.name != again.name or digest(wheel) != digest(again):
            sys.exit(f"{wheel.name} differs when it is built again from {archive.name} as {again.name}")
        directory.mkdir(exist_ok=True)
        for old in directory.glob("vpmem_driver-*"):
            old.unlink()
        for file in (archive, wheel):
            shutil.move(file, directory)
            print(f"{digest(directory / file.name)}  {file.name}")


def digest(file: pathlib.Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
