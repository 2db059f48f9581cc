"""The command ``vpmem domain snapshot``."""

import argparse
import pathlib

from vpmem_driver import exception
from vpmem_driver.cli import archives, common
from vpmem_driver.transfer import manifest


class DomainSnapshot(common.Command):
    """Write the content of all namespaces of a domain that is shut off to a directory, as it is at one moment.

    DIR gets one file for each namespace, in the format of 'vpmem namespace export', and manifest.json when all are
    complete. The libvirt hook does not start the domain meanwhile. An interrupted snapshot resumes when the command is
    run again. The definition of the domain is not in it: use 'virsh dumpxml'.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem domain snapshot db1 /backup/db1-monday"
        common.add_domain_arguments(parser)
        parser.add_argument("directory", metavar="DIR", type=pathlib.Path, help="new directory")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        pool = common.app(self).pool(parsed_args.connect)
        domains = common.app(self).domains(parsed_args.connect)
        directory: pathlib.Path = parsed_args.directory
        with domains.connection() as connection:
            domain = domains.find(connection, parsed_args.domain)
            name, owner = domain.name(), domain.UUIDString()
            if domains.is_running(domain):
                raise exception.DomainRefused(domain=name, reason="it is running", remedy="Shut it down first")
        grants = pool.grants(owner, required=True)
        with archives.file_errors(str(directory)):
            manifest.prepare(directory, len(grants))
            with pool.copies.hold_still(owner) as departure, common.wipe_progress(self) as on_progress:
                entries = [
                    manifest.Entry.of(
                        grant,
                        file=(file := manifest.file_name(index)),
                        digest=archives.export_stream(pool, departure, grant, directory / file, on_progress).hex(),
                    )
                    for index, grant in enumerate(grants)
                ]
            manifest.write(directory, manifest.Manifest(domain=owner, name=name, namespaces=tuple(entries)))
