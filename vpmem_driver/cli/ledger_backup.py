"""The command ``vpmem ledger backup``."""

import argparse
import pathlib

from vpmem_driver import exception
from vpmem_driver.cli import common
from vpmem_driver.pool import ledger_files


class LedgerBackup(common.Command):
    """Write a copy of the ledger to a new file, also while the ledger is in use.

    The copy is one file, as of one moment, checked, and on disk when the command ends. It takes no lock. An existing
    file is never replaced.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem ledger backup /var/backups/vpmem-$(date +%F).sqlite3"
        parser.add_argument("file", metavar="FILE", help="the new file")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        path = pathlib.Path(parsed_args.file)
        try:
            if not path.name:
                raise ValueError("it is not the name of a file")
            ledger_files.backup(common.app(self).configuration(), path)
        except FileExistsError as error:
            raise exception.InvalidRequest(
                what="file", value=path, reason="it exists", remedy="Choose another name, or move that file away"
            ) from error
        except (OSError, ValueError) as error:
            raise exception.HostToolError(
                what=f"Writing {exception.shorten(path)}",
                reason=getattr(error, "strerror", None) or str(error),
                remedy="Give the name of a new file in a directory that this user may write to",
            ) from error
