"""The virtual host with CXL memory: two persistent devices and a volatile one."""

import contextlib
import json
import pathlib
import socket
import tempfile
from collections.abc import Iterator

from tests.cluster.tree import ROOT
from tests.lab.cxl import tree
from tests.lab.host import SHARE, VirtualHost, make_file, share
from vpmem_driver.sizes import MIB

#: Serial numbers of the devices.
PERSISTENT, VOLATILE = (0x11, 0x22), 0x33
SIZE = 512 * MIB

#: The top layer is in the share of the project, which is then moved to the path that it has here.
_SHARES = f"mkdir /project && mount -t 9p -o {SHARE} project /project"
_MOVES = f"""\
mkdir -p "/top{ROOT}"
mount --move /project "/top{ROOT}"
"""


class CxlHost(VirtualHost):
    """A virtual host whose regions are gone after each boot, as without firmware that sets them up.

    :ivar absent: serial numbers of persistent devices that are not there from the next boot on
    """

    def __init__(self, work: pathlib.Path) -> None:
        self._package, self._debian = tree.layers()
        self.absent: frozenset[int] = frozenset()
        super().__init__(work, tree.kernel_of(self._debian))

    def _make_memory(self) -> None:
        for serial in PERSISTENT:
            make_file(self._work / f"pmem{serial}", SIZE)
            make_file(self._work / f"lsa{serial}", 1 * MIB)

    def _parts(self) -> dict[str, object]:
        layers = f"/project/{self._package.relative_to(ROOT)}:/lower"
        drivers = "cxl_acpi cxl_pci cxl_mem cxl_pmem dax_cxl"
        parts: dict[str, object] = {"layers": layers, "shares": _SHARES, "moves": _MOVES, "drivers": drivers}
        return parts | {"modules": self.kernel.modules, "python": "/opt/vpmem/bin/python"}

    def _machine(self) -> list[str]:
        # A kernel that sees a hypervisor refuses regions: it could not invalidate the caches of the CPUs.
        machine = "q35,cxl=on,cxl-fmw.0.targets.0=cxl,cxl-fmw.0.size=4G"
        words = [*tree.qemu_of(self._debian), "-machine", machine, "-cpu", "max,-hypervisor,-erms,-fsrm"]
        words += ["-smp", "2", "-m", "3G,maxmem=12G,slots=4"]
        words += [
            "-device",
            "pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl",
            "-qmp",
            f"unix:{self._work / 'qmp'},server=on,wait=off",
        ]
        for number, serial in enumerate((*PERSISTENT, VOLATILE)):
            words += ["-device", f"cxl-rp,port={number},bus=cxl,id=port{number},chassis=0,slot={number + 2}"]
            if serial not in self.absent:
                words += self._device(number, serial)
        return words + share("root", self._debian) + share("project", ROOT)

    def _device(self, number: int, serial: int) -> list[str]:
        device = f"cxl-type3,bus=port{number},id=card{serial},sn={serial}"
        if serial == VOLATILE:
            memory = f"memory-backend-ram,id=ram,share=on,size={SIZE}"
            return ["-object", memory, "-device", f"{device},volatile-memdev=ram"]
        words = []
        for name, size in (("pmem", SIZE), ("lsa", MIB)):
            path = self._work / f"{name}{serial}"
            words += ["-object", f"memory-backend-file,id={name}{serial},share=on,mem-path={path},size={size}"]
        return [*words, "-device", f"{device},persistent-memdev=pmem{serial},lsa=lsa{serial}"]

    def inject_poison(self, serial: int, offset: int) -> None:
        """Have a persistent device know of 64 bytes that cannot be read, `offset` bytes from its start."""
        poison = {"path": f"/machine/peripheral/card{serial}", "start": offset, "length": 64}
        with socket.socket(socket.AF_UNIX) as line, line.makefile("rw", encoding="ascii") as file:
            line.connect(str(self._work / "qmp"))
            json.loads(file.readline())
            for name, arguments in (("qmp_capabilities", {}), ("cxl-inject-poison", poison)):
                file.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
                file.flush()
                answer = json.loads(file.readline())
                if "error" in answer:
                    raise RuntimeError(f"{name}: {answer['error']}")

    def memdevs(self) -> dict[int, str]:
        """The name of each memory device by its serial number."""
        return {device["serial"]: device["memdev"] for device in self.run("cxl", "list", "-M").json}


@contextlib.contextmanager
def virtual_host() -> Iterator[CxlHost]:
    """A virtual host with CXL memory that is off. Nothing is left of it afterwards."""
    memory = pathlib.Path("/dev/shm")  # noqa: S108  below it mkdtemp makes a private one
    with tempfile.TemporaryDirectory(prefix="vpmem-lab-", dir=memory if memory.is_dir() else None) as work:
        host = CxlHost(pathlib.Path(work))
        try:
            yield host
        finally:
            host.power_off()
