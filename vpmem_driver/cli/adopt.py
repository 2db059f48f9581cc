"""The command ``vpmem adopt``."""

import argparse
from collections.abc import Sequence

from vpmem_driver import guestxml, hostpaths, model
from vpmem_driver.cli import common, listing


class Adopt(listing.NamespaceLister):
    """Record an owner for namespaces that its guest already uses, and keep their content.

    Use it for guests that had persistent memory before this ledger existed. A namespace that another owner holds, or
    that contains another owner's data, is refused. So is a clean namespace: it was wiped and has no content.

    The ledger records what the device is in the owner's domain, or a nvdimm with a label area of 2 MiB if libvirt has
    no such domain.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem adopt $(virsh domuuid db1) ns0 ns1"
        parser.add_argument("owner", metavar="OWNER", help="uuid of the domain or instance")
        parser.add_argument(
            "namespaces", metavar="NAME|UUID", nargs="+", help="namespaces, in the order of the guest's devices"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        pool = common.app(self).pool()
        owner = parsed_args.owner
        uuids = list(dict.fromkeys(pool.find(name) for name in parsed_args.namespaces))
        hardware_of = self._hardware(owner, [record for record in pool.records() if record.uuid in uuids])
        pool.adopt(owner, uuids, why="adopted by the operator", hardware_of=hardware_of)
        return common.rows(record for record in pool.records() if record.uuid in uuids)

    def _hardware(self, owner: str, records: Sequence[model.Record]) -> dict[str, model.Hardware]:
        """Return what the namespaces are in the definition of the owner's domain, by uuid.

        :raises LibvirtError: libvirt does not answer
        """
        _, domains = common.app(self).opened
        if domains.uri is None:
            return {}
        with domains.connection() as connection:
            domain = domains.lookup(connection, owner.lower())
            devices = () if domain is None else guestxml.devices(domains.definition(domain))
        found = {}
        for record in records:
            reached = hostpaths.Wanted([record.device or ""])
            for device in devices:
                if record.uuid is not None and reached.reached_from(device.path):
                    found[record.uuid] = device.hardware
        return found
