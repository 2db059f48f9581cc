"""The command ``vpmem ledger check``."""

import argparse

from vpmem_driver.cli import common
from vpmem_driver.pool import ledger_files


class LedgerCheck(common.Command):
    """Check the whole ledger: every page, every constraint, and each namespace against its history.

    It takes no lock and changes nothing. Every command checks the table of namespaces when it opens the ledger; this
    one also reads the history.
    """

    def take_action(self, parsed_args: argparse.Namespace) -> None:  # noqa: ARG002
        found = ledger_files.check(common.app(self).configuration())
        self.app.stdout.write(f"{found.path}: ok, {found.namespaces} namespaces, {found.changes} changes of state\n")
