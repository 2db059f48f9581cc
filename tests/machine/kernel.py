"""The distribution's own kernel and its modules: unpacked from its packages, with nothing installed."""

import dataclasses
import functools
import lzma
import pathlib
import platform
import re
import subprocess

from tests.machine import commands

#: The package that depends on the newest kernel: Debian's and Ubuntu's names for it, by machine.
_META = {
    "x86_64": ("linux-image-amd64", "linux-image-generic"),
    "aarch64": ("linux-image-arm64", "linux-image-generic"),
}

#: What spares an emulated machine half of its boot: self-tests, certificates, traces and protocols that nobody needs.
QUICK = (
    "quiet panic=-1 mitigations=off audit=0 rodata=off ipv6.disable=1 cryptomgr.notests "
    "initcall_blacklist=crypto_kdf108_init,cubictcp_register,init_blk_tracer,load_system_certificate_list"
)


@dataclasses.dataclass(frozen=True)
class Kernel:
    """An unpacked kernel: `image` is what QEMU boots, `modules` is its lib/modules/VERSION.

    Where it can be, `image` is plain ELF, which QEMU starts by its PVH note: a kernel that unpacks itself takes seconds
    of emulation for that, and minutes where one emulation runs in another.
    """

    image: pathlib.Path
    modules: pathlib.Path

    @functools.cached_property
    def _needs(self) -> dict[str, list[str]]:
        lines = (self.modules / "modules.dep").read_text().splitlines()
        return {path: needs.split() for path, _, needs in (line.partition(":") for line in lines)}

    def load_order(self, names: list[str]) -> list[pathlib.Path]:
        """The files of modules `names` and of all that they need, each after what it needs.

        A name that this kernel has no module for is built in, or is another architecture's.
        """
        by_name = {pathlib.PurePath(path).name.partition(".")[0].replace("-", "_"): path for path in self._needs}
        order: dict[str, None] = {}

        def add(path: str) -> None:
            for need in self._needs[path]:
                add(need)
            order.setdefault(path)

        for name in names:
            if name in by_name:
                add(by_name[name])
        return [self.modules / path for path in order]


def module_bytes(path: pathlib.Path) -> bytes:
    """A module as insmod takes it, whatever the package had it packed with."""
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-dcq", str(path)], check=True, stdout=subprocess.PIPE).stdout
    return path.read_bytes()


def unpacked(work: pathlib.Path) -> Kernel:
    """The kernel of this distribution, below `work`: downloaded and unpacked when it is not there."""
    if not list(work.glob("**/modules.dep")):
        work.mkdir(parents=True, exist_ok=True)
        for package in _packages():
            commands.run("apt-get", "-q", "download", package, cwd=work)
        for archive in work.glob("*.deb"):
            commands.run("dpkg", "-x", archive, work)
            archive.unlink()
        tree = next(work.glob("**/lib/modules/*/kernel")).parent
        commands.run("/sbin/depmod", "-b", str(tree).removesuffix(f"/lib/modules/{tree.name}"), tree.name)
        expand(next(work.glob("boot/vmlinuz-*")))
    return Kernel(next(work.glob("boot/vmlinuz-*")), next(work.glob("**/modules.dep")).parent)


def expand(image: pathlib.Path) -> None:
    """Replace an x86 bzImage by the ELF that is packed in it, if it is packed with what Debian and Ubuntu use."""
    content = image.read_bytes()
    for mark, unpack in ((b"\xfd7zXZ\0", _unxz), (b"\x28\xb5\x2f\xfd", _unzstd)):
        at = content.find(mark)
        if at >= 0 and (elf := unpack(content[at:])).startswith(b"\x7fELF"):
            image.write_bytes(elf)
            return


def _unxz(packed: bytes) -> bytes:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(packed)


def _unzstd(packed: bytes) -> bytes:
    # It fails on what follows in the image, after it has written all.
    return subprocess.run(["zstd", "-dcq"], check=False, input=packed, capture_output=True).stdout


def _packages() -> list[str]:
    """What to download: Ubuntu has the modules in packages of their own."""
    for meta in _META[platform.machine()]:
        known = subprocess.run(["apt-cache", "depends", meta], check=False, capture_output=True, text=True).stdout
        if found := re.search(r"Depends: (linux-image-(\d\S+))", known):
            image, version = found.groups()
            others = (f"linux-modules-{version}", f"linux-modules-extra-{version}")
            return [image, *(name for name in others if _is_known(name))]
    raise RuntimeError("apt knows no kernel package. Run 'apt-get update' and try again")


def _is_known(package: str) -> bool:
    return bool(commands.run("apt-cache", "search", "--names-only", f"^{re.escape(package)}$"))
