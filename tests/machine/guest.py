"""The small guest: it tells over its serial port what it finds in its persistent memory, and fills what is empty.

At each boot it looks at every /dev/pmemN, and fills those that hold nothing but zeros with lines of 64 bytes,
``UUID SLOT``: the domain's uuid and the device's slot. All others are left as they are. For each it writes a line of
JSON. When all is on the devices, it says that it is ready, and waits for the power button.

With ``vpmem.write`` on its command line it writes until then: blocks of 4 KiB, ``UUID NUMBER``, with one NUMBER after
the other, to the block NUMBER modulo WRITTEN_BLOCKS of the first device. It tells each number when it is on the device.

With ``vpmem.plug`` on its command line it looks until then for devices that are added, and does the same with them.
"""

import dataclasses
import hashlib
import json
import pathlib
import time
from collections.abc import Iterator

from tests.machine import initramfs, kernel

MODULES = ["button", "evdev", "nfit", "nd_pmem", "virtio_pci", "virtio_pmem"]

#: What a guest under TCG on a busy machine may take from its start until it is ready.
BOOT_SECONDS = 180

#: How many blocks of the first device it writes to, again and again.
WRITTEN_BLOCKS = 512

_MARK = "vpmem-guest: "

# A device's slot is told by its DIMM's handle, which QEMU makes from it (nvdimm_slot_to_handle in include/hw/mem/
# nvdimm.h, QEMU 7.2): the numbers of /dev/pmemN are the order in which the kernel finds them. A virtio-pmem has no
# DIMM; where there is one, it is the first.
_INIT = r"""
dmesg -n 1
cat /sys/bus/nd/devices/ndbus*/wait_probe > /dev/null 2>&1
uuid=$(cat /sys/class/dmi/id/product_uuid)
say() { echo; echo "vpmem-guest: $1"; }
say "{\"boot\": \"$uuid\"}"
look() {  # fills the device if it is empty, and prints what it is
    directory=$1 name=${1##*/} device=/dev/${1##*/}
    region=$(cd -P "$directory/device/.." && pwd)
    region=${region%%/namespace*}
    slot=0
    if [ -e "$region/mapping0" ]; then
        dimm=$(cut -d, -f1 "$region/mapping0")
        slot=$(($(cat "/sys/bus/nd/devices/$dimm/nfit/handle") - 1))
    fi
    size=$(($(cat "$directory/size") * 512))
    node=$(cat "$region/numa_node")
    text=$(head -c 63 "$device" | tr -dc ' -!#-[]-~' | sed 's/ *$//')
    zeros=false
    if [ "$(tr -d '\0' < "$device" | head -c 1 | wc -c)" = 0 ]; then
        zeros=true
        printf '%-63s\n' "$uuid $slot" > /block
        for doubling in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do cat /block /block > /double; mv /double /block; done
        at=0  # past the page cache: under TCG that is twenty times as fast
        while dd if=/block of="$device" bs=1M count=1 seek="$at" oflag=direct 2> /dev/null; do at=$((at + 1)); done
        sync
        blockdev --flushbufs "$device"
        dd if=/dev/zero of="$device" count=0 conv=notrunc,fsync 2> /dev/null  # what flushes a virtio-pmem
    fi
    md5=$(md5sum < "$device" | cut -d ' ' -f 1)
    fields="\"name\": \"$name\", \"slot\": $slot, \"size\": $size, \"node\": $node"
    echo "{$fields, \"zeros\": $zeros, \"text\": \"$text\", \"md5\": \"$md5\"}"
    : > "/looked-at-$name"
}
for directory in /sys/block/pmem*; do
    [ -e "$directory" ] && say "$(look "$directory")"
done
for input in /sys/class/input/event*; do
    if [ "$(cat "$input/device/name")" = "Power Button" ]; then exec 3< "/dev/input/${input##*/}"; fi
done
say '{"ready": true}'
if grep -q vpmem.write /proc/cmdline; then
    (
        number=0
        while [ ! -e /stop ]; do
            number=$((number + 1))
            printf '%-4095s\n' "$uuid $number" > /block
            at=$((number % WRITTEN_BLOCKS))
            dd if=/block of=/dev/pmem0 bs=4096 count=1 seek=$at oflag=direct conv=fsync 2> /dev/null &&
                say "{\"wrote\": $number}"
            sleep 0.05
        done
    ) &
fi
if grep -q vpmem.plug /proc/cmdline; then
    (
        while [ ! -e /stop ]; do
            for directory in /sys/block/pmem*; do
                name=${directory##*/}
                [ -e "/looked-at-$name" ] || [ ! -b "/dev/$name" ] || say "{\"plugged\": $(look "$directory")}"
            done
            sleep 0.2
        done
    ) &
fi
head -c 1 <&3 > /dev/null
touch /stop
wait
sync
poweroff -f
"""


@dataclasses.dataclass(frozen=True)
class Device:
    """What the guest has seen of one device.

    :ivar slot: counts the domain's memory devices, in the order of its XML
    :ivar zeros: whether all of it was zeros; then the guest has filled it
    :ivar text: what its first line was
    :ivar md5: of all of it when the guest was ready
    """

    name: str
    slot: int
    size: int
    node: int
    zeros: bool
    text: str
    md5: str

    def holds(self, uuid: str, slot: int) -> bool:
        """Whether all of it was what the guest `uuid` fills its device in `slot` with, when the guest was ready."""
        return self.md5 == hashlib.md5(pattern(uuid, slot, self.size), usedforsecurity=False).hexdigest()


@dataclasses.dataclass(frozen=True)
class Report:
    """What a guest has told of one boot: its DMI uuid, and its devices by slot."""

    uuid: str
    devices: tuple[Device, ...]


def build(target: pathlib.Path, of: kernel.Kernel, *, without: str | None = None) -> pathlib.Path:
    """Write the guest's initramfs for kernel `of` to `target`. It needs ``console=ttyS0`` on its command line.

    :param without: a module that it does not have
    """
    modules = [module for module in MODULES if module != without]
    return initramfs.build(target, of, modules, _INIT.replace("WRITTEN_BLOCKS", str(WRITTEN_BLOCKS)))


def reports(serial: str) -> list[Report]:
    """The boots in a serial log that got as far as ready, in their order."""
    found, current = [], None
    for line in _lines(serial):
        if "boot" in line:
            current = (line["boot"], [])
        elif current and "ready" in line:
            uuid, devices = current
            found.append(Report(uuid, tuple(sorted(devices, key=lambda device: device.slot))))
            current = None
        elif current:
            current[1].append(Device(**line))
    return found


def wait_for_report(log: pathlib.Path, boot: int = 1, *, seconds: float = BOOT_SECONDS) -> Report:
    """The report of the boot with that number, counted from 1, in the serial log `log`.

    :raises TimeoutError: it did not come in time; the log's end is in the message
    """
    deadline = time.monotonic() + seconds
    while True:
        text = log.read_text(errors="replace") if log.exists() else ""
        found = reports(text)
        if len(found) >= boot:
            return found[boot - 1]
        if time.monotonic() > deadline:
            raise TimeoutError(f"{log}: no report of boot {boot} after {seconds} s. It ends:\n{text[-2000:]}")
        time.sleep(0.1)


def plugged(serial: str) -> list[Device]:
    """The devices that were added while the guest ran."""
    return [Device(**line["plugged"]) for line in _lines(serial) if "plugged" in line]


def last_written(serial: str) -> int:
    """The number that the guest has written last; 0 when it has written none."""
    return max((line["wrote"] for line in _lines(serial) if "wrote" in line), default=0)


def written(uuid: str, slot: int, size: int, last: int) -> bytes:
    """What the first `size` bytes of a guest's first device are when `last` is the number that it has written last."""
    block = 4096
    content = bytearray(pattern(uuid, slot, size))
    for number in range(max(1, last - WRITTEN_BLOCKS + 1), last + 1):
        at = number % WRITTEN_BLOCKS * block
        content[at : at + block] = f"{uuid} {number}".ljust(block - 1).encode() + b"\n"
    return bytes(content)


def pattern(uuid: str, slot: int, size: int) -> bytes:
    """What the guest fills the first `size` bytes of a device with."""
    line = f"{uuid} {slot}".ljust(63) + "\n"
    return line.encode() * (size // len(line))


def holds(path: pathlib.Path, uuid: str, slot: int, size: int) -> bool:
    """Whether the namespace behind a guest's device holds the guest's pattern; `size` is what the guest has seen."""
    with path.open("rb") as file:
        return file.read(size) == pattern(uuid, slot, size)


def is_zero(path: pathlib.Path) -> bool:
    """Whether a namespace holds nothing but zeros, in what the guest has seen and in what it has not."""
    return not any(path.read_bytes())


def _lines(serial: str) -> Iterator[dict]:
    for line in serial.splitlines(keepends=True):
        _, mark, text = line.partition(_MARK)
        if mark and line.endswith("\n"):  # the last may be on its way still
            yield json.loads(text)
