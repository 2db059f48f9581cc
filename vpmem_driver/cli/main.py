"""The program ``vpmem``: global options, the table of commands, and exit codes."""

import argparse
import importlib.metadata
import io
import logging
import os
import signal
import sys
import tempfile
import typing

from cliff import app, command, commandmanager
from cliff import help as cliff_help
from oslo_config import cfg

from vpmem_driver import __version__, conf, exception, storage
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.pool import Pool

DESCRIPTION = """\
Manage persistent memory namespaces for virtual machines.

'claim' gives namespaces to an owner. 'release' takes them back and wipes them: every byte is overwritten with zeros
and verified before another owner gets it.
"""

EPILOG = """\
exit codes: 0 success; 1 bug in this program; 2 usage or configuration error; 3 not enough free namespaces; 4 refused
(another owner, or in use); 5 host error (discovery, ledger, libvirt); 6 wipe failed; 7 copy failed; 8 something
needs a person (status -x, host check, host retire, reconcile); 130 interrupted.

Every error message ends with an id, which 'vpmem explain' explains.

Without --config-file, the first vpmem.conf of ~/.vpmem, ~, /etc/vpmem and /etc is read. On a compute host, use
--config-file /etc/nova/nova.conf.
"""

#: Each command is a module of vpmem_driver.cli, which is imported when the command runs.
COMMANDS = {
    "status": "status:Status",
    "reconcile": "reconcile:Reconcile",
    "host check": "host_check:HostCheck",
    "host show": "host_show:HostShow",
    "host retire": "host_retire:HostRetire",
    "watch": "watch:Watch",
    "metrics": "metrics:Metrics",
    "namespace list": "namespace_list:NamespaceList",
    "namespace show": "namespace_show:NamespaceShow",
    "namespace export": "namespace_export:NamespaceExport",
    "namespace import": "namespace_import:NamespaceImport",
    "claim": "claim:Claim",
    "adopt": "adopt:Adopt",
    "release": "release:Release",
    "wipe": "wipe:Wipe",
    "domain xml": "domain_xml:DomainXML",
    "domain attach": "domain_attach:DomainAttach",
    "domain detach": "domain_detach:DomainDetach",
    "domain move": "domain_move:DomainMove",
    "domain snapshot": "domain_snapshot:DomainSnapshot",
    "domain restore": "domain_restore:DomainRestore",
    "domain refresh": "domain_refresh:DomainRefresh",
    "history": "history:History",
    "ledger check": "ledger_check:LedgerCheck",
    "ledger backup": "ledger_backup:LedgerBackup",
    "ledger restore": "ledger_restore:LedgerRestore",
    "quarantine list": "quarantine_list:QuarantineList",
    "quarantine retry": "quarantine_retry:QuarantineRetry",
    "repair": "repair:Repair",
    "plan": "plan:Plan",
    "provision": "provision:Provision",
    "explain": "explain:Explain",
    "receive": "receive:Receive",
    "demo": "demo:Demo",
}


class Commands(commandmanager.CommandManager):
    """The fixed table of commands, without a search for plug-ins."""

    def _load_commands(self) -> None:
        for name, target in COMMANDS.items():
            self.commands[name] = importlib.metadata.EntryPoint(name, f"vpmem_driver.cli.{target}", "vpmem")


def _add_id(record: logging.LogRecord) -> bool:
    """Filter: add the id to a message that is an error of this package, as cliff logs it."""
    if isinstance(record.msg, exception.VPMEMError):
        record.msg = record.msg.with_id()
    return True


class Help(cliff_help.HelpCommand):
    """Print detailed help for another command."""

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Print the help.

        :raises InvalidRequest: the command does not exist
        """
        try:
            return super().take_action(parsed_args)
        except ValueError as error:
            raise exception.InvalidRequest(
                what="command",
                value=" ".join(parsed_args.cmd),
                reason="it does not exist",
                remedy="'vpmem --help' lists the commands",
            ) from error


class VPMEMApp(app.App):
    """The program: options of all commands, and their pool."""

    NAME = "vpmem"
    DEFAULT_VERBOSE_LEVEL = 0
    CONSOLE_MESSAGE_FORMAT = "vpmem: %(message)s"

    def __init__(self) -> None:
        super().__init__(
            description=DESCRIPTION,
            version=__version__,
            command_manager=Commands("vpmem"),
            deferred_help=True,
        )
        self.command_manager.add_command("help", Help)
        self.LOG.addFilter(_add_id)
        self._pool: Pool | None = None
        self._domains: Domains | None = None
        self._error: BaseException | None = None

    def build_option_parser(
        self, description: str | None, version: str | None, argparse_kwargs: dict[str, typing.Any] | None = None
    ) -> argparse.ArgumentParser:
        kwargs = {"epilog": EPILOG, "formatter_class": argparse.RawDescriptionHelpFormatter} | (argparse_kwargs or {})
        parser = super().build_option_parser(description, version, kwargs)
        parser.add_argument(
            "--config-file",
            action="append",
            metavar="FILE",
            help="configuration file in the format of oslo.config (may be repeated; the last one takes precedence)",
        )
        return parser

    def run(self, argv: list[str]) -> int:
        """Run a command, but first refuse arguments that are not UTF-8, which the ledger and libvirt cannot store."""
        for word in argv:
            if not word.isprintable() and word != word.encode(errors="replace").decode():
                self.parser.error(f"'{exception.shorten(word)}' is not UTF-8 text")
        return super().run(argv)

    def configure_logging(self) -> None:
        """Log to standard error and to --log-file. Exit with 2 if the file cannot be written."""
        try:
            super().configure_logging()
        except OSError as error:
            self.parser.error(f"--log-file {error.filename}: {error.strerror}")

    def interact(self) -> None:
        """Show the help instead of cliff's interactive prompt."""
        self.parser.print_help()

    def run_subcommand(self, argv: list[str]) -> int:
        """Run a command, and return the exit code of its error. A full standard output has one too."""
        self._error = None
        result = super().run_subcommand(argv)
        if isinstance(self._error, OSError):
            return exception.HostError.exit_code
        return self._error.exit_code if isinstance(self._error, exception.VPMEMError) else result

    def clean_up(self, cmd: command.Command, result: int, err: BaseException | None) -> None:  # noqa: ARG002
        """Keep the error for its exit code, and close the pool."""
        self._error = err
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def configuration(self) -> cfg.ConfigOpts:
        """Read the configuration.

        :raises ConfigurationError: a file or a value is invalid
        """
        return conf.read(self.options.config_file or ())

    def pool(self, connection_uri: str | None = None) -> Pool:
        """Open the configured pool until the command ends.

        :param connection_uri: libvirt to use instead of the configured one
        :raises VPMEMError: see :meth:`vpmem_driver.pool.Pool.from_conf`
        """
        self._domains = self.domains(connection_uri)
        self._pool = Pool.from_conf(self.configuration(), domains=self._domains)
        if not self._pool.ledger_path.is_relative_to(tempfile.gettempdir()):  # temporary on purpose, as in the demo
            storage.warn_if_lost(self._pool.ledger_path)
        return self._pool

    @property
    def opened(self) -> tuple[Pool, Domains]:
        """The pool that the command has opened, and its libvirt."""
        assert self._pool is not None  # noqa: S101  the command has opened it
        assert self._domains is not None  # noqa: S101
        return self._pool, self._domains

    def domains(self, connection_uri: str | None = None) -> Domains:
        """Return the libvirt from the command line or the configuration."""
        return Domains(connection_uri or self.configuration().vpmem.connection_uri)


def main(argv: list[str] | None = None) -> int:
    """Run the program and return its exit code."""
    # The debug messages of stevedore do not help users.
    logging.getLogger("stevedore").setLevel(logging.WARNING)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # escapes characters that the terminal cannot encode
    code = VPMEMApp().run(sys.argv[1:] if argv is None else argv)
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes it again at exit
        if isinstance(error, BrokenPipeError):
            return 128 + signal.SIGPIPE
        print(f"vpmem: writing to standard output failed: {error.strerror}", file=sys.stderr)
        return code or exception.HostError.exit_code
    return code


if __name__ == "__main__":
    sys.exit(main())
