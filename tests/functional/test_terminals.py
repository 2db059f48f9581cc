"""Every command on a terminal of 80 columns, without colour, in a UTF-8 and in an ASCII locale."""

import re

import pytest

from tests.functional import terminal
from tests.functional.conftest import new_owner
from tests.functional.test_cli_domains import DOMAIN
from tests.functional.test_listing import move
from vpmem_driver import guestxml
from vpmem_driver.cli import tables
from vpmem_driver.cli.main import COMMANDS
from vpmem_driver.model import State

OWNER = "22222222-3333-4444-5555-666666666666"
ENVIRONMENTS = {"UTF-8": {"NO_COLOR": "1", "LC_ALL": "C.UTF-8"}, "ASCII": {"NO_COLOR": "1", **terminal.ASCII}}

#: A command line of each command that shows something to people. The domain db has small0, and large0 is quarantined.
SHOWN = {
    "status": [],
    "reconcile": [],
    "host check": [],
    "host show": [],
    "host retire": [],
    "namespace list": ["--all"],
    "namespace show": ["small0"],
    "claim": ["11111111-2222-3333-4444-555555555555", "SMALL"],
    "adopt": ["11111111-2222-3333-4444-555555555555", "small1"],
    "release": [OWNER, "--dry-run"],
    "wipe": ["--dry-run"],
    "domain xml": [OWNER],
    "domain attach": ["db", "SMALL"],
    "domain detach": ["db", "--dry-run"],
    "domain refresh": ["db", "--dry-run"],
    "history": [],
    "ledger check": [],
    "quarantine list": [],
    "quarantine retry": ["--dry-run"],
    "repair": ["large0", "--dry-run"],
    "explain": [],
}
#: Commands that are tried on such terminals elsewhere, or show nothing to people.
ELSEWHERE = {
    "watch": "test_host_show",
    "metrics": "for Prometheus",
    "namespace export": "test_archives",
    "namespace import": "test_archives",
    "domain move": "needs another host: test_domain_move",
    "domain snapshot": "test_copies",
    "domain restore": "test_copies",
    "ledger backup": "prints a path",
    "ledger restore": "test_ledger_restore",
    "plan": "test_plan",
    "provision": "test_plan",
    "receive": "for another vpmem",
    "demo": "prints command lines",
}


@pytest.fixture
def used(host, tmp_path):
    """The options of a host with something in each state."""
    host.make("a-namespace-with-a-rather-long-name", node=0)
    host.pool()
    host.close()
    move(host, "small0", State.DIRTY, State.CLAIMED, owner=OWNER)
    move(host, "small2", State.DIRTY, State.CLAIMED, owner=new_owner())
    move(host, "large0", State.DIRTY, State.QUARANTINED, reason="byte 4096 is not zero, and this is a long reason")
    # A libvirt whose only domain is shut off (runstate 5), in a file: each process has a test driver of its own.
    bare = DOMAIN.format(name="db", uuid=OWNER).replace("</domain>", "<devices/></domain>")
    domain = guestxml.add(bare, host.pool().grants(OWNER))
    state = "<test:runstate xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>5</test:runstate></domain>"
    (tmp_path / "node.xml").write_text(f"<node>{domain.replace('</domain>', state)}</node>")
    host.options["connection_uri"] = f"test://{tmp_path / 'node.xml'}"
    host.close()
    return ["--config-file", host.config_file()]


def test_a_new_command_is_tried_too():
    assert set(SHOWN) | set(ELSEWHERE) == set(COMMANDS)
    assert not set(SHOWN) & set(ELSEWHERE)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("name", SHOWN)
def test_every_line_fits(host, used, name, environment):
    if name == "host retire":
        host.pool().release(OWNER)
    words = [*used, *name.split(), *SHOWN[name]]
    code, out, err = terminal.run(words, width=80, environment=ENVIRONMENTS[environment])
    assert code in {0, 8} if name != "host retire" else code == 4, err
    assert out or err
    assert "\x1b" not in out + err
    assert environment != "ASCII" or (out + err).isascii()
    lines = [line for line in out.splitlines() if not re.search(r"/\S{30}", line)]  # paths are not cut
    if name != "domain xml":
        assert all(tables.width_of(line) <= 80 for line in lines), out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_fits(name):
    environment = ENVIRONMENTS["ASCII"] | {"PAGER": "cat"}
    code, out, err = terminal.run([*name.split(), "--help"], width=80, environment=environment)
    assert code == 0, err
    assert "usage: vpmem" in out
    assert "\x1b" not in out
    assert out.isascii()
    # A character that the terminal cannot encode is escaped after the text is made.
    lines = [line.replace("\\u2026", "…") for line in out.splitlines() if "example: " not in line]
    assert all(tables.width_of(line) <= 80 for line in lines), out
