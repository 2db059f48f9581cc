"""The command ``vpmem domain move``."""

import argparse
import contextlib
import typing
from collections.abc import Iterator, Sequence

from cliff import lister

from vpmem_driver import exception, guestxml, model
from vpmem_driver.cli import common, copy_ids
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.pool import Pool
from vpmem_driver.transfer import sender
from vpmem_driver.transfer.connection import ProcessConnection, ssh_command
from vpmem_driver.transfer.messages import Expecting

COLUMNS = ("name", "uuid", "label", "size", "destination", "destination_uuid", "destination_size", "destination_device")


class DomainMove(common.Command, lister.Lister):
    """Move a domain that is shut off, with the content of its namespaces, to another host.

    The content is copied over ssh to free namespaces with the same labels, and every byte is read back there. Then the
    domain is defined there, undefined here, and its namespaces here are released and wiped. Until then this host has
    all of the content, and the libvirt hook does not start the domain here. Disks, nvram and TPM state are not copied:
    both hosts must have them at the same path.

    If the move is interrupted, run it again: it resumes. Or end it with --cancel. HOST needs vpmem in the PATH of ssh,
    configured in /etc/vpmem/vpmem.conf. [vpmem] ssh_command has the options of ssh.
    """

    column_names = COLUMNS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem domain move db1 root@host2 --dry-run"
        parser.add_argument("domain", metavar="DOMAIN", help="name or uuid")
        parser.add_argument("host", metavar="HOST", help="[USER@]HOST, for ssh")
        common.add_connect_argument(parser)
        parser.add_argument(
            "--destination-uri", metavar="URI", help="libvirt of the destination (default: qemu+ssh://HOST/system)"
        )
        parser.add_argument("--wait", action="store_true", help="wait until the namespaces of this host are wiped")
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--dry-run", action="store_true", help="only list what would be copied where")
        what.add_argument(
            "--cancel", action="store_true", help="end an interrupted move: the domain stays, HOST wipes what arrived"
        )
        parser.add_argument(
            "--host-is-lost",
            action="store_true",
            help="with --cancel: do not ask HOST, which must never start again with its data",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        if parsed_args.host_is_lost and not parsed_args.cancel:
            raise exception.InvalidRequest(
                what="option",
                value="--host-is-lost",
                reason="it has no meaning without --cancel",
                remedy="Leave it out",
            )
        move = _Move(self, parsed_args)
        with move.connected_here():
            if parsed_args.cancel:
                move.cancel()
                return COLUMNS, []
            grants, arrived = move.preview() if parsed_args.dry_run else move.run()
        return COLUMNS, [_line(grant, expecting) for grant, expecting in zip(grants, arrived, strict=True)]


def _line(grant: model.Grant, expecting: Expecting) -> tuple[object, ...]:
    return (
        *(grant.name, grant.uuid, grant.label, grant.size),
        *(expecting.name, expecting.uuid, expecting.size, expecting.device),
    )


class _Move:
    """The move of one domain.

    In this order, so that at each moment one host at least has all of the content, and one domain at most may start:
    the namespaces here depart (the hook refuses the domain here); the content arrives there and is claimed there; the
    domain is defined there; it is undefined here; the namespaces here are released.
    """

    _source: typing.Any
    _destination: typing.Any

    def __init__(self, command: common.Command, parsed_args: argparse.Namespace) -> None:
        app = common.app(command)
        self._command = command
        self._arguments = parsed_args
        self._conf = app.configuration()
        self._ssh = ssh_command(self._conf.vpmem.ssh_command, parsed_args.host, "vpmem", "receive")
        self._pool: Pool = app.pool(parsed_args.connect)
        self._here = app.domains(parsed_args.connect)
        # libvirt's own ssh would ask for a password on the terminal
        self._there = Domains(parsed_args.destination_uri or f"qemu+ssh://{parsed_args.host}/system?no_tty=1")
        self._purpose = f"move to {parsed_args.host}"

    @contextlib.contextmanager
    def connected_here(self) -> Iterator[None]:
        """Connect to the libvirt of this host. :raises LibvirtError: it does not answer."""
        with self._here.connection() as self._source:
            yield

    @contextlib.contextmanager
    def _connected_there(self) -> Iterator[None]:
        with self._there.connection() as self._destination:
            yield

    def preview(self) -> tuple[Sequence[model.Grant], Sequence[Expecting]]:
        """Return what would be copied where. :raises VPMEMError: the move is not possible; nothing was changed."""
        domain = self._here.find(self._source, self._arguments.domain)
        grants, copy = self._check(domain)
        with self._connected_there():
            self._check_there(domain, copy)
        return grants, self._ask(copy or copy_ids.new_id(self._purpose), grants)

    def run(self) -> tuple[Sequence[model.Grant], Sequence[Expecting]]:
        """Move the domain, or resume that. :raises VPMEMError: see the methods; what is done is kept."""
        try:
            domain = self._here.find(self._source, self._arguments.domain)
        except exception.InvalidRequest:
            if not self._release_left_behind():
                raise
            return (), ()
        with self._pool.copies.alone(domain.UUIDString()):
            grants, copy = self._check(domain)
            with self._connected_there():
                self._check_there(domain, copy)
                if copy is None:
                    copy = copy_ids.new_id(self._purpose)
                    self._ask(copy, grants)
                arrived = self._carry(domain, copy, grants)
            self._release(domain.UUIDString())
        return grants, arrived

    def _carry(self, domain: typing.Any, copy: str, grants: Sequence[model.Grant]) -> tuple[Expecting, ...]:
        """Copy the content, define the domain there, and undefine it here."""
        try:
            arrived = self._copy(domain, copy, grants)
            self._define(domain, grants, arrived)
            self._arrived(domain, copy, grants)  # somebody there may have released it before the domain was defined
            self._here.undefine(domain)
        except BaseException:
            if any(row.departure == copy for row in self._pool.held(grants[0].owner)):
                self._command.app.LOG.warning(
                    "The move of domain %s is not complete. This host still has everything, and does not start it. Run "
                    "the command again to resume, or with --cancel to keep the domain here.",
                    domain.name(),
                )
            raise
        return arrived

    def _check(self, domain: typing.Any) -> tuple[tuple[model.Grant, ...], str | None]:
        """Return the namespaces of the domain, and the id of its interrupted move.

        :raises NotOwner: it holds none
        :raises DomainRefused: it must not be moved
        """
        name, owner = domain.name(), domain.UUIDString()
        grants = self._pool.grants(owner, required=True)
        copy = copy_ids.find(name, self._pool.held(owner), self._purpose)
        self._require_off(domain)
        if (reason := self._here.leftovers(domain)) is not None:
            raise exception.DomainRefused(
                domain=name, reason=f"{reason}, which does not move with it", remedy="Remove that first"
            )
        paths = guestxml.find(guestxml.identified(self._here.definition(domain)), grants)
        if missing := [grant.name for grant in grants if grant.uuid not in paths]:
            raise exception.DomainRefused(
                domain=name,
                reason=f"its definition has no device for {', '.join(missing)}",
                remedy="Release what it does not use, or add the device with 'vpmem domain xml'",
            )
        return grants, copy

    def _check_there(self, domain: typing.Any, copy: str | None) -> None:
        """Verify that no other domain with its uuid is there. :raises DomainRefused: there is one."""
        if copy is None and self._there.lookup(self._destination, domain.UUIDString()) is not None:
            raise exception.DomainRefused(
                domain=domain.name(),
                reason=f"a domain with its uuid is defined on {self._arguments.host} already",
                remedy="If that is an old definition, undefine it there first",
            )

    def _require_off(self, domain: typing.Any) -> None:
        if self._here.is_running(domain):
            raise exception.DomainRefused(domain=domain.name(), reason="it is running", remedy="Shut it down first")

    def _sender(self, copy: str, grants: Sequence[model.Grant], **options: typing.Any) -> sender.Sender:
        return sender.Sender(
            self._pool,
            lambda: ProcessConnection(self._arguments.host, self._ssh),
            owner=grants[0].owner,
            copy=copy,
            pack=self._conf.vpmem.copy_compression,
            **({"on_progress": lambda _event: None} | options),
        )

    def _copy(self, domain: typing.Any, copy: str, grants: Sequence[model.Grant]) -> tuple[Expecting, ...]:
        """Copy the content, and return the namespaces at the destination. :raises VPMEMError: it is not complete."""
        is_new = not any(row.departure for row in self._pool.held(grants[0].owner))
        self._pool.copies.depart(grants[0].owner, copy)
        try:
            self._require_off(domain)  # from now on the hook does not start it
            if self._there.lookup(self._destination, grants[0].owner) is not None:
                return self._arrived(domain, copy, grants)
            with common.wipe_progress(self._command) as on_progress:
                copier = self._sender(copy, grants, on_progress=on_progress)
                # Without the hook, it may have run here since an earlier run.
                return copier.send(_uuids(grants), [None] * len(grants), again=not is_new)
        except exception.TransferRefused:
            if is_new:
                self._pool.copies.stay(grants[0].owner)
            raise
        except exception.Refused:
            if is_new:
                self._abandon(copy, grants)
            raise

    def _arrived(self, domain: typing.Any, copy: str, grants: Sequence[model.Grant]) -> tuple[Expecting, ...]:
        """Return what a domain that is defined at the destination has there. It may have run: nothing is overwritten.

        :raises DomainRefused: not all has arrived
        """
        arrived = self._ask(copy, grants)
        if not all(expecting.complete for expecting in arrived):
            raise exception.DomainRefused(
                domain=domain.name(),
                reason=f"it is defined on {self._arguments.host}, and not all of its content has arrived there",
                remedy="Undefine it there, and run the move again",
            )
        return arrived

    def _ask(self, copy: str, grants: Sequence[model.Grant]) -> tuple[Expecting, ...]:
        """Return the namespaces that would receive the content. :raises TransferRefused, ConnectionLost: none would."""
        return self._sender(copy, grants).preview(_uuids(grants), [None] * len(grants))

    def _abandon(self, copy: str, grants: Sequence[model.Grant]) -> None:
        self._sender(copy, grants).abandon()
        self._pool.copies.stay(grants[0].owner)

    def _define(self, domain: typing.Any, grants: Sequence[model.Grant], arrived: Sequence[Expecting]) -> None:
        """Define the domain at the destination, unless an interrupted run has done that: it may run by now."""
        self._require_off(domain)
        moved = self._there.lookup(self._destination, domain.UUIDString())
        if moved is None:
            definition = self._here.definition(domain)
            found = guestxml.identified(definition)
            paths = guestxml.find(found, grants)
            hardware = {device.path: device.hardware for device, _ in found}
            new = {
                (path := paths[grant.uuid]): sender.grant_of(grant.owner, expecting, hardware[path])
                for grant, expecting in zip(grants, arrived, strict=True)
            }
            moved = self._there.define(self._destination, guestxml.relocate(definition, new))
        self._there.copy_autostart(domain, moved)

    def _release(self, owner: str) -> None:
        """Release what this move has taken away."""
        moved = [row.uuid for row in self._pool.held(owner) if copy_ids.is_for(row.departure or "", self._purpose)]
        common.release(self._command, self._arguments, self._pool, owner, moved)

    def _release_left_behind(self) -> bool:
        """Release what a domain has here that an interrupted run has already defined there and undefined here.

        :returns: False if there is no such domain
        :raises DomainRefused: not all of its content is there
        """
        if not any(copy_ids.is_for(row.departure or "", self._purpose) for row in self._pool.rows()):
            return False
        name = self._arguments.domain
        with self._connected_there():
            for domain in self._there.all(self._destination):
                owner = domain.UUIDString()
                if name in {domain.name(), owner} and self._here.lookup(self._source, owner) is None:
                    with self._pool.copies.alone(owner):
                        held = self._pool.held(owner)
                        copy = copy_ids.find(name, held, self._purpose) if held else None
                        if copy is not None:
                            self._arrived(domain, copy, self._pool.grants(owner))
                            self._release(owner)
                            return True
        return False

    def cancel(self) -> None:
        """End an interrupted move.

        :raises DomainRefused: nothing departs to that host, or the domain is defined there, and may have run there
        """
        domain = self._here.find(self._source, self._arguments.domain)
        with self._pool.copies.alone(domain.UUIDString()):
            self._cancel(domain)

    def _cancel(self, domain: typing.Any) -> None:
        grants, copy = self._interrupted(domain.name(), domain.UUIDString())
        if self._arguments.host_is_lost:
            self._pool.copies.stay(grants[0].owner)
            return
        with self._connected_there():
            if self._there.lookup(self._destination, grants[0].owner) is not None:
                raise exception.DomainRefused(
                    domain=domain.name(),
                    reason=f"it is defined on {self._arguments.host} already, and may have run there",
                    remedy="Run the move again to complete it. If the domain did not run there, and must stay here, "
                    "undefine it there first",
                )
        self._abandon(copy, grants)

    def _interrupted(self, name: str, owner: str) -> tuple[tuple[model.Grant, ...], str]:
        grants = self._pool.grants(owner, required=True)
        copy = copy_ids.find(name, self._pool.held(owner), self._purpose)
        if copy is None:
            raise exception.DomainRefused(
                domain=name, reason=f"no move to {self._arguments.host} was begun", remedy="Nothing was changed"
            )
        return grants, copy


def _uuids(grants: Sequence[model.Grant]) -> list[str]:
    return [grant.uuid for grant in grants]
