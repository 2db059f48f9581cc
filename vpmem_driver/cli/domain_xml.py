"""The command ``vpmem domain xml``."""

import argparse
import pathlib
import sys

from vpmem_driver import exception, guestxml
from vpmem_driver.cli import common
from vpmem_driver.sizes import GIB, MIB

#: Bytes that 52 bits address, and more vCPUs than any QEMU supports.
_MAX_MEMORY = 1 << 52
_MAX_VCPUS = 1 << 16


class DomainXML(common.Command):
    """Print domain XML with the namespaces that an owner holds, at their current device paths.

    With --base, add the devices to that domain; otherwise print a new small domain. Nothing is defined: pass the output
    to 'virsh define', or use 'vpmem domain attach' instead.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.epilog = "example: virsh dumpxml db1 | vpmem domain xml $(virsh domuuid db1) --base - > new.xml"
        parser.add_argument("owner", metavar="OWNER", help="uuid of the domain or instance that holds the namespaces")
        parser.add_argument("--base", metavar="FILE", help="domain XML to add the devices to (-: standard input)")
        parser.add_argument(
            "--type", default="kvm", choices=("kvm", "qemu", "test"), help="type of the new domain (%(default)s)"
        )
        parser.add_argument(
            "--name", help="name of the new domain (default: vpmem- and the first eight digits of the owner)"
        )
        memory, vcpus = common.size(MIB, _MAX_MEMORY, unit=MIB), common.whole_number(1, _MAX_VCPUS)
        parser.add_argument(
            "--memory",
            type=memory,
            default=GIB,
            metavar="SIZE",
            help="memory of the new domain, for example 4G or 512MiB; a plain number is MiB (default: 1G)",
        )
        parser.add_argument("--vcpus", type=vcpus, default=2, metavar="N", help="vCPUs of the new domain (%(default)s)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        grants = common.app(self).pool().grants(parsed_args.owner, required=True)
        if parsed_args.base is not None:
            domain_xml = guestxml.add(_read(parsed_args.base), grants)
        else:
            domain_xml = guestxml.new_domain(
                name=parsed_args.name or f"vpmem-{parsed_args.owner[:8]}",
                uuid=parsed_args.owner,
                domain_type=parsed_args.type,
                memory=parsed_args.memory,
                vcpus=parsed_args.vcpus,
                host_nodes=sorted({grant.numa_node for grant in grants if grant.numa_node is not None}),
                grants=grants,
            )
        self.app.stdout.write(domain_xml if domain_xml.endswith("\n") else domain_xml + "\n")


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else pathlib.Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise exception.InvalidDomainXML(
            reason=f"{file} cannot be read: {error}", remedy="Give a file with domain XML, or - for standard input"
        ) from error
