"""What the virtual host with CXL memory is made of: Debian 13, and this package.

The kernel of Debian 12 has no CXL regions.
"""

import pathlib
import shutil

from tests.cluster import tree
from tests.machine import kernel

WORK = tree.ROOT / ".tox"

_PACKAGES = (
    *("linux-image-amd64", "qemu-system-x86", "ndctl", "daxctl", "cxl", "busybox-static", "kmod", "e2fsprogs"),
    *("libvirt-daemon", "libvirt-daemon-driver-qemu", "libvirt-clients", "libpmem1", "python3", "python3-venv"),
    *("python3-libvirt", "python3-cliff", "python3-lxml", "python3-msgspec", "python3-os-resource-classes"),
    *("python3-oslo.config", "python3-rich", "python3-stevedore", "zstd"),
)


def layers() -> list[pathlib.Path]:
    """The directories that the host's root is an overlay of, the top one first; made when they are not there."""
    return tree.layers(WORK, "cxl", _PACKAGES)


def kernel_of(root: pathlib.Path) -> kernel.Kernel:
    """The kernel in Debian's tree; its image beside the tree, expanded."""
    (packed,) = (root / "boot").glob("vmlinuz-*")
    (modules,) = (root / "usr/lib/modules").iterdir()
    image = root.parent / packed.name
    if not image.exists():
        draft = image.with_name("draft")
        shutil.copy(packed, draft)
        kernel.expand(draft)
        draft.rename(image)
    return kernel.Kernel(image, modules)


def qemu_of(root: pathlib.Path) -> list[str]:
    """The command line of QEMU in Debian's tree, with its own libraries and firmware."""
    loader, libraries = f"{root}/usr/lib64/ld-linux-x86-64.so.2", f"{root}/usr/lib/x86_64-linux-gnu"
    program = f"{loader} --library-path {libraries} {root}/usr/bin/qemu-system-x86_64"
    return f"{program} -L {root}/usr/share/qemu -L {root}/usr/share/seabios".split()
