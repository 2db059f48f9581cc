"""Sizes of a guest's device in a namespace, and sizes as people read and write them."""

import functools
import math
import re

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

#: At most 19 digits: Python refuses to convert thousands of them.
_SIZE = re.compile(r"([0-9]{1,19}) *(?:([KMGT])(?:iB)?)?", re.ASCII | re.IGNORECASE)
_UNITS = {"K": KIB, "M": MIB, "G": GIB, "T": 1024 * GIB}

#: libvirt rounds the size of a memory device UP to this, on x86 and aarch64 alike
#: (qemuDomainGetMemoryModuleSizeAlignment in qemu_domain.c). On ppc64 it rounds a nvdimm DOWN, to 256 MiB and the label
#: (qemuDomainNVDimmAlignSizePseries), which cannot go past the end of a device either.
GRANULE = 2 * MIB
#: Label size of Nova's in-tree vPMEM (LibvirtConfigGuestVPMEM in nova/virt/libvirt/config.py, Nova 31-34). The label is
#: at the end of a device, so a guest finds its label only if this and the size of the device never change.
LABEL_SIZE = 2 * MIB
#: Minimum label size of libvirt (virDomainMemoryTargetDefParseXML) and QEMU (MIN_NAMESPACE_LABEL_SIZE).
MIN_LABEL_SIZE = 128 * KIB
#: A label area has room for one label for each namespace in it. No guest needs more than this.
MAX_LABEL_SIZE = 2 * MIB
PAGE = 4096


@functools.lru_cache
def least_size(align: int, label_size: int = LABEL_SIZE) -> int:
    """Return the minimum size of a namespace with that alignment that gives the guest more than the label."""
    unit = math.lcm(align or 1, GRANULE)
    return -(-(label_size + max(align, PAGE)) // unit) * unit


def text(size: int) -> str:
    """Return a number of bytes in MiB or GiB, with the digits of ``ndctl list --human``: ``250.00 MiB``.

    Like ndctl, print less than 5000 KiB in bytes, and change to GiB at 2 GiB (display_size() in ndctl 81, util/json.c).
    """
    if size < 5000 * KIB:
        return str(size)
    unit, name = (MIB, "MiB") if size < 2 * GIB else (GIB, "GiB")
    return f"{_hundredths(size, unit)} {name}"


def in_words(size: int) -> str:
    """Return a number of bytes as :func:`text`, with the word "bytes" where there is no other unit."""
    return text(size) if size >= 5000 * KIB else f"{size} bytes"


def long_text(size: int) -> str:
    """Return a number of bytes exactly as ``ndctl list --human`` prints it: ``250.00 MiB (262.14 MB)``."""
    if size < 5000 * KIB:
        return str(size)
    unit, name = (10**6, "MB") if size < 2 * GIB else (10**9, "GB")
    return f"{text(size)} ({_hundredths(size, unit)} {name})"


def speed_text(speed: float) -> str:
    """Return a number of bytes per second in MiB/s or GiB/s."""
    unit, name = (MIB, "MiB") if speed < 2 * GIB else (GIB, "GiB")
    return f"{speed / unit:.2f} {name}/s"


def _hundredths(size: int, unit: int) -> str:
    hundredths = (200 * size // unit + 1) // 2
    return f"{hundredths // 100}.{hundredths % 100:02d}"


def parse(text: str, unit: int = 1) -> int:
    """Return the number of bytes that a person wrote: ``4G``, ``4GiB``, ``512 MiB`` or a plain number.

    :param unit: bytes that a plain number counts
    :raises ValueError: it is not a positive size; the message says what to write
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("it is not a size; write for example 512MiB or 4G (K, M, G and T count in 1024s)")
    size = int(match[1]) * (_UNITS[match[2].upper()] if match[2] else unit)
    if not 0 < size < 1 << 63:
        raise ValueError("it is not a size between 1 byte and 8 EiB")
    return size
