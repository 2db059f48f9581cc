"""The command ``vpmem metrics``."""

import argparse
import os
import pathlib
import typing

from vpmem_driver import exception
from vpmem_driver.checkup import namespaces
from vpmem_driver.cli import common
from vpmem_driver.pool import snapshot

_FILE = "vpmem.prom"


class Metrics(common.Command):
    """Print metrics of this host in Prometheus' text format.

    With --textfile, write them to the file vpmem.prom in the directory of node_exporter's textfile collector, in one
    step, so that node_exporter never reads a part of them. Run it from cron or a systemd timer. Like 'vpmem status', it
    takes no lock and waits for nobody.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem metrics --textfile /var/lib/prometheus/node-exporter"
        parser.add_argument("--textfile", metavar="DIR", help="write vpmem.prom in this directory instead")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        metrics = _module()
        now = snapshot.read(common.app(self).configuration())
        registry = metrics.registry(now, namespaces.check(now))
        if parsed_args.textfile is None:
            self.app.stdout.write(metrics.text(registry))
        else:
            _write(metrics, registry, parsed_args.textfile)


def _module() -> typing.Any:
    """Return the module that needs prometheus_client.

    :raises InstallationError: it is not installed
    """
    try:
        from vpmem_driver import metrics  # noqa: PLC0415  an optional package
    except ImportError as error:
        raise exception.InstallationError(
            reason="vpmem metrics needs the Python package prometheus_client, which is not installed",
            remedy="Install it in the same environment: pip install 'vpmem_driver[metrics]'",
        ) from error
    return metrics


def _write(metrics: typing.Any, registry: typing.Any, text: str) -> None:
    directory = pathlib.Path(text)
    if not text or not os.path.isdir(text):
        raise exception.InvalidRequest(
            what="--textfile",
            value=text,
            reason="it is not a directory",
            remedy="Give the directory of node_exporter's option --collector.textfile.directory",
        )
    try:
        metrics.write(registry, os.fspath(directory / _FILE))
    except OSError as error:
        raise exception.HostToolError(
            what=f"Writing {directory / _FILE}",
            reason=error.strerror or str(error),
            remedy="Run this as a user who may write there; an older file is unchanged",
        ) from error
