"""The command ``vpmem quarantine list``."""

import argparse

from vpmem_driver.cli import common, listing
from vpmem_driver.model import State


class QuarantineList(listing.NamespaceLister):
    """List the namespaces whose wipe failed, with the reason. No owner can get them."""

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[common.Row]]:  # noqa: ARG002
        records = common.app(self).pool().records()
        return common.rows(record for record in records if record.state == State.QUARANTINED)
