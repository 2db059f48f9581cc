"""What it costs to start."""

import pathlib
import subprocess
import sys

from bench import hosts
from bench.measure import Measure
from bench.rows import Row, Target

from vpmem_driver.sizes import MIB

IMPORT, LIST = "import vpmem_driver", "vpmem namespace list"


def _run(*words: str) -> None:
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)


def _configuration(root: pathlib.Path) -> pathlib.Path:
    lines = (
        "[libvirt]\npmem_namespaces = 4GB:ns0|ns1,SMALL:ns2|ns3\n"
        f"[vpmem]\ndiscovery = directory\ndirectory = {root}/pmem\nstate_path = {root}/state\n"
    )
    path = root / "vpmem.conf"
    path.write_text(lines)
    return path


def ours(measure: Measure) -> None:
    """The package; and a command, with four namespaces."""
    measure.calls(IMPORT, 1, lambda: _run("-c", "import vpmem_driver"))
    with hosts.on_disk() as scratch:
        root = pathlib.Path(scratch)
        (root / "pmem").mkdir()
        for number in range(4):
            (root / f"pmem/ns{number}").write_bytes(bytes(4 * MIB))
            (root / f"pmem/ns{number}").chmod(0o600)
        words = ("-m", "vpmem_driver.cli.main", "--config-file", str(_configuration(root)), "namespace", "list")
        measure.calls(LIST, 1, lambda: _run(*words))


def packages(measure: Measure) -> None:
    """The two packages, of which Python then runs no more than ``__init__.py``."""
    for case in (IMPORT, LIST):
        measure.calls(case, 1, lambda: _run("-c", "import oslo_config, cliff"))


def modules(measure: Measure) -> None:
    """Their modules that a program which reads a configuration and prints a table cannot do without."""
    names = (
        "oslo_config.cfg, cliff.app, cliff.commandmanager, cliff.lister, cliff.formatters.table, prettytable, wcwidth"
    )
    measure.calls(LIST, 1, lambda: _run("-c", f"import {names}"))


#: The least program of theirs: it reads a configuration, and prints a table.
_PROGRAM = """
import sys
from cliff import app, commandmanager, lister
from oslo_config import cfg

class List(lister.Lister):
    def take_action(self, parsed_args):
        options = cfg.ConfigOpts()
        options.register_opts([cfg.ListOpt("pmem_namespaces")], group="libvirt")
        options(["--config-file", sys.argv[1]], project="vpmem")
        return ("label", "names"), [text.split(":") for text in options.libvirt.pmem_namespaces]

commands = commandmanager.CommandManager("none")
commands.add_command("list", List)
sys.exit(app.App("", "1", commands, deferred_help=True).run(["list"]))
"""


def program(measure: Measure) -> None:
    """Cliff and oslo.config, and nothing of ours."""
    with hosts.on_disk() as scratch:
        path = _configuration(pathlib.Path(scratch))
        measure.calls(LIST, 1, lambda: _run("-c", _PROGRAM, str(path)))


ROW = Row(
    name="start",
    work="whole processes: Python and an import; a command; limit: import oslo_config, cliff",
    kinds={"ours": ours, "limit": packages, "their modules": modules, "their program": program},
    targets=(
        Target(case=IMPORT, against="limit", most=1.3),
        Target(case=LIST, against="limit", most=1.3),
        Target(case=LIST, against="their modules", most=1.3),
    ),
)
