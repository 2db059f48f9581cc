"""Device nodes that are numbered anew: definitions are refreshed, and libvirt starts nothing on another's memory.

Files change their names here, as device nodes do at a boot: a namespace is told by its inode, whatever its path.
"""

import io
import pathlib

import libvirt
import pytest

from tests.functional.conftest import fill, new_owner
from tests.functional.test_cli import refused, vpmem, vpmem_json  # noqa: F401  fixtures
from tests.functional.test_cli_domains import DOMAIN, URI, connection, paths  # noqa: F401  fixtures
from vpmem_driver import conf, guestxml
from vpmem_driver.hook import main


@pytest.fixture
def new_domain(connection):  # noqa: F811
    def define():
        owner = new_owner()
        return connection.defineXML(DOMAIN.format(name=f"db-{owner[:6]}", uuid=owner))

    return define


@pytest.fixture
def attached(new_domain, vpmem_json):  # noqa: F811
    """A domain with labels; and what it has, pattern by uuid."""

    def attach(labels):
        domain = new_domain()
        records = vpmem_json("domain", "attach", domain.name(), labels, "--connect", URI)
        return domain, {record["uuid"]: fill(pathlib.Path(record["device"])) for record in records}

    return attach


def swap(host, one, other):
    """What had the one path has the other now."""
    first, second = host.path(one), host.path(other)
    aside = first.with_name(".aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def reads(domain):
    """The bytes behind each device of the definition."""
    return [pathlib.Path(path).read_bytes() for path in paths(domain)]


@pytest.fixture
def hook(host, monkeypatch, capsys):
    """What libvirt is told when it asks whether a domain may start, and why."""

    def ask(domain, xml=None, operation="prepare"):
        monkeypatch.setattr(conf, "CONFIG_FILE", str(host.config_file()))
        monkeypatch.setattr("sys.stdin", io.StringIO(xml or domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)))
        code = main.main(["vpmem-libvirt-hook", domain.name(), operation, "begin", "-"])
        return code, capsys.readouterr().err

    return ask


class TestRefresh:
    def test_each_domain_has_its_own_again(self, host, attached, vpmem_json):  # noqa: F811
        one, mine = attached("SMALL")
        other, yours = attached("SMALL")
        swap(host, *(pathlib.Path(path).name for path in (*paths(one), *paths(other))))
        assert reads(one) == [*yours.values()], "so it would be started"
        planned = vpmem_json("domain", "refresh", "--connect", URI, "--dry-run")
        assert {(change["domain"], change["uuid"]) for change in planned} == {
            (one.name(), *mine),
            (other.name(), *yours),
        }
        assert reads(one) == [*yours.values()]
        assert vpmem_json("domain", "refresh", "--connect", URI) == planned
        assert (reads(one), reads(other)) == ([*mine.values()], [*yours.values()])
        assert vpmem_json("domain", "refresh", "--connect", URI) == []

    def test_the_devices_of_one_domain_change_places(self, host, attached, vpmem_json):  # noqa: F811
        domain, patterns = attached("SMALL,SMALL")
        before = reads(domain)
        swap(host, *(pathlib.Path(path).name for path in paths(domain)))
        vpmem_json("domain", "refresh", domain.name(), "--connect", URI)
        assert reads(domain) == before, "each device is still the same memory to the guest"
        vpmem_json("domain", "refresh", domain.name(), "--connect", URI)
        assert reads(domain) == before
        detached = vpmem_json("domain", "detach", domain.name(), "--connect", URI, "--wait")
        assert {record["uuid"] for record in detached} == set(patterns)

    def test_a_definition_that_does_not_say_what_is_what(self, host, connection, attached, vpmem_json):  # noqa: F811
        """One that was written by hand, and adopted: it is told by the path under which it was."""
        domain, patterns = attached("SMALL")
        lines = domain.XMLDesc().splitlines()
        connection.defineXML("\n".join(line for line in lines if "<alias" not in line))
        (path,) = paths(domain)
        swap(host, pathlib.Path(path).name, "large0")
        vpmem_json("domain", "refresh", "--connect", URI)
        assert reads(domain) == [*patterns.values()]
        assert [uuid for _, uuid in guestxml.identified(domain.XMLDesc())] == [*patterns]

    def test_one_that_cannot_be_refreshed_does_not_stop_the_others(self, host, attached, new_domain, vpmem, vpmem_json):  # noqa: F811
        lost = new_domain()
        vpmem_json("claim", lost.UUIDString(), "SMALL")  # and no device in its definition
        domain, patterns = attached("SMALL")
        swap(host, pathlib.Path(paths(domain)[0]).name, "large0")
        code, _, err = vpmem("domain", "refresh", "--connect", URI)
        assert code == 4
        assert f"{lost.name()}: " in err
        assert "it has no device for" in err
        assert reads(domain) == [*patterns.values()]


class TestHook:
    def test_a_start_on_anothers_memory_is_refused_until_it_is_refreshed(self, host, attached, hook, vpmem_json):  # noqa: F811
        domain, _ = attached("SMALL")
        other, _ = attached("SMALL")
        assert hook(domain) == (0, "")
        swap(host, *(pathlib.Path(path).name for path in (*paths(domain), *paths(other))))
        code, said = hook(domain)
        assert code == 1
        assert f"'vpmem domain refresh {domain.name()}'" in said
        vpmem_json("domain", "refresh", "--connect", URI)
        assert (hook(domain)[0], hook(other)[0]) == (0, 0)

    def test_a_definition_that_does_not_say_what_is_what(self, host, attached, hook):
        domain, _ = attached("SMALL")
        other, _ = attached("SMALL")
        xml = "\n".join(line for line in domain.XMLDesc().splitlines() if "<alias" not in line)
        assert hook(domain, xml)[0] == 0
        (mine,), (theirs,) = paths(domain), paths(other)
        code, said = hook(domain, xml.replace(mine, theirs))
        assert (code, f"which belongs to {other.UUIDString()}" in said) == (1, True)
        (unknown,) = (record.device for record in host.pool().records() if record.name == "large0")
        code, said = hook(domain, xml.replace(mine, unknown))
        assert (code, "is unknown and unowned" in said) == (1, True), "it holds another one"

    def test_what_a_domain_does_not_hold(self, host, attached, new_domain, hook, vpmem_json):  # noqa: F811
        template, _ = attached("SMALL")
        stranger = new_domain()
        xml = template.XMLDesc().replace(template.UUIDString(), stranger.UUIDString())
        xml = "\n".join(line for line in xml.splitlines() if "<alias" not in line)
        (path,) = paths(template)
        large = str(host.path("large0"))
        assert hook(stranger, xml.replace(path, large))[0] == 0, "unknown: it may well be its own"
        vpmem_json("wipe", "--namespace", "large0")
        code, said = hook(stranger, xml.replace(path, large))
        assert code == 1
        assert f"'vpmem adopt {stranger.UUIDString()} large0'" in said
        assert hook(stranger, xml.replace(path, "/elsewhere"))[0] == 0, "no namespace of this host"

    def test_a_device_that_is_somebody_elses_or_nobodys_by_now(self, host, attached, hook, vpmem_json):  # noqa: F811
        """It holds nothing any more, and its path leads to an unknown namespace: what it says of itself tells."""
        domain, _ = attached("SMALL")
        vpmem_json("release", domain.UUIDString(), "--wait")
        assert hook(domain)[0] == 1
        swap(host, pathlib.Path(paths(domain)[0]).name, "large0")
        code, said = hook(domain)
        assert (code, "is now at" in said) == (1, True)

    def test_what_is_none_of_its_business(self, host, attached, new_domain, hook):
        domain, _ = attached("SMALL")
        assert hook(domain, "not even XML", operation="started") == (0, "")
        plain = new_domain()
        for file in host.state_path.iterdir():
            file.write_bytes(b"no ledger")
        assert hook(plain) == (0, "")
        code, said = hook(domain)
        assert (code, "Cannot use the ledger" in said) == (1, True), "in doubt it is not started"
