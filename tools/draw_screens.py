"""Draw the screens in doc/images from real runs of the commands, on a host made of files.

    .tox/test/bin/python tools/draw_screens.py

The host is that of the functional tests. Its only domain is that of libvirt's test driver.
"""

import contextlib
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rich import console, text  # noqa: E402

from tests.functional import terminal  # noqa: E402
from tests.functional.conftest import Host, new_owner  # noqa: E402
from tests.functional.test_cli_domains import DOMAIN  # noqa: E402
from tests.functional.test_listing import move  # noqa: E402
from tests.ndctl_program import region  # noqa: E402
from vpmem_driver import guestxml  # noqa: E402
from vpmem_driver.ledger.reader import LedgerReader  # noqa: E402
from vpmem_driver.model import State  # noqa: E402
from vpmem_driver.sizes import GIB, MIB  # noqa: E402

IMAGES = ROOT / "doc" / "images"
WIDTH = 100
#: The domain of test:///default.
_DOMAIN = "6695eb01-f6a4-8304-79aa-97f2502e193f"


def draw(host: Host, name: str, *words: str) -> None:
    """Run a command on a terminal, and draw what it shows."""
    _, out, _ = terminal.run(["--config-file", host.config_file(), *words], width=WIDTH)
    recorder = console.Console(record=True, width=WIDTH, file=pathlib.Path("/dev/null").open("w"), force_terminal=True)  # noqa: SIM115
    recorder.print(text.Text(f"# vpmem {' '.join(words)}", style="bold"))
    recorder.print(text.Text.from_ansi(out))
    path = IMAGES / f"{name}.svg"
    path.write_text(recorder.export_svg(title="vpmem"), encoding="utf-8")
    print(f"{path.relative_to(ROOT)}:\n{out}")


def make_host(root: pathlib.Path) -> Host:
    """A host of two NUMA nodes whose namespaces are claimed, reserved, clean, unknown."""
    host = Host(root)
    for number, size in enumerate((256, 256, 128, 64, 64, 32)):
        host.make(f"ns{number}", node=number % 2, size=size * MIB, full=False)
    host.pmem_namespaces = ["LARGE:ns0|ns1|ns2", "SMALL:ns3|ns4|ns5"]
    host.options |= {"connection_uri": "test:///default", "wipe_rate": 16}
    host.pool()
    host.close()
    move(host, "ns0", State.DIRTY, State.CLAIMED, owner=_DOMAIN)
    move(host, "ns3", State.DIRTY, State.CLAIMED, owner=new_owner())
    for name in ("ns2", "ns4"):
        move(host, name, State.DIRTY, State.CLEAN)
    move(host, "ns1", State.DIRTY)
    return host


_FLAVORS = """
[labels]
4GB = "4GiB"
SMALL = "512MiB"
[flavors.db]
pmem = "4GB,4GB,SMALL"
count = 4
[flavors.cache]
pmem = "SMALL"
count = 4
"""


def draw_plans(host: Host) -> None:
    """Draw the plan of a bare host, as a screen and as a picture."""
    with contextlib.chdir(host.directory.parent):
        pathlib.Path("flavors.toml").write_text(_FLAVORS, encoding="utf-8")
        regions = [region(0, 32 * GIB, node=0), region(1, 16 * GIB, node=1)]
        pathlib.Path("compute7.json").write_text(json.dumps(regions), encoding="utf-8")
        words = ["plan", "flavors.toml", "--inventory", "compute7.json"]
        draw(host, "plan-screen", *words)
        terminal.run([*words, "--svg", IMAGES / "plan.svg"])


def draw_reconcile(root: pathlib.Path) -> None:
    """Draw what 'vpmem reconcile' shows after the ledger was lost: domains that vpmem has written, and one by hand."""
    root.mkdir()
    host = make_host(root)
    pool = host.pool()
    uuids = {row.name: row.uuid for row in pool.rows()}
    domain = DOMAIN.replace("</domain>", "<devices>{devices}</devices></domain>")
    domains = []
    for name, namespace in (("db1", "ns4"), ("db2", "ns5")):
        owner = new_owner()
        pool.adopt(owner, [uuids[namespace]], in_domain=True)
        domains.append(guestxml.add(domain.format(name=name, uuid=owner, devices=""), pool.grants(owner)))
    disk = f"<disk type='file'><source file='{host.path('ns2')}'/><target dev='vda'/></disk>"
    by_hand = domain.format(name="web", uuid=new_owner(), devices=disk)
    (root / "domains.xml").write_text(f"<node>{''.join(domains)}{by_hand}</node>", encoding="utf-8")
    host.close()
    shutil.rmtree(host.state_path)
    host.options["connection_uri"] = f"test://{root / 'domains.xml'}"
    draw(host, "reconcile", "reconcile")


def wait_for_progress(host: Host) -> None:
    """Return when a quarter of a namespace is wiped."""
    with contextlib.closing(LedgerReader(host.state_path)) as ledger:
        while not any(4 * row.wiped > row.size for row in ledger.rows()):
            time.sleep(0.1)


def main() -> None:
    """Draw all screens."""
    root = pathlib.Path(tempfile.mkdtemp(prefix="vpmem-"))
    try:
        host = make_host(root)
        draw_plans(host)
        words = [sys.executable, "-m", "vpmem_driver.cli.main", "--config-file", str(host.config_file()), "wipe"]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as wipe:
            wait_for_progress(host)
            draw(host, "namespace-list", "namespace", "list")
            draw(host, "status", "status")
            draw(host, "host-show", "host", "show")
            wipe.terminate()
        move(host, "ns4", State.DIRTY, State.QUARANTINED, reason="byte 4096 is not zero")
        host.path("ns5").unlink()
        draw(host, "namespace-list-broken", "namespace", "list", "--by", "state")
        draw(host, "status-broken", "status")
        draw(host, "host-check-broken", "host", "check")
        draw(host, "host-show-broken", "host", "show")
        draw(host, "explain", "explain", "N01")
        draw_reconcile(root / "lost")
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
