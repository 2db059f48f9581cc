"""The host that is checked: its files below a root directory, and its programs."""

import os
import pathlib
import subprocess

#: A program that has not ended after this long hangs, in seconds. ndctl and cxl ask the firmware of each device.
LIMIT_SECONDS = 60.0


class Host:
    """Reads files and runs programs. Everything that cannot be read is None, so that a check can say so.

    :param root: what ``/`` is
    """

    def __init__(self, root: str = "/") -> None:
        self._root = root.rstrip("/")

    def path(self, path: str) -> pathlib.Path:
        """Return where the absolute `path` is."""
        return pathlib.Path(self._root + path)

    def exists(self, path: str) -> bool:
        """Whether a path exists, also as a broken link. A directory that cannot be searched hides what is in it."""
        return os.path.lexists(self.path(path))

    def read(self, path: str) -> str | None:
        """Return the text of a file."""
        try:
            return self.path(path).read_bytes().decode("utf-8", "replace")
        except OSError:
            return None

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, sorted; none if it cannot be read."""
        try:
            return sorted(os.listdir(self.path(path)))
        except OSError:
            return []

    def link(self, path: str) -> str | None:
        """Return the last part of the target of a symbolic link."""
        try:
            return os.path.basename(os.readlink(self.path(path)))
        except OSError:
            return None

    def run(self, *words: str) -> str | None:
        """Return what a program prints on standard output; None if it is not there, fails or hangs."""
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=True,
                timeout=LIMIT_SECONDS,
                env={**os.environ, "LC_ALL": "C"},
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.decode("utf-8", "replace")

    @property
    def is_root(self) -> bool:
        """Whether this process may see everything."""
        return os.geteuid() == 0

    def processes(self, *names: str) -> list[str]:
        """Return the ids of the processes whose command name begins with one of `names`."""
        numbers = [name for name in self.names("/proc") if name.isdigit()]
        return [pid for pid in numbers if (self.read(f"/proc/{pid}/comm") or "").startswith(names)]
