"""The small guest: it tells over its serial port what it finds in its persistent memory, and fills what is empty.

At each boot it looks at every /dev/pmemN and writes a line of JSON for each. Devices with nothing but zeros are filled
with lines of ``UUID SLOT``, the domain's uuid and the device's slot; all others are left as they are. When that is on
its device, it says that it is ready, and waits for the power button.
"""

import dataclasses
import json
import pathlib
import time
from collections.abc import Iterator

from tests.machine import initramfs, kernel

MODULES = ["button", "evdev", "nfit", "nd_pmem"]

#: What a guest under TCG on a busy machine may take from its start until it is ready.
BOOT_SECONDS = 180

_MARK = "vpmem-guest: "

# A device's slot is told by its DIMM's handle, which QEMU makes from it (nvdimm_slot_to_handle in include/hw/mem/
# nvdimm.h, QEMU 7.2): the numbers of /dev/pmemN are the order in which the kernel finds them.
_INIT = r"""
dmesg -n 1
cat /sys/bus/nd/devices/ndbus*/wait_probe > /dev/null 2>&1
uuid=$(cat /sys/class/dmi/id/product_uuid)
say() { echo; echo "vpmem-guest: $1"; }
filled() { yes "$2" | head -c "$size" | cmp -s - "$1"; }
say "{\"boot\": \"$uuid\"}"
for block in /sys/block/pmem*; do
    [ -e "$block" ] || continue
    name=${block##*/}
    region=$(cd -P "$block/device/.." && pwd)
    region=${region%%/namespace*}
    dimm=$(cut -d, -f1 "$region/mapping0")
    slot=$(($(cat "/sys/bus/nd/devices/$dimm/nfit/handle") - 1))
    size=$(($(cat "$block/size") * 512))
    node=$(cat "$region/numa_node")
    text=$(head -c 256 "/dev/$name" | head -n 1 | tr -dc ' -!#-[]-~')
    if head -c "$size" /dev/zero | cmp -s - "/dev/$name"; then found=zeros text= wrote=true
    elif [ -n "$text" ] && filled "/dev/$name" "$text"; then found=text wrote=false
    else found=other wrote=false
    fi
    if $wrote; then
        yes "$uuid $slot" | head -c "$size" > "/dev/$name"
        sync
        blockdev --flushbufs "/dev/$name"
        filled "/dev/$name" "$uuid $slot" || wrote=false
    fi
    device="\"name\": \"$name\", \"slot\": $slot, \"size\": $size, \"node\": $node"
    say "{$device, \"found\": \"$found\", \"text\": \"$text\", \"wrote\": $wrote}"
done
sync
say '{"ready": true}'
for input in /sys/class/input/event*; do
    if [ "$(cat "$input/device/name")" = "Power Button" ]; then head -c 1 "/dev/input/${input##*/}" > /dev/null; fi
done
sync
poweroff -f
"""


@dataclasses.dataclass(frozen=True)
class Device:
    """What the guest has seen of one device.

    :ivar slot: counts the domain's memory devices, in the order of its XML
    :ivar found: ``zeros``; ``text`` when all of it is lines of `text`; ``other``
    :ivar wrote: whether the guest has filled it, and read that back
    """

    name: str
    slot: int
    size: int
    node: int
    found: str
    text: str
    wrote: bool


@dataclasses.dataclass(frozen=True)
class Report:
    """What a guest has told of one boot: its DMI uuid, and its devices by slot."""

    uuid: str
    devices: tuple[Device, ...]


def build(target: pathlib.Path, of: kernel.Kernel) -> pathlib.Path:
    """Write the guest's initramfs for kernel `of` to `target`. It needs ``console=ttyS0`` on its command line."""
    return initramfs.build(target, of, MODULES, _INIT)


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


def pattern(uuid: str, slot: int, size: int) -> bytes:
    """What the guest fills the first `size` bytes of a device with."""
    line = f"{uuid} {slot}\n".encode()
    return (line * -(-size // len(line)))[:size]


def holds(path: pathlib.Path, uuid: str, slot: int, size: int) -> bool:
    """Whether the namespace behind a guest's device holds the guest's pattern; `size` is what the guest has seen."""
    with path.open("rb") as file:
        return file.read(size) == pattern(uuid, slot, size)


def is_zero(path: pathlib.Path) -> bool:
    """Whether a namespace holds nothing but zeros, in what the guest has seen and in what it has not."""
    return not any(path.read_bytes())


def _lines(serial: str) -> Iterator[dict]:
    for line in serial.splitlines():
        _, mark, text = line.partition(_MARK)
        if mark:
            yield json.loads(text)
