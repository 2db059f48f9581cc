"""What a domain uses is not taken from it, whatever it uses it for and whatever it calls it."""

import contextlib
import functools
import pathlib
import signal
import socket
import subprocess
import threading

import pytest

from tests.functional.conftest import fill, is_zero, new_owner
from tests.functional.test_cli import vpmem, vpmem_json  # noqa: F401  fixtures
from tests.functional.test_cli_domains import DOMAIN, URI, connection  # noqa: F401  fixtures
from tests.unit.files import MAP, another_process
from tests.unit.test_hostpaths import as_root, bind  # noqa: F401  fixtures
from vpmem_driver import exception, interpreter, libvirt_domains
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.model import State

_MEMORY = (
    "<memory model='{model}' access='shared'><source><path>{path}</path></source><target>{target}</target></memory>"
)
_SIZE = "<size unit='MiB'>8</size>"

_BACKED = (
    "<disk type='network'><driver name='qemu' type='qcow2'/><source protocol='nbd' name='x'><host name='h'/></source>"
    "<backingStore type='file'><format type='raw'/><source file='{path}'/></backingStore>"
    "<target dev='vda' bus='virtio'/></disk>"
)

#: How a domain can use a namespace at `path`, which is in `directory`.
DEVICES = {
    "nvdimm": _MEMORY.format(model="nvdimm", path="{path}", target=f"{_SIZE}<node>0</node>"),
    "virtio-pmem": _MEMORY.format(model="virtio-pmem", path="{path}", target=_SIZE),
    "a file as disk": "<disk type='file'><source file='{path}'/><target dev='vda' bus='virtio'/></disk>",
    "a device as disk": "<disk type='block'><source dev='{path}'/><target dev='vda' bus='virtio'/></disk>",
    "below a disk": _BACKED,
    "a shared directory": "<filesystem type='mount'><source dir='{directory}'/><target dir='shared'/></filesystem>",
    "a serial port": "<serial type='file'><source path='{path}'/><target port='0'/></serial>",
}


def xml(owner, device, path):
    text = DOMAIN.format(name=f"db-{owner[:4]}", uuid=owner)
    total = f"<maxMemory slots='2' unit='MiB'>{128}</maxMemory>"
    memory = 72 if "<memory model" in device else 64
    text = text.replace("<memory unit='MiB'>64</memory>", f"{total}<memory unit='MiB'>{memory}</memory>", 1)
    devices = device.format(path=path, directory=pathlib.Path(path).parent)
    return text.replace("</domain>", f"<devices>{devices}</devices></domain>")


@pytest.fixture
def new_domain(connection):  # noqa: F811
    return lambda device, path: connection.defineXML(xml(new_owner(), DEVICES[device], path))


def assert_left_alone(host, domain, vpmem, vpmem_json):  # noqa: F811
    """large0, which is unknown: a claim takes the other one, and the next one fails."""
    host.options["connection_uri"] = URI
    pattern = fill(host.path("large0"))
    assert vpmem_json("claim", new_owner(), "LARGE")[0]["name"] == "large1"
    code, _, err = vpmem("claim", new_owner(), "LARGE")
    assert code == 4
    assert f"the defined domain {domain.name()}" in err
    assert host.path("large0").read_bytes() == pattern
    assert vpmem_json("namespace", "show", "large0")["state"] == "unknown"


@pytest.mark.parametrize("device", DEVICES)
def test_an_unknown_namespace_of_a_defined_domain_was_wiped(host, new_domain, vpmem, vpmem_json, device):  # noqa: F811
    assert_left_alone(host, new_domain(device, host.path("large0")), vpmem, vpmem_json)


@as_root
@pytest.mark.parametrize("device", DEVICES)
def test_an_unknown_namespace_by_a_bind_mount_was_wiped(host, new_domain, vpmem, vpmem_json, bind, tmp_path, device):  # noqa: F811
    mounted = bind(host.path("large0").parent, tmp_path / "elsewhere")
    assert_left_alone(host, new_domain(device, mounted / "large0"), vpmem, vpmem_json)


@pytest.mark.parametrize("device", DEVICES)
def test_users_of_many_namespaces_in_one_listing(host, new_domain, device):
    domain = new_domain(device, host.path("large0"))
    paths = [str(path) for path in host.directory.rglob("*") if path.is_file()]
    assert Domains(URI).users_of(paths) == {}, "it is shut off"
    domain.create()
    in_its_directory = device == "a shared directory"
    used = [path for path in paths if path.endswith("large0") or (in_its_directory and "node0" in path)]
    assert Domains(URI).users_of(paths) == dict.fromkeys(used, f"the running domain {domain.name()}")
    assert len(used) == (3 if in_its_directory else 1)


def test_users_of_no_namespace_asks_nobody():
    assert Domains("nosuch:///system").users_of([]) == {}


def test_the_xml_of_each_domain_is_read_once(host, new_domain, monkeypatch):
    read = []
    for device in ("nvdimm", "a file as disk"):
        domain = new_domain(device, host.path(f"small{len(read)}"))
        domain.create()
        read.append(domain.name())
    dumps = Domains._dumps
    counted = []

    def counting(self, *, defined):
        for user, xml in dumps(self, defined=defined):
            yield user, lambda user=user, xml=xml: counted.append(user) or xml()

    monkeypatch.setattr(Domains, "_dumps", counting)
    paths = [str(path) for path in host.directory.rglob("*") if path.is_file()]
    assert len(Domains(URI).users_of(paths)) == 2
    names = ["test", *read]  # the test driver's own domain runs
    assert sorted(counted) == sorted(f"the running domain {name}" for name in names)


def test_a_domain_with_a_loop_of_links_raised(host, new_domain, vpmem, vpmem_json, tmp_path):  # noqa: F811
    """It has nothing of this host, and must not stop anything here."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    host.options["connection_uri"] = URI
    new_domain("nvdimm", loop)
    assert vpmem_json("claim", new_owner(), "LARGE")[0]["name"] == "large0"


@pytest.fixture
def silent(host, tmp_path):
    """A libvirt that accepts connections and says nothing."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "sock"))
        listener.listen()
        listener.settimeout(30)
        host.options["connection_uri"] = f"qemu:///system?socket={tmp_path}/sock"
        yield listener


def assert_untouched(host, before):
    assert host.path("large0").read_bytes() == before
    assert {(record.state, record.owner) for record in host.pool().records()} == {("unknown", None)}


def test_a_claim_waited_for_ever_for_a_libvirt_that_hangs(host, silent, vpmem, monkeypatch):  # noqa: F811
    monkeypatch.setattr("vpmem_driver.libvirt_domains.LIMIT_SECONDS", 0.5)
    before = host.path("large0").read_bytes()
    code, _, err = vpmem("claim", new_owner(), "LARGE")
    assert code == 5
    assert "no answer after 0.5 seconds" in err or "not answered an earlier call yet" in err
    assert_untouched(host, before)


def test_ctrl_c_did_not_end_a_claim_while_libvirt_hangs(host, silent):
    before = host.path("large0").read_bytes()
    words = ("--config-file", str(host.config_file()), "claim", new_owner(), "LARGE")
    with subprocess.Popen(
        interpreter.command("vpmem_driver.cli.main", *words), env=interpreter.environment(), stderr=subprocess.PIPE
    ) as process:
        connection, _ = silent.accept()
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=libvirt_domains.LIMIT_SECONDS / 2)
        finally:
            process.kill()
            connection.close()
    assert process.returncode == 130
    assert_untouched(host, before)


def test_the_next_owner_shared_a_namespace_with_who_came_during_its_wipe(host):
    """Now the claim is refused, and the next wipe begins at the first byte."""
    host.options["wipe_rate"] = 2  # two seconds for each pass over 4 MiB
    host.pmem_namespaces = ["SMALL:small0"]
    pool = host.pool()
    with contextlib.ExitStack() as users:
        come = functools.cache(lambda: users.enter_context(another_process(MAP, host.path("small0"))))
        with pytest.raises(exception.NamespaceInUse, match="in use by process"):
            pool.claim(new_owner(), ["SMALL"], on_progress=lambda _progress: come())
        (row,) = (row for row in pool.rows() if row.name == "small0")
        assert (row.state, row.owner, row.wiped) == (State.DIRTY, None, 0)
    host.options["wipe_rate"] = 0
    (grant,) = host.pool().claim(new_owner(), ["SMALL"])
    assert is_zero(host.path(grant.name))


def test_what_somebody_wrote_after_an_interrupted_wipe_was_taken_for_bad_media(host):
    """The namespace was quarantined. Now its wipe begins again at the first byte."""
    host.options["wipe_rate"] = 4
    host.pmem_namespaces = ["SMALL:small0"]
    pool, stop = host.pool(), threading.Event()
    uuid = pool.find("small0")
    owner = new_owner()
    pool.adopt(owner, [uuid])
    pool.release(owner)
    pool.wipe(stop=stop, on_progress=lambda _progress: stop.set())
    (row,) = (row for row in pool.rows() if row.uuid == uuid)
    assert (row.state, row.wiped > 0) == (State.DIRTY, True)
    with host.path("small0").open("r+b") as file:
        file.write(b"x")
    host.options["wipe_rate"] = 0
    (grant,) = host.pool().claim(new_owner(), ["SMALL"])
    assert is_zero(host.path(grant.name))
