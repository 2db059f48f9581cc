"""The command ``vpmem receive``."""

import argparse
import functools
import os
from collections.abc import Sequence

from vpmem_driver import exception
from vpmem_driver.cli import common
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.pool import Pool
from vpmem_driver.transfer import messages
from vpmem_driver.transfer.receiver import Receiver


class Receive(common.Command):
    """Receive what 'vpmem domain move' sends. It is not for people: ssh runs it on the destination.

    It takes no arguments, so that authorized_keys can limit a key to it (command="vpmem receive"). This host chooses
    the namespaces, by label, and gives them to the owner whose memory arrives.
    """

    def take_action(self, parsed_args: argparse.Namespace) -> int:  # noqa: ARG002
        app = common.app(self)
        pool, domains = app.pool(), app.domains()
        requests, replies = os.dup(0), os.dup(1)
        os.dup2(2, 1)  # nothing else may write to the conversation
        receiver = Receiver(pool, _by_label, functools.partial(_require_away, domains), requests, replies)
        return 0 if receiver.serve() else exception.CopyFailed.exit_code


def _require_away(domains: Domains, owner: str) -> None:
    """Verify that no domain here has this uuid. :raises DomainRefused: there is one, and it may have run."""
    for name in domains.names([owner]).values():
        raise exception.DomainRefused(
            domain=name,
            reason="it exists on the destination, and may have run there",
            remedy="If it did not run there, undefine it there first",
        )


def _by_label(_pool: Pool, offer: messages.Offer) -> Sequence[str] | None:
    """Let the pool choose by label. :raises InvalidRequest: the sender asks for a certain namespace."""
    for offered in offer.namespaces:
        if offered.namespace is not None:
            raise exception.InvalidRequest(
                what="namespace",
                value=offered.namespace,
                reason="this host chooses the namespaces itself",
                remedy="Offer labels only",
            )
    return None
