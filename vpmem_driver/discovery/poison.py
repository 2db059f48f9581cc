"""The addresses that CXL devices know to be bad: their lists of poison.

The kernel does not put them into the badblocks of a region (Linux 7.0). Only root can read them. Source: cxl list,
cxl 80 and 81: ``media_errors`` of a region, whose offsets count from the start of the region.
"""

import os
import subprocess
import time

import msgspec

#: As for ndctl: each device is asked for its list.
_LIMIT_SECONDS = 60.0


class _Error(msgspec.Struct):
    offset: int
    length: int


class _Region(msgspec.Struct):
    resource: int
    media_errors: list[_Error] = []


class _Latest:
    """The latest list. It serves namespaces that are asked for one after the other, as each list asks all devices."""

    SECONDS = 1.0

    def __init__(self) -> None:
        self._regions: list[_Region] = []
        self._complete = float("-inf")  # monotonic clock

    def regions(self) -> list[_Region]:
        if time.monotonic() - self._complete > self.SECONDS:
            self._regions = _list()
            self._complete = time.monotonic()
        return self._regions


_latest = _Latest()


def of_region(resource: int) -> list[tuple[int, int]]:
    """Return the first bytes and the ends of the bad ranges of the CXL region at the physical address `resource`.

    Nothing if this process is not root.

    :raises OSError: cxl cannot be run, or failed
    :raises ValueError: what it prints is not understood
    """
    if os.geteuid() != 0:
        return []
    errors = [error for region in _latest.regions() if region.resource == resource for error in region.media_errors]
    return [(error.offset, error.offset + error.length) for error in errors]


def _list() -> list[_Region]:
    try:
        done = subprocess.run(
            ("cxl", "list", "--regions", "--media-errors"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=_LIMIT_SECONDS,
            env={**os.environ, "LC_ALL": "C"},
        )
        return msgspec.json.decode(done.stdout or b"[]", type=list[_Region])
    except subprocess.SubprocessError as error:
        raise OSError(f"'cxl list --regions --media-errors': {type(error).__name__}") from error
    except msgspec.DecodeError as error:
        raise ValueError(f"'cxl list --regions --media-errors': {error}") from error
