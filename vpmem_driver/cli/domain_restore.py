"""The command ``vpmem domain restore``."""

import argparse
import contextlib
import hashlib
import pathlib
import typing
from collections.abc import Iterator, Mapping, Sequence

import msgspec
from cliff import lister

from vpmem_driver import exception, guestxml, layout, model
from vpmem_driver.cli import archives, common, copy_ids
from vpmem_driver.pool import Pool, Row
from vpmem_driver.transfer import manifest


class DomainRestore(common.Command, lister.Lister):
    """Give a domain that is shut off the content of a snapshot, in other namespaces.

    Free namespaces with the same labels are filled from DIR, and every byte is read back. Only then does the domain get
    them instead of those that it has, which are released and wiped. A domain that has none gets them in addition. An
    interrupted restore resumes when the command is run again; 'vpmem release OWNER --namespace NAME' gives up what it
    has filled.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem domain restore db1 /backup/db1-monday"
        common.add_domain_arguments(parser)
        parser.add_argument("directory", metavar="DIR", type=pathlib.Path, help="directory of 'vpmem domain snapshot'")
        parser.add_argument("--wait", action="store_true", help="wait until the previous namespaces are wiped")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        parsed_args.dry_run = False  # of the release
        pool = common.app(self).pool(parsed_args.connect)
        domains = common.app(self).domains(parsed_args.connect)
        with archives.file_errors(str(parsed_args.directory)), domains.connection() as connection:
            snapshot = manifest.read(parsed_args.directory)
            domain = domains.find(connection, parsed_args.domain)
            if domains.is_running(domain):
                raise _refused(domain, "it is running", "Shut it down first")
            if snapshot.domain != domain.UUIDString():
                raise _refused(
                    domain,
                    f"the snapshot is of domain {snapshot.name} ({snapshot.domain})",
                    "Use 'vpmem namespace import' for each file, to give another domain the content",
                )
            definition = domains.definition(domain)
            restore = _Restore(pool, domain, definition, snapshot)
            arrived = restore.expect()
            old = [row.uuid for row in restore.current]
            with pool.copies.hold_still(domain.UUIDString(), old) if old else contextlib.nullcontext():
                with restore.given_up_if_refused(arrived), common.wipe_progress(self) as on_progress:
                    for row, entry in zip(arrived, snapshot.namespaces, strict=True):
                        path = str(parsed_args.directory / entry.file)
                        with archives.opened(path, "stream", row.size, row.align) as source:
                            archives.fill(pool, row.arrival or "", row, source, on_progress)
                if domains.is_running(domain):
                    raise _refused(domain, "it was started", "Shut it down, and run the command again")
                domains.define(connection, restore.new_definition(arrived))
        if old:
            common.release(self, parsed_args, pool, snapshot.domain, old)
        uuids = {row.uuid for row in arrived}
        return common.rows(record for record in pool.records() if record.uuid in uuids)


class _Restore:
    """One restore.

    :ivar current: the namespaces that the domain has now, in the order of its devices
    """

    def __init__(self, pool: Pool, domain: typing.Any, definition: str, snapshot: manifest.Manifest) -> None:
        """Look at what the domain holds.

        :raises DomainRefused: that cannot be replaced by the content of the snapshot
        """
        self._pool = pool
        self._owner = snapshot.domain
        self._definition = definition
        self._entries = snapshot.namespaces
        self._purpose = f"restore {hashlib.sha256(msgspec.json.encode(snapshot)).hexdigest()}"
        grants = pool.grants(self._owner)
        self._paths: Mapping[str, str] = guestxml.find(guestxml.identified(definition), grants)
        held = pool.held(self._owner)
        self._arriving = [
            row for row in held if copy_ids.is_for(row.arrival or "", self._purpose) and row.uuid not in self._paths
        ]
        self.current = [row for row in held if row not in self._arriving]
        if unused := [row.name for row in self.current if row.uuid not in self._paths]:
            raise _refused(
                domain,
                f"it holds {exception.listed(unused)}, which its definition does not use",
                f"Release that first: vpmem release {self._owner} --namespace NAME",
            )
        for what, rows in (("has", self.current), ("has an interrupted restore of", self._arriving)):
            if rows and len(rows) != len(self._entries):
                raise _refused(
                    domain,
                    f"it {what} {len(rows)} namespaces, and the snapshot has {len(self._entries)}",
                    "Release them first, if their content is not needed",
                )
        if not self.current:
            guestxml.check(definition)

    def expect(self) -> list[Row]:
        """Reserve a namespace for each one of the snapshot, in its order; those of an interrupted restore again.

        :raises InsufficientNamespaces: not enough are free; nothing was changed
        """
        if self._arriving:
            return self._arriving
        chosen: list[str] = []
        for index, entry in enumerate(self._entries):
            node = self.current[index].numa_node if self.current else None
            chosen.append(self._choose(entry, node, chosen))
        sources = [model.Grant.elsewhere(entry) for entry in self._entries]
        return self._pool.copies.expect_exact(self._owner, copy_ids.new_id(self._purpose), chosen, sources)

    @contextlib.contextmanager
    def given_up_if_refused(self, arrived: Sequence[Row]) -> Iterator[None]:
        """Give up a new restore if the body is refused: the next one takes other namespaces."""
        try:
            yield
        except exception.Refused:
            if not self._arriving:
                self._pool.copies.abandon(self._owner, arrived[0].arrival or "")
            raise

    def _choose(self, entry: manifest.Entry, numa_node: int | None, taken: Sequence[str]) -> str:
        without = set(taken)
        resource_class = model.resource_class(entry.label or "")
        while (found := self._pool.next_free(resource_class, without, numa_node)) is not None:
            assert found.uuid is not None  # noqa: S101  every usable namespace has one
            if layout.parts(entry.size, entry.align, found.size, found.align, entry.hardware) is not None:
                return found.uuid
            without.add(found.uuid)
        labels = [each.label or "(none)" for each in self._entries]
        raise exception.InsufficientNamespaces(
            request=",".join(labels), shortage=f"{entry.label}: none is free and has room for {entry.size} bytes"
        )

    def new_definition(self, arrived: Sequence[Row]) -> str:
        """Return the definition of the domain with the restored namespaces. :raises VPMEMError: see guestxml."""
        grants = {grant.uuid: grant for grant in self._pool.grants(self._owner)}
        new = [grants[row.uuid] for row in arrived]
        if not self.current:
            return guestxml.add(self._definition, new)
        paths = [self._paths[row.uuid] for row in self.current]
        return guestxml.relocate(self._definition, dict(zip(paths, new, strict=True)))


def _refused(domain: typing.Any, reason: str, remedy: str) -> exception.DomainRefused:
    return exception.DomainRefused(domain=domain.name(), reason=reason, remedy=remedy)
