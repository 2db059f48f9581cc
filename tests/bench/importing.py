"""What it costs to start."""

import pathlib
import subprocess
import sys

from bench import hosts
from bench.measure import Measure
from bench.rows import Row, Target

IMPORT, LIST = "import vpmem_driver", "vpmem namespace list"
MIB = 1 << 20


def _run(*words: str) -> None:
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)


def ours(measure: Measure) -> None:
    """The package; and a command, with four namespaces."""
    measure.calls(IMPORT, 1, lambda: _run("-c", "import vpmem_driver"))
    with hosts.on_disk() as scratch:
        root = pathlib.Path(scratch)
        (root / "pmem").mkdir()
        for number in range(4):
            (root / f"pmem/ns{number}").write_bytes(bytes(4 * MIB))
            (root / f"pmem/ns{number}").chmod(0o600)
        lines = (
            "[libvirt]\npmem_namespaces = 4GB:ns0|ns1,SMALL:ns2|ns3\n"
            f"[vpmem]\ndiscovery = directory\ndirectory = {root}/pmem\nstate_path = {root}/state\n"
        )
        (root / "vpmem.conf").write_text(lines)
        words = ("-m", "vpmem_driver.cli.main", "--config-file", str(root / "vpmem.conf"), "namespace", "list")
        measure.calls(LIST, 1, lambda: _run(*words))


def packages(measure: Measure) -> None:
    """The two packages, of which Python then runs no more than ``__init__.py``."""
    for case in (IMPORT, LIST):
        measure.calls(case, 1, lambda: _run("-c", "import oslo_config, cliff"))


def modules(measure: Measure) -> None:
    """Their modules that a program which reads a configuration and prints a table cannot do without."""
    names = "oslo_config.cfg, cliff.app, cliff.commandmanager, cliff.lister, cliff.formatters.table, prettytable"
    measure.calls(LIST, 1, lambda: _run("-c", f"import {names}"))


ROW = Row(
    name="start",
    work="whole processes: Python and an import; a command; limit: import oslo_config, cliff",
    kinds={"ours": ours, "limit": packages, "their modules": modules},
    targets=(
        Target(case=IMPORT, against="limit", most=1.3),
        Target(case=LIST, against="limit", most=1.3),
        Target(case=LIST, against="their modules", most=1.3),
    ),
)
