"""The virtual host: QEMU with two NUMA nodes and two NVDIMMs, and this machine's own programs, seen read-only."""

import dataclasses
import json
import pathlib
import socket
import subprocess
import sys
import typing

from tests.machine import commands, initramfs, kernel
from vpmem_driver.sizes import MIB

NODES = 2
NVDIMM_SIZE = 2048 * MIB
LABEL_SIZE = 2 * MIB

#: Where the disk is mounted there.
STATE = "/var/lib/vpmem"

_BOOT_SECONDS = 180
_CALL_SECONDS = 600

#: What finds the root; that has all the others.
_MODULES = ["virtio_pci", "9pnet_virtio", "9p", "overlay"]

#: The second CPU has to wait for `inside.switch_on_all_cpus`, which says why.
_ONE_CPU = "maxcpus=1 noreplace-smp"

#: As Debian's kernel has it: with Ubuntu's, daxctl makes no system RAM of a device.
_MEMORY = "memhp_default_state=offline"

#: The shell stays, as the first process of the host: it waits for orphans, which libvirtd wants to see gone.
_INIT = """\
mkdir /lower /upper /top
mount -t 9p -o {share} root /lower
{shares}
mount -t tmpfs tmpfs /upper
mkdir /upper/files /upper/work
mount -t overlay -o lowerdir={layers},upperdir=/upper/files,workdir=/upper/work overlay /top
for directory in proc sys dev; do mount --move "/$directory" "/top/$directory"; done
mkdir -p /top/dev/shm /top/dev/pts
ln -s /proc/self/fd /top/dev/fd
mount -t tmpfs tmpfs /top/dev/shm
mount -t devpts devpts /top/dev/pts
for directory in run var/cache/libvirt var/lib/libvirt var/log {state} lib/modules; do
    mkdir -p "/top/$directory"
    mount -t tmpfs tmpfs "/top/$directory"
done
{moves}
mkdir "/top/lib/modules/$(uname -r)"
mount --bind "/top{modules}" "/top/lib/modules/$(uname -r)"
exec switch_root /top /bin/busybox sh -c '
/sbin/modprobe -a virtio_console virtio_blk crc32c_generic ext4 kvm_amd
/sbin/modprobe -a {drivers} nd_pmem nd_btt device_dax dax_pmem kmem
mount -t ext4 /dev/vda {state}
busybox ip link set lo up
"{python}" -P "{inside}" &
wait'
"""


#: How a directory of this machine is mounted there.
SHARE = "trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000"


@dataclasses.dataclass(frozen=True)
class Done:
    """A program that has run in the virtual host."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def json(self) -> typing.Any:
        """What it printed."""
        return json.loads(self.out)


class VirtualHost:
    """One virtual host, on or off. Two NVDIMMs, and a disk at STATE, keep without power what was written to them.

    The NVDIMMs keep every store. The disk keeps what was flushed to it: what is in the host's page cache is lost.
    """

    def __init__(self, work: pathlib.Path, of: kernel.Kernel) -> None:
        """Make its parts in the directory `work`. It is off."""
        self._work = work
        self.kernel = of
        self._process: subprocess.Popen[bytes] | None = None
        self._swapped = False
        self._console = work / "console"
        self.notes = work / "notes"
        self._make_memory()
        make_file(work / "disk", 256 * MIB)
        commands.run("/sbin/mkfs.ext4", "-q", work / "disk")
        inside = pathlib.Path(__file__).with_name("inside.py")
        script = _INIT.format(share=SHARE, state=STATE, inside=inside, **self._parts())
        initramfs.build(work / "initramfs", of, _MODULES, script)

    def _make_memory(self) -> None:
        """Make the files of the memory that keeps its content without power."""
        for node in range(NODES):
            make_file(self._nvdimm(node), NVDIMM_SIZE + LABEL_SIZE)

    def _parts(self) -> dict[str, object]:
        """What its root consists of: the layers, how they are mounted, its modules and its Python."""
        parts = {"layers": "/lower", "shares": "", "moves": "", "drivers": "nfit"}
        return parts | {"modules": self.kernel.modules, "python": sys.executable}

    def _nvdimm(self, node: int) -> pathlib.Path:
        return self._work / f"nvdimm{node}"

    def boot(self, *, terminal: str | None = None) -> None:
        """Switch it on, and wait until it listens. Its NVDIMMs are found in another order than the last time.

        :param terminal: the device that is to be its serial console
        :raises RuntimeError: it does not come up
        """
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                # Whatever becomes of this process, that one ends with it.
                ["setpriv", "--pdeathsig", "KILL", *self._qemu(theirs.fileno(), terminal)],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._swapped = not self._swapped
        self._socket, self._answers = ours, ours.makefile("rb")
        ours.settimeout(_BOOT_SECONDS)
        self._answer()

    def _machine(self) -> list[str]:
        """The command line of QEMU, up to its memory, with the root of the machine as the share ``root``."""
        words = ["qemu-system-x86_64", "-machine", "q35,nvdimm=on,nvdimm-persistence=cpu"]
        words += ["-cpu", "max,-erms,-fsrm"]  # fast copies of bytes take an emulation twice as long as copies of words
        words += ["-smp", f"{NODES},sockets={NODES}", "-m", f"3G,slots={NODES},maxmem=16G"]
        for node in range(NODES):
            words += ["-object", f"memory-backend-ram,id=ram{node},size=1536M"]
            words += ["-numa", f"node,nodeid={node},memdev=ram{node},cpus={node}"]
        for node in reversed(range(NODES)) if self._swapped else range(NODES):
            size = NVDIMM_SIZE + LABEL_SIZE
            file = f"memory-backend-file,id=file{node},share=on,mem-path={self._nvdimm(node)},size={size}"
            # The slot stays: the serial number follows from it, and by that number the labels know their NVDIMM.
            device = f"nvdimm,memdev=file{node},slot={node},node={node},label-size={LABEL_SIZE}"
            words += ["-object", file, "-device", device]
        return words + share("root", "/")

    def _qemu(self, port: int, terminal: str | None) -> list[str]:
        words = [*self._machine(), "-nodefaults", "-display", "none", "-no-reboot", "-accel", "tcg,thread=multi"]
        words += ["-drive", f"file={self._work / 'disk'},format=raw,if=none,id=disk,cache=writeback"]
        words += ["-device", "virtio-blk-pci,drive=disk,bus=pcie.0", "-device", "virtio-serial-pci,bus=pcie.0"]
        words += [
            "-chardev",
            f"socket,id=requests,fd={port}",
            "-device",
            "virtserialport,chardev=requests,name=requests",
        ]
        words += [
            "-chardev",
            f"file,id=notes,append=on,path={self.notes}",
            "-device",
            "virtserialport,chardev=notes,name=notes",
        ]
        words += ["-serial", terminal or f"file:{self._console}"]
        words += ["-kernel", str(self.kernel.image), "-initrd", str(self._work / "initramfs")]
        return [*words, "-append", f"console=ttyS0 {kernel.QUICK} {_ONE_CPU} {_MEMORY}"]

    def call(self, name: str, *values: object, seconds: float | None = _CALL_SECONDS) -> typing.Any:
        """Have a function of `inside` called there; it may take `seconds`.

        :raises RuntimeError: it has failed there, or the host does not answer
        """
        self._socket.settimeout(seconds)
        self._socket.sendall(json.dumps({"call": name, "values": values}).encode() + b"\n")
        return self._answer()

    def _answer(self) -> typing.Any:
        try:
            line = self._answers.readline()
        except TimeoutError:
            line = b""
        if not line:
            last = self._console.read_text(errors="replace")[-4000:] if self._console.exists() else ""
            raise RuntimeError(f"the virtual host does not answer. The end of its console:\n{last}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"in the virtual host: {answer['error']}")
        return answer["value"]

    def run(self, *words: object, code: int = 0) -> Done:
        """Run a program there, to its end; it has to exit with `code`."""
        return _checked(words, Done(**self.call("run", [str(word) for word in words])), code)

    def vpmem(self, *words: object, code: int = 0) -> Done:
        """Run ``vpmem`` there, to its end; it has to exit with `code`."""
        return _checked(("vpmem", *words), Done(**self.call("vpmem", [str(word) for word in words])), code)

    def reboot(self) -> None:
        """Restart it in good order: what was written to its disk is there."""
        self.run("sh", "-c", f"sync && umount {STATE}")
        self.power_off()
        self.boot()

    def power_off(self) -> None:
        """Pull the plug. What was in its memory is lost, and what it did is over."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._answers.close()
            self._socket.close()


def share(tag: str, path: object) -> list[str]:
    """The words that share a directory of this machine, which can only be read there."""
    file = f"local,id={tag},path={path},readonly=on,security_model=none,multidevs=remap"
    return ["-fsdev", file, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag},bus=pcie.0"]


def make_file(path: pathlib.Path, size: int) -> None:
    """Make a file of that size, without blocks."""
    with path.open("wb") as file:
        file.truncate(size)


def _checked(words: tuple[object, ...], done: Done, code: int) -> Done:
    if done.code != code:
        said = f"{done.out}{done.err}"
        raise AssertionError(f"{' '.join(map(str, words))}: exit code {done.code}, not {code}\n{said}")
    return done
