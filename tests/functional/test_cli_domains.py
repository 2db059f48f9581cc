"""vpmem domain attach, detach and xml, on libvirt's own test driver: test:///default lives in this process."""

import dataclasses
import pathlib
import types

import libvirt
import pytest

from tests.functional.conftest import fill, is_zero, new_owner
from tests.functional.test_cli import refused, snapshot, vpmem, vpmem_json  # noqa: F401  fixtures
from vpmem_driver import exception, guestxml, model
from vpmem_driver.libvirt_domains import Domains

URI = "test:///default"

DOMAIN = """
<domain type='test'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>64</memory>
  <vcpu>2</vcpu>
  <os><type arch='x86_64'>hvm</type></os>
  <features><acpi/></features>
  <cpu><numa><cell id='0' cpus='0-1' memory='64' unit='MiB'/></numa></cpu>
</domain>
"""


@pytest.fixture
def connection():
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    opened = libvirt.open(URI)
    yield opened
    for domain in opened.listAllDomains():
        if domain.name() != "test":
            if domain.isActive():
                domain.destroy()
            domain.undefine()
    opened.close()


@pytest.fixture
def domain(connection):
    owner = new_owner()
    return connection.defineXML(DOMAIN.format(name=f"db-{owner[:4]}", uuid=owner))


def paths(domain):
    return [device.path for device in guestxml.devices(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))]


def test_a_virtio_pmem_is_attached_started_refreshed_and_detached(host, domain, vpmem_json):  # noqa: F811
    host.options["device_model"] = ["SMALL:virtio-pmem"]
    host.options["connection_uri"] = URI
    (attached,) = vpmem_json("domain", "attach", domain.name(), "SMALL", "--connect", URI)
    assert (attached["device_model"], attached["label_size"]) == ("virtio-pmem", 0)
    assert attached["guest_size"] == attached["size"]
    (device,) = guestxml.devices(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    assert device.hardware == model.Hardware(model.DeviceModel.VIRTIO_PMEM, 0)
    path = pathlib.Path(device.path)
    pattern = fill(path)
    domain.create()
    domain.destroy()
    host.options["device_model"] = ["nvdimm"]
    path.rename(host.directory / path.name)
    (change,) = vpmem_json("domain", "refresh", "--connect", URI)
    assert (change["before"], change["now"]) == (str(path), str(host.directory / path.name))
    (device,) = guestxml.devices(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    assert device.hardware == model.Hardware(model.DeviceModel.VIRTIO_PMEM, 0)
    assert pathlib.Path(device.path).read_bytes() == pattern
    (released,) = vpmem_json("domain", "detach", domain.name(), "--wait", "--connect", URI)
    assert (released["state"], released["device_model"]) == ("clean", None)
    assert paths(domain) == []


def definition_of(domain):
    return domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)


class TestHotPlug:
    """--live and --reserve, as far as libvirt's test driver goes: it does not add memory to a running domain."""

    @pytest.mark.parametrize(
        "words",
        [
            [],
            ["--live"],
            ["SMALL", "--reserve", "x"],
            ["--reserve", "0:1G"],
            ["--reserve", "1"],
            ["--reserve", "1:1K"],
            ["--reserve", "257:1G"],
            ["SMALL", "--reserve", "1:1G", "--live"],
        ],
    )
    def test_what_cannot_be_meant(self, domain, refused, words):  # noqa: F811
        before = definition_of(domain)
        refused(2, "domain", "attach", domain.name(), *words, "--connect", URI)
        assert definition_of(domain) == before

    def test_a_domain_that_is_off_takes_none(self, domain, refused):  # noqa: F811
        err = refused(4, "domain", "attach", domain.name(), "SMALL", "--live", "--connect", URI)
        assert "it is shut off. Leave out --live" in err

    def test_a_domain_without_room_takes_none(self, domain, refused):  # noqa: F811
        domain.create()
        err = refused(4, "domain", "attach", domain.name(), "SMALL", "--live", "--connect", URI)
        assert "it has no <maxMemory>" in err
        assert "--reserve N:SIZE" in err

    def test_room_is_reserved_once_and_kept(self, domain, vpmem, vpmem_json):  # noqa: F811
        for _ in range(2):
            assert vpmem_json("domain", "attach", domain.name(), "--reserve", "2:8M", "--connect", URI) == []
            assert '<maxMemory slots="2" unit="KiB">81920</maxMemory>' in definition_of(domain).replace("'", '"')
        vpmem_json("domain", "attach", domain.name(), "SMALL", "--reserve", "2:8M", "--connect", URI)
        assert '<maxMemory slots="3" unit="KiB">86016</maxMemory>' in definition_of(domain).replace("'", '"')
        domain.create()
        assert (
            "gets the room at its next start"
            in vpmem("domain", "attach", domain.name(), "--reserve", "3:8M", "--connect", URI)[2]
        )

    def test_what_libvirt_refuses_is_rolled_back(self, host, domain, vpmem, vpmem_json):  # noqa: F811
        (first,) = vpmem_json("domain", "attach", domain.name(), "SMALL", "--reserve", "1:8M", "--connect", URI)
        domain.create()
        before = definition_of(domain)
        code, out, err = vpmem("domain", "attach", domain.name(), "SMALL", "--live", "--connect", URI)
        assert (code, out, "Traceback" in err) == (5, "", False)
        assert definition_of(domain) == before
        assert [row.uuid for row in host.pool().held(domain.UUIDString())] == [first["uuid"]]

    def test_too_little_room_is_found_after_the_claim_and_rolled_back(self, host, domain, vpmem, vpmem_json):  # noqa: F811
        vpmem_json("domain", "attach", domain.name(), "SMALL", "--reserve", "1:2M", "--connect", URI)
        domain.create()
        code, _, err = vpmem("domain", "attach", domain.name(), "LARGE", "--live", "--connect", URI)
        assert code == 4
        assert "its <maxMemory> has room for 2097152 more bytes, and 8388608 are needed" in err
        assert [row.label for row in host.pool().held(domain.UUIDString())] == ["SMALL"]


def test_an_adopted_device_stays_what_it_is_in_the_domain(host, connection, domain, vpmem_json):  # noqa: F811
    host.options["connection_uri"] = URI
    records = {record["name"]: record for record in vpmem_json("namespace", "list")}
    hardware = {
        "small0": model.Hardware(model.DeviceModel.VIRTIO_PMEM, 0),
        "small1": model.Hardware(model.DeviceModel.NVDIMM, 0),
        "large0": model.IN_TREE,
    }
    pool = host.pool()
    rows = {row.name: row for row in pool.rows()}
    grants = [dataclasses.replace(pool.grant(rows[name]), ready=True, hardware=each) for name, each in hardware.items()]
    connection.defineXML(guestxml.add(domain.XMLDesc(), grants))
    adopted = vpmem_json("adopt", domain.UUIDString(), *hardware)
    assert {row["name"]: (row["device_model"], row["label_size"]) for row in adopted} == {
        name: (each.device_model, each.label_size) for name, each in hardware.items()
    }
    (other,) = vpmem_json("adopt", new_owner(), "small2")
    assert (other["device_model"], other["label_size"]) == ("nvdimm", 2 << 20), "as Nova's own driver has it"
    assert records["small0"]["device_model"] is None


def test_attach_start_stop_detach(host, domain, vpmem_json):  # noqa: F811
    attached = vpmem_json("domain", "attach", domain.name(), "LARGE,SMALL", "--connect", URI)
    assert {namespace["owner"] for namespace in attached} == {domain.UUIDString()}
    devices = [namespace["device"] for namespace in sorted(attached, key=lambda namespace: namespace["label"])]
    assert paths(domain) == devices, "in the order of the labels"
    patterns = [fill(pathlib.Path(device)) for device in devices]
    domain.create()
    domain.destroy()
    assert [pathlib.Path(device).read_bytes() for device in devices] == patterns
    detached = vpmem_json("domain", "detach", domain.name(), "--connect", URI, "--wait")
    assert {namespace["state"] for namespace in detached} == {"clean"}
    assert paths(domain) == []
    assert all(is_zero(pathlib.Path(device)) for device in devices)


def test_attach_again_adds(domain, vpmem_json):  # noqa: F811
    vpmem_json("domain", "attach", domain.name(), "SMALL", "--connect", URI)
    vpmem_json("domain", "attach", domain.UUIDString(), "SMALL", "--connect", URI)
    assert len(set(paths(domain))) == 2


def test_attach_to_a_running_domain_is_for_its_next_start(domain, vpmem):  # noqa: F811
    domain.create()
    code, _, err = vpmem("domain", "attach", domain.name(), "SMALL", "--connect", URI)
    assert code == 0
    assert "at its next start" in err
    assert len(paths(domain)) == 1


def test_a_running_domain_is_not_detached(domain, vpmem_json, refused):  # noqa: F811
    vpmem_json("domain", "attach", domain.name(), "SMALL", "--connect", URI)
    domain.create()
    assert "it is running. Shut it down" in refused(4, "domain", "detach", domain.name(), "--connect", URI)
    assert len(paths(domain)) == 1


def test_detach_dry_run_changes_nothing(host, domain, vpmem_json):  # noqa: F811
    attached = vpmem_json("domain", "attach", domain.name(), "SMALL", "--connect", URI)
    before, definition = snapshot(host), domain.XMLDesc()
    assert vpmem_json("domain", "detach", domain.name(), "--connect", URI, "--dry-run") == attached
    assert (snapshot(host), domain.XMLDesc()) == (before, definition)


def test_a_running_domain_cannot_be_wiped_under_its_feet(host, domain, vpmem, vpmem_json):  # noqa: F811
    (attached,) = vpmem_json("domain", "attach", domain.name(), "SMALL", "--connect", URI)
    host.options["connection_uri"] = URI
    pattern = fill(pathlib.Path(attached["device"]))
    domain.create()
    code, _, err = vpmem("release", domain.UUIDString(), "--wait")
    assert code == 4
    assert f"in use by the running domain {domain.name()}" in err
    assert pathlib.Path(attached["device"]).read_bytes() == pattern
    domain.destroy()
    vpmem_json("wipe")
    assert is_zero(pathlib.Path(attached["device"]))


def test_what_a_domain_has_without_a_claim_is_not_taken_from_it(host, connection, domain, vpmem, vpmem_json):  # noqa: F811
    """It was there before this ledger, and is shut off: its definition is all that tells whose data that is."""
    host.options["connection_uri"] = URI
    path = host.path("large0")
    with_device = vpmem_json("adopt", domain.UUIDString(), "large0")
    code, definition, _ = vpmem("domain", "xml", domain.UUIDString(), "--type", "test", "--name", domain.name())
    assert (code, len(with_device)) == (0, 1)
    connection.defineXML(definition)
    for file in host.state_path.iterdir():
        file.unlink()
    pattern = fill(path)
    (claimed,) = vpmem_json("claim", new_owner(), "LARGE")
    assert claimed["name"] == "large1"
    code, _, err = vpmem("claim", new_owner(), "LARGE")
    assert code == 4
    assert f"the defined domain {domain.name()}" in err
    assert path.read_bytes() == pattern
    assert vpmem_json("namespace", "show", "large0")["state"] == "unknown"


def test_what_a_running_domain_gets_at_its_next_start_is_not_taken_from_it(host, connection, domain, vpmem, vpmem_json):  # noqa: F811
    host.options["connection_uri"] = URI
    domain.create()
    vpmem_json("domain", "attach", domain.name(), "LARGE", "--connect", URI)
    for file in host.state_path.iterdir():
        file.unlink()
    pattern = fill(host.path("large0"))
    assert vpmem_json("claim", new_owner(), "LARGE")[0]["name"] == "large1"
    code, _, err = vpmem("claim", new_owner(), "LARGE")
    assert code == 4
    assert f"the definition of domain {domain.name()}" in err
    assert host.path("large0").read_bytes() == pattern


def test_a_domain_that_goes_while_it_is_asked_has_nothing(host, connection, domain, vpmem_json):  # noqa: F811
    (attached,) = vpmem_json("domain", "attach", domain.name(), "SMALL", "--connect", URI)
    gone = connection.defineXML(DOMAIN.format(name="gone", uuid=new_owner()))
    gone.undefine()

    class Listed(Domains):
        def _open(self):
            return types.SimpleNamespace(listAllDomains=lambda _flags: [gone, domain], close=lambda: None)

    found = Listed(URI).user_of(attached["device"], defined=True)
    assert found == f"the defined domain {domain.name()}"


def test_a_start_that_libvirt_refuses_was_a_defect_of_the_demo(vpmem, monkeypatch):  # noqa: F811
    def create(self):
        raise libvirt.libvirtError("refused")

    monkeypatch.setattr(libvirt.virDomain, "create", create)
    code, _, err = vpmem("demo")
    assert code == 5
    assert "libvirt (test:///default): refused" in err


class TestRefused:
    def test_a_domain_that_does_not_exist(self, connection, refused):  # noqa: F811
        for command in (("attach", "nobody", "SMALL"), ("detach", "nobody")):
            err = refused(2, "domain", *command, "--connect", URI)
            assert "domain 'nobody': it does not exist on test:///default" in err

    def test_a_domain_without_numa_cells(self, connection, refused):  # noqa: F811
        assert "<cpu><numa><cell" in refused(2, "domain", "attach", "test", "SMALL", "--connect", URI)

    def test_a_domain_that_has_nothing(self, domain, refused):  # noqa: F811
        assert "the ledger records none for it" in refused(4, "domain", "detach", domain.name(), "--connect", URI)
        assert "the ledger records none for it" in refused(4, "domain", "xml", new_owner())

    def test_a_base_that_has_the_device_already(self, domain, vpmem, vpmem_json, refused, tmp_path):  # noqa: F811
        vpmem_json("domain", "attach", domain.name(), "SMALL", "--connect", URI)
        base = tmp_path / "base.xml"
        base.write_text(domain.XMLDesc())
        assert "already" in refused(4, "domain", "xml", domain.UUIDString(), "--base", base)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ('<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/hostname">]><domain>&x;</domain>', "document type"),
            ("<domain", "not XML"),
            ("<network/>", "its root is <network>"),
            ("", "not XML"),
        ],
    )
    def test_a_base_that_is_no_domain(self, vpmem, refused, tmp_path, content, said):  # noqa: F811
        owner = new_owner()
        assert vpmem("claim", owner, "SMALL")[0] == 0
        base = tmp_path / "base.xml"
        base.write_text(content)
        assert said in refused(2, "domain", "xml", owner, "--base", base)

    def test_a_base_that_is_not_there(self, vpmem, refused, tmp_path):  # noqa: F811
        owner = new_owner()
        assert vpmem("claim", owner, "SMALL")[0] == 0
        assert "cannot be read" in refused(2, "domain", "xml", owner, "--base", tmp_path / "none.xml")

    def test_a_definition_that_libvirt_does_not_take_gives_the_claim_back(self, host, domain, vpmem, monkeypatch):  # noqa: F811
        def define(self, connection, domain_xml):
            raise exception.LibvirtError(uri=URI, reason="no", remedy="Try again")

        monkeypatch.setattr(Domains, "define", define)
        code, _, _ = vpmem("domain", "attach", domain.name(), "SMALL", "--connect", URI)
        assert code == 5
        assert {record.owner for record in host.pool().records()} == {None}
