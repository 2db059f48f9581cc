"""Domain XML of persistent memory devices."""

import uuid

from bench.measure import Measure
from bench.rows import Row, Target

from vpmem_driver import guestxml, model

COUNTS = (1, 64)
GIB = 1 << 30
LOOPS = 512


def _grants(count: int) -> list[model.Grant]:
    return [
        model.Grant(
            owner=str(uuid.uuid4()),
            uuid=str(uuid.uuid4()),
            name=f"ns{number}",
            label="4GB",
            size=4 * GIB,
            align=2 << 20,
            numa_node=0,
            device=f"/dev/dax0.{number}",
            known_device=None,
            pmem=True,
        )
        for number in range(count)
    ]


def ours(measure: Measure) -> None:
    """From what was granted to text."""
    for count in COUNTS:
        grants = _grants(count)
        measure.calls(
            count,
            LOOPS // count,
            lambda grants=grants: "".join([guestxml.device_for(grant, node=0).to_xml() for grant in grants]),
        )


def nova(measure: Measure) -> None:
    """``LibvirtConfigGuestVPMEM``, filled as ``_guest_add_vpmems`` does, to text."""
    from nova.virt.libvirt import config

    for count in COUNTS:
        grants = _grants(count)

        def written(grants=grants) -> str:
            texts = []
            for grant in grants:
                device = config.LibvirtConfigGuestVPMEM()
                device.source_path = grant.device
                device.target_size = grant.size // 1024
                device.align_size = grant.align // 1024
                texts.append(device.to_xml(pretty_print=False))
            return "".join(texts)

        measure.calls(count, LOOPS // 2 // count or 1, written)


ROW = Row(
    name="xml",
    work="domain XML of so many devices, from the grant to text",
    kinds={"ours": ours, "nova": nova},
    targets=tuple(Target(case=str(count), against="nova", least=0.5) for count in COUNTS),
)
