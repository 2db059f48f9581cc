"""The command ``vpmem release``."""

import argparse
import sys
from collections.abc import Sequence

from vpmem_driver import exception
from vpmem_driver.cli import common, listing
from vpmem_driver.pool import Pool, requests


class Release(listing.NamespaceLister):
    """Release the namespaces of an owner and wipe them in the background. Their content is lost.

    Stop the guest first. A namespace that a guest still uses is not wiped, and no other owner gets it, until the guest
    stops.

    With --force, release what an owner has left that does not exist any more. This is refused if there is a domain
    with that uuid, or if any domain or process has one of the namespaces. On a terminal, the command asks for the uuid
    of the owner; elsewhere, repeat it with --confirm. The reason is kept in the history.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem release $(virsh domuuid db1) --namespace ns0 --wait"
        parser.add_argument("owner", metavar="OWNER", help="uuid of the domain or instance that holds the namespaces")
        parser.add_argument(
            "--namespace",
            action="append",
            metavar="NAME|UUID",
            help="only this namespace (may be repeated; default: all)",
        )
        common.add_release_arguments(parser)
        parser.add_argument("--force", action="store_true", help="the owner does not exist any more")
        parser.add_argument("--reason", metavar="TEXT", help="why, for the history; only with --force, and needed then")
        parser.add_argument("--confirm", metavar="OWNER", help="the owner again, where no terminal can be asked")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        _check_options(parsed_args)
        pool = common.app(self).pool()
        wanted = parsed_args.namespace
        uuids = None if wanted is None else [pool.find(name) for name in wanted]
        if not parsed_args.force:
            return common.release(self, parsed_args, pool, parsed_args.owner, uuids)
        why = f"released by force: {requests.reason(parsed_args.reason)}"
        pool.require_abandoned(parsed_args.owner, uuids)
        if not parsed_args.dry_run:
            self._confirm(parsed_args, pool, uuids)
        return common.release(self, parsed_args, pool, parsed_args.owner, uuids, why=why)

    def _confirm(self, parsed_args: argparse.Namespace, pool: Pool, uuids: Sequence[str] | None) -> None:
        """Have the operator type the owner, or take it from ``--confirm``.

        :raises InvalidRequest: it is another one, or nobody can be asked
        """
        typed = parsed_args.confirm
        if typed is None and sys.stdin.isatty():
            owner, names = parsed_args.owner, [record.name for record in pool.releasable(parsed_args.owner, uuids)]
            self.app.stderr.write(
                f"This erases {exception.listed(names)} of {owner}.\nType the uuid of the owner to continue: "
            )
            self.app.stderr.flush()
            typed = sys.stdin.readline().strip()
        if typed is None or typed.lower() != requests.owner(parsed_args.owner):
            raise exception.InvalidRequest(
                what="confirmation",
                value=typed or "",
                reason="it is not the uuid of the owner",
                remedy="Nothing was changed. Give the owner again with --confirm, or type it on a terminal",
            )


def _check_options(parsed_args: argparse.Namespace) -> None:
    """Refuse ``--force`` without a reason, and what only ``--force`` has.

    :raises InvalidRequest: they do not fit together
    """
    given = [name for name in ("reason", "confirm") if getattr(parsed_args, name) is not None]
    if parsed_args.force and "reason" not in given:
        raise exception.InvalidRequest(
            what="option", value="--force", reason="it needs a reason", remedy="Add --reason TEXT"
        )
    if given and not parsed_args.force:
        raise exception.InvalidRequest(
            what="option", value=f"--{given[0]}", reason="it is only for --force", remedy="Add --force, or leave it out"
        )
