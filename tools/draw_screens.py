"""Draw the screens in doc/images from real runs of the commands, on a host made of files.

    .tox/test/bin/python tools/draw_screens.py

The host is that of the functional tests. Its only domain is that of libvirt's test driver.
"""

import contextlib
import json
import os
import pathlib
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rich import console, text  # noqa: E402

from tests import ndctl_program  # noqa: E402
from tests.functional import terminal  # noqa: E402
from tests.functional.conftest import Host  # noqa: E402
from tests.functional.test_cli_domains import DOMAIN  # noqa: E402
from tests.functional.test_listing import move  # noqa: E402
from tests.ndctl_program import region  # noqa: E402
from vpmem_driver import guestxml  # noqa: E402
from vpmem_driver.ledger.reader import LedgerReader  # noqa: E402
from vpmem_driver.model import State  # noqa: E402
from vpmem_driver.sizes import GIB, MIB  # noqa: E402

IMAGES = ROOT / "doc" / "images"
WIDTH = 100
#: rich moves the cursor here before each map.
_HOME = b"\x1b[H"
#: The first map comes after an empty screen.
_FRAME = 2
_OWNERS = [f"4f6c{number:04}-0b1d-4a3e-9c57-2d8e61f0a9b4" for number in range(4)]
#: The domain of test:///default.
_DOMAIN = "6695eb01-f6a4-8304-79aa-97f2502e193f"


def draw(host: Host, name: str, *words: str, most_lines: int = 1000) -> None:
    """Run a command on a terminal, and draw what it shows, or its first lines.

    The picture of the same text is the same file. Times and speeds differ from run to run.
    """
    _, out, _ = terminal.run(["--config-file", host.config_file(), *words], width=WIDTH)
    shown = out.splitlines()
    save(name, words, "\n".join([*shown[:most_lines], *(["…"] if len(shown) > most_lines else [])]))


def save(name: str, words: Sequence[str], out: str) -> None:
    """Draw a command line and its output."""
    recorder = console.Console(record=True, width=WIDTH, file=pathlib.Path("/dev/null").open("w"), force_terminal=True)  # noqa: SIM115
    recorder.print(text.Text(f"# vpmem {shlex.join(words)}", style="bold"))
    recorder.print(text.Text.from_ansi(out))
    path = IMAGES / f"{name}.svg"
    path.write_text(recorder.export_svg(title="vpmem"), encoding="utf-8")
    print(f"{path.relative_to(ROOT)}:\n{out}")


def draw_watch(host: Host) -> None:
    """Draw a map of 'vpmem watch', which does not end."""
    main, side = pty.openpty()
    termios.tcsetwinsize(side, (30, WIDTH))
    words = [sys.executable, "-m", "vpmem_driver.cli.main", "--config-file", str(host.config_file()), "watch"]
    with subprocess.Popen(words, stdout=side, env=os.environ | {"TERM": "xterm"}) as process:
        shown = b""
        while shown.count(_HOME) <= _FRAME:
            shown += os.read(main, 65536)
        process.send_signal(signal.SIGINT)
    os.close(side)
    os.close(main)
    frame = shown.split(_HOME)[_FRAME].decode().replace("\r\n", "\n")
    lines = [line.rstrip() for line in re.sub(r"\x1b\[[?0-9;]*[A-Za-ln-z]", "", frame).splitlines()]
    save("watch", ["watch"], "\n".join(lines).rstrip())


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
    move(host, "ns3", State.DIRTY, State.CLAIMED, owner=_OWNERS[0])
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


def draw_provision(root: pathlib.Path) -> None:
    """Draw what 'vpmem provision' would do on a bare host, and why it refuses one that is not as the plan says."""
    root.mkdir()
    host = Host(root)
    host.options["discovery"] = "ndctl"
    state = ndctl_program.install(root / "bin", [region(0, 16 * GIB, node=0)])
    os.environ["PATH"] = f"{state.parent}:{os.environ['PATH']}"
    (root / "flavors.toml").write_text(_FLAVORS.replace("count = 4", "count = 1"), encoding="utf-8")
    with contextlib.chdir(root):
        terminal.run(["--config-file", host.config_file(), "plan", "flavors.toml", "--output", "plan.json"])
        draw(host, "provision", "provision", "plan.json")


def draw_reconcile(root: pathlib.Path) -> None:
    """Draw what 'vpmem reconcile' shows when all agree, and after the ledger was lost.

    Then there is also a domain by hand, beside those that vpmem has written.
    """
    root.mkdir()
    host = make_host(root)
    pool = host.pool()
    uuids = {row.name: row.uuid for row in pool.rows()}
    domain = DOMAIN.replace("</domain>", "<devices>{devices}</devices></domain>")
    domains = []
    for name, namespace in (("db1", "ns4"), ("db2", "ns5")):
        owner = _OWNERS[len(domains) + 1]
        pool.adopt(owner, [uuids[namespace]], in_domain=True)
        domains.append(guestxml.add(domain.format(name=name, uuid=owner, devices=""), pool.grants(owner)))
    disk = f"<disk type='file'><source file='{host.path('ns2')}'/><target dev='vda'/></disk>"
    for owner in (_DOMAIN, _OWNERS[0]):
        pool.release(owner)
    (root / "domains.xml").write_text(f"<node>{''.join(domains)}</node>", encoding="utf-8")
    host.options["connection_uri"] = f"test://{root / 'domains.xml'}"
    draw(host, "reconcile-agree", "reconcile")
    by_hand = domain.format(name="web", uuid=_OWNERS[3], devices=disk)
    (root / "domains.xml").write_text(f"<node>{''.join(domains)}{by_hand}</node>", encoding="utf-8")
    host.close()
    shutil.rmtree(host.state_path)
    draw(host, "reconcile", "reconcile")


def draw_retired(root: pathlib.Path) -> None:
    """Draw what 'vpmem host retire' would wipe."""
    root.mkdir()
    host = make_host(root)
    for owner in (_DOMAIN, _OWNERS[0]):
        host.pool().release(owner)
    host.close()
    draw(host, "host-retire", "host", "retire")


def wait_for_progress(host: Host) -> None:
    """Return when a quarter of a namespace is wiped."""
    with contextlib.closing(LedgerReader(host.state_path)) as ledger:
        while not any(4 * row.wiped > row.size for row in ledger.rows()):
            time.sleep(0.1)


def main() -> None:
    """Draw all screens."""
    root = pathlib.Path(tempfile.gettempdir(), "vpmem-screens")  # it is in the pictures
    root.mkdir(mode=0o700)
    try:
        host = make_host(root)
        draw_plans(host)
        words = [sys.executable, "-m", "vpmem_driver.cli.main", "--config-file", str(host.config_file()), "wipe"]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as wipe:
            wait_for_progress(host)
            draw(host, "namespace-list", "namespace", "list")
            draw(host, "status", "status")
            draw(host, "host-show", "host", "show")
            draw_watch(host)
            draw(host, "status-line", "status", "-x")
            draw(host, "namespace-list-by", "namespace", "list", "--by", "label")
            draw(host, "ledger-check", "ledger", "check")
            draw(host, "metrics", "metrics", most_lines=24)
            wipe.terminate()
        move(host, "ns4", State.DIRTY, State.QUARANTINED, reason="byte 4096 is not zero")
        host.path("ns5").unlink()
        draw(host, "namespace-list-broken", "namespace", "list", "--by", "state")
        draw(host, "status-broken", "status")
        draw(host, "host-check-broken", "host", "check")
        draw(host, "host-show-broken", "host", "show")
        draw(host, "status-line-broken", "status", "-x")
        draw(host, "quarantine-list", "quarantine", "list")
        draw(host, "repair", "repair", "ns4", "--dry-run")
        draw(host, "release-force", "release", _OWNERS[0], "--force", "--reason", "ticket 4711", "--dry-run")
        draw(host, "explain", "explain", "N01")
        draw_retired(root / "retired")
        draw_provision(root / "bare")
        draw_reconcile(root / "lost")
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
