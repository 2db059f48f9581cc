"""The command ``vpmem namespace import``."""

import argparse

from cliff import lister

from vpmem_driver import exception
from vpmem_driver.cli import archives, common, copy_ids
from vpmem_driver.model import State
from vpmem_driver.pool import Pool

_PURPOSE = "import"


class NamespaceImport(common.Command, lister.Lister):
    """Fill a free namespace from a file, verify it, and claim it for an owner.

    All of the namespace is overwritten: what the file does not have becomes zero. Every byte is read back and compared
    with its digest before the owner gets the namespace. The namespace may be larger than the exported one.

    An interrupted import resumes when the command is run again with the same file; 'vpmem release' gives it up.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem namespace import ns0.vpmem ns4 --owner $(virsh domuuid db1)"
        parser.add_argument("file", metavar="FILE", help="file (-: standard input, only for 'stream')")
        parser.add_argument("namespace", metavar="NAME|UUID", help="free namespace")
        parser.add_argument("--owner", metavar="UUID", required=True, help="uuid of the domain or instance")
        parser.add_argument(
            "--file-format",
            choices=archives.FORMATS,
            default="stream",
            help="format (%(default)s). It is never guessed: a guest could make its memory look like another one",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        if parsed_args.file == "-" and parsed_args.file_format != "stream":
            raise exception.InvalidRequest(
                what="file",
                value="-",
                reason=f"the format {parsed_args.file_format} needs a file",
                remedy="Name a file",
            )
        pool = common.app(self).pool()
        uuid = pool.find(parsed_args.namespace)
        record = pool.record(uuid)
        owner = parsed_args.owner.lower()
        begun = _begun(pool, owner, uuid)
        arrival = begun or copy_ids.new_id(_PURPOSE)
        with (
            archives.file_errors(parsed_args.file),
            archives.opened(
                parsed_args.file, parsed_args.file_format, record.size, record.align, pool.hardware(uuid)
            ) as source,
        ):
            (row,) = pool.copies.expect_exact(owner, arrival, [uuid], [source.grant])
            try:
                with common.wipe_progress(self) as on_progress:
                    archives.fill(pool, arrival, row, source, on_progress)
            except exception.Refused:
                if begun is None:
                    pool.copies.abandon(owner, arrival)
                raise
        return common.rows(each for each in pool.records() if each.uuid == uuid)


def _begun(pool: Pool, owner: str, uuid: str) -> str | None:
    """Return the id of the interrupted import to a namespace."""
    for row in pool.held(owner):
        if row.uuid == uuid and row.state is State.RECEIVING and copy_ids.is_for(row.arrival or "", _PURPOSE):
            return row.arrival
    return None
