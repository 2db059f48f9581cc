"""vpmem host show and vpmem watch, on a terminal and elsewhere."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time

import pytest
from lxml import etree

from tests.functional import terminal
from tests.functional.test_cli import refused, vpmem  # noqa: F401  fixtures
from tests.functional.test_listing import move, used  # noqa: F401  fixtures
from tests.functional.test_status import files
from vpmem_driver.cli import tables
from vpmem_driver.model import State

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture
def broken(host, used):  # noqa: F811
    move(host, "large0", State.DIRTY, State.QUARANTINED, reason="byte 4096 is not zero")
    host.path("small2").unlink()
    return ["--config-file", host.config_file()]


def test_a_map_changes_nothing(host, vpmem, used):  # noqa: F811
    before = files(host)
    code, out, err = vpmem("host", "show")
    assert (code, files(host)) == (0, before), err
    assert [line.split(",")[0] for line in out.splitlines() if line.startswith("node")] == [
        "node 0: 16.00 MiB",
        "node 1: 12.00 MiB",
    ]
    assert re.search(rf"small0 +4194304 +claimed +SMALL +{used[:8]}", out)


@pytest.mark.parametrize(
    ("width", "environment"),
    [(100, {}), (80, {"NO_COLOR": "1"}), (80, terminal.ASCII)],
    ids=["colour", "NO_COLOR", "ASCII"],
)
def test_every_line_fits(broken, width, environment):
    code, out, err = terminal.run([*broken, "host", "show"], width=width, environment=environment)
    assert code == 0, err
    plain = ESCAPE.sub("", out)
    assert all(tables.width_of(line) <= width for line in plain.splitlines()), out
    assert plain.isascii()
    assert "!!! quarantined" in plain
    assert "xxx missing" in plain
    assert ("\x1b[31m" in out) == ("NO_COLOR" not in environment)


def test_a_picture(vpmem, broken, tmp_path):  # noqa: F811
    file = tmp_path / "map.svg"
    file.write_text("old")
    assert vpmem("host", "show", "--svg", file)[:2] == (0, "")
    text = "".join(etree.fromstring(file.read_bytes()).itertext())
    assert "quarantined" in text
    assert [name for name in os.listdir(tmp_path) if "svg" in name] == ["map.svg"]


@pytest.mark.parametrize("file", ["/nonexistent/map.svg", "/proc/self/map.svg", "/", "", "a\0b"])
def test_a_picture_that_cannot_be_written(refused, tmp_path, monkeypatch, file):  # noqa: F811
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    err = refused(5, "host", "show", "--svg", file)
    assert "failed" in err
    assert "(VPMEM-E19)" in err
    assert os.listdir(empty) == []


def test_watch_needs_a_terminal(refused):  # noqa: F811
    assert "'vpmem watch' needs a terminal" in refused(2, "watch")


def test_watch_follows_the_host_and_ends_cleanly(host, used):  # noqa: F811
    main, side = pty.openpty()
    termios.tcsetwinsize(side, (40, 100))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "NO_COLOR"}}
    words = ["--config-file", str(host.config_file()), "watch"]
    shown = bytearray()

    def read_until(pattern):
        deadline = time.monotonic() + 60
        while not re.search(pattern, ESCAPE.sub("", shown.decode(errors="replace"))):
            assert time.monotonic() < deadline, shown[-2000:]
            if select.select([main], [], [], 1)[0]:
                shown.extend(os.read(main, 65536))

    with subprocess.Popen(
        [sys.executable, "-m", "vpmem_driver.cli.main", *words],
        stdin=side,
        stdout=side,
        stderr=subprocess.DEVNULL,
        env=environment | {"TERM": "xterm"},
    ) as process:
        os.close(side)
        try:
            read_until(r"small1 +4194304 +clean")
            move(host, "small1", State.DIRTY)
            read_until(r"small1 +4194304 +dirty")
            process.send_signal(signal.SIGINT)
            while chunk := terminal._read(main):
                shown.extend(chunk)
            assert process.wait(30) == 0
        finally:
            process.kill()
    os.close(main)
    assert shown.endswith(b"\x1b[?25h\x1b[?1049l") or b"\x1b[?1049l" in shown[-40:], "the terminal is as before"
    assert b"\x1b[?25h" in shown[-60:], "the cursor is shown again"
    assert b"\x1b[2J" not in shown[200:-100], "the screen is not cleared for each picture: it would flicker"
    assert b"Traceback" not in shown
