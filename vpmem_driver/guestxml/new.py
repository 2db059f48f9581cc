"""Create the XML of a small domain, for ``vpmem domain xml`` and the demo."""

import html
from collections.abc import Iterator, Sequence

from vpmem_driver import model
from vpmem_driver.guestxml.edit import add
from vpmem_driver.guestxml.values import invalid
from vpmem_driver.sizes import KIB, MIB


def new_domain(
    *,
    name: str,
    uuid: str,
    domain_type: str,
    memory: int,
    vcpus: int,
    host_nodes: Sequence[int],
    grants: Sequence[model.Grant],
) -> str:
    """Return a small x86_64 q35 domain, without disk or network, that libvirt can define and start unchanged.

    :param domain_type: test, qemu or kvm
    :param memory: bytes without the devices, a multiple of 1 MiB, divided between the cells
    :param host_nodes: each gets a guest cell that is pinned to it; empty: one cell, not pinned
    :raises InvalidRequest: memory or vcpus cannot be divided between the cells
    :raises NamespaceMissing, DomainRefused: see :func:`add`
    """
    cells = max(len(host_nodes), 1)
    if memory % MIB or memory < cells * MIB:
        raise invalid(
            "memory",
            memory,
            f"it is not a multiple of 1 MiB, or too small for {cells} cells",
            "Use at least 1 MiB for each cell",
        )
    if vcpus < cells:
        raise invalid("vcpus", vcpus, f"there are {cells} guest cells", "Use at least one for each cell")
    pins = [_NEW_MEMNODE.format(cell=cell, node=node) for cell, node in enumerate(host_nodes)]
    domain = _NEW_DOMAIN.format(
        domain_type=html.escape(domain_type),
        name=html.escape(name, quote=False),
        uuid=html.escape(uuid, quote=False),
        memory=memory // KIB,
        vcpus=vcpus,
        numatune=f"  <numatune>\n{''.join(pins)}  </numatune>\n" if pins else "",
        cells="".join(_new_cells(memory // MIB, vcpus, cells)),
    )
    return add(domain, grants)


_NEW_DOMAIN = """\
<domain type="{domain_type}">
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit="KiB">{memory}</memory>
  <currentMemory unit="KiB">{memory}</currentMemory>
  <vcpu>{vcpus}</vcpu>
{numatune}  <os>
    <type arch="x86_64" machine="q35">hvm</type>
  </os>
  <features>
    <acpi/>
  </features>
  <cpu>
    <numa>
{cells}    </numa>
  </cpu>
  <devices>
    <console type="pty"/>
  </devices>
</domain>
"""


_NEW_MEMNODE = '    <memnode cellid="{cell}" mode="strict" nodeset="{node}"/>\n'


def _new_cells(memory_mib: int, vcpus: int, cells: int) -> Iterator[str]:
    for cell in range(cells):
        first, end = vcpus * cell // cells, vcpus * (cell + 1) // cells
        size = memory_mib * (cell + 1) // cells - memory_mib * cell // cells
        cpus = f"{first}-{end - 1}" if end - first > 1 else f"{first}"
        yield f'      <cell id="{cell}" cpus="{cpus}" memory="{size * MIB // KIB}" unit="KiB"/>\n'
