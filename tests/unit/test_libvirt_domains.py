"""Which libvirt is asked when none is configured, and what becomes of one that does not answer."""

import contextlib
import pathlib
import signal
import socket
import sys
import threading
import time
import traceback

import libvirt
import pytest

from vpmem_driver import exception, libvirt_domains

DEADLINE_SECONDS = 30


@pytest.mark.parametrize(("kind", "uri"), [("absent", None), ("there", "qemu:///system"), ("hidden", "qemu:///system")])
def test_the_hosts_own_daemon_is_asked_unless_there_is_surely_none(tmp_path, monkeypatch, kind, uri):
    path = tmp_path / "libvirt-sock"
    if kind == "there":
        path.touch()
    elif kind == "hidden":
        path.symlink_to(path)  # cannot be inspected, root or not
    monkeypatch.setattr(libvirt_domains, "_DAEMON_SOCKETS", (str(path),))
    assert libvirt_domains.Domains(None).uri == uri


def test_where_there_is_no_libvirt_nobody_uses_anything(monkeypatch):
    monkeypatch.setattr(libvirt_domains, "_DAEMON_SOCKETS", ())
    assert libvirt_domains.Domains(None).users_of(["/dev/dax0.0"]) == {}
    assert libvirt_domains.Domains(None).user_of("/dev/dax0.0", defined=True) is None


@pytest.fixture
def silent(tmp_path):
    """A libvirt that accepts every connection and says nothing; `accepted` is set at the first."""
    path, accepted, ended = tmp_path / "silent-sock", threading.Event(), threading.Event()
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as connections:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(0.1)

        def accept():
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    connections.enter_context(listener.accept()[0])
                    accepted.set()

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"qemu:///system?socket={path}", accepted
        ended.set()
        thread.join()
    # Now that it has closed them, the threads that have asked end.
    for asking in threading.enumerate():
        if asking.name == "libvirt":
            asking.join(DEADLINE_SECONDS)


def is_waiting(thread):
    """Whether it sleeps, and not in starting another one."""
    names = {frame.name for frame in traceback.extract_stack(sys._current_frames()[thread.ident])}
    status = pathlib.Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
    return "start" not in names and status.rpartition(")")[2].split()[0] == "S"


class TestALibvirtThatAcceptsAndSaysNothing:
    def test_it_stopped_a_question_for_ever(self, silent, monkeypatch):
        uri, accepted = silent
        monkeypatch.setattr(libvirt_domains, "LIMIT_SECONDS", 0.5)
        asked = libvirt_domains.Domains(uri)
        with pytest.raises(exception.LibvirtError, match=r"no answer after 0\.5 seconds") as raised:
            asked.user_of("/dev/dax0.0")
        assert uri in str(raised.value)
        assert raised.value.is_timeout
        assert accepted.is_set()

    def test_the_next_question_fails_at_once(self, silent, monkeypatch):
        """One wipe after the other would wait as long, and leave a thread behind."""
        uri, _ = silent
        monkeypatch.setattr(libvirt_domains, "LIMIT_SECONDS", 0.5)
        asked = libvirt_domains.Domains(uri)
        with pytest.raises(exception.LibvirtError):
            asked.users_of(["/dev/dax0.0"])
        monkeypatch.setattr(libvirt_domains, "LIMIT_SECONDS", 600)
        with pytest.raises(exception.LibvirtError, match="it has not answered an earlier call yet"):
            asked.users_of(["/dev/dax0.0"])
        with pytest.raises(exception.LibvirtError, match="it has not answered an earlier call yet"), asked.connection():
            pass

    def test_when_it_answers_again_it_is_asked_again(self, monkeypatch):
        monkeypatch.setattr(libvirt_domains, "LIMIT_SECONDS", 0.1)
        asked, answers = libvirt_domains.Domains("test:///default"), threading.Event()
        with pytest.raises(exception.LibvirtError):
            asked._call(answers.wait)
        answers.set()
        asked._unanswered.join(DEADLINE_SECONDS)
        monkeypatch.setattr(libvirt_domains, "LIMIT_SECONDS", DEADLINE_SECONDS)
        assert asked.users_of(["/dev/dax0.0"]) == {}

    def test_ctrl_c_was_lost_when_another_thread_took_the_signal(self, monkeypatch):
        """Or when it came just before the wait: then nothing ends a wait for a lock."""
        monkeypatch.setattr(libvirt_domains, "LIMIT_SECONDS", DEADLINE_SECONDS)
        answers, started = threading.Event(), time.monotonic()

        def question():
            while not is_waiting(threading.main_thread()):
                time.sleep(0.01)
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            answers.wait()

        asked = libvirt_domains.Domains("test:///default")
        with pytest.raises(KeyboardInterrupt):
            asked._call(question)
        assert time.monotonic() - started < DEADLINE_SECONDS / 2
        answers.set()
        asked._unanswered.join(DEADLINE_SECONDS)


class TestErrors:
    def test_the_xml_of_a_domain_that_cannot_be_read(self, monkeypatch):
        """In doubt it uses everything: the error is one of the host's, for which nothing is wiped."""
        asked = libvirt_domains.Domains("test:///default")
        monkeypatch.setattr(asked, "_dumps", lambda *, defined: (dump for dump in [("the domain x", lambda: "<dom")]))
        with pytest.raises(exception.LibvirtError, match="cannot read the XML of the domain x"):
            asked.user_of("/dev/dax0.0")

    def test_what_libvirt_says(self, monkeypatch):
        def read():
            raise libvirt.libvirtError("broken")

        asked = libvirt_domains.Domains("test:///default")
        monkeypatch.setattr(asked, "_dumps", lambda *, defined: (dump for dump in [("the domain x", read)]))
        with pytest.raises(exception.LibvirtError, match="broken"):
            asked.user_of("/dev/dax0.0")


@pytest.mark.parametrize(
    ("definition", "names"),
    [
        ("<domain/>", []),
        ("<domain><os><nvram>/x</nvram></os></domain>", ["KEEP_NVRAM"]),
        ("<domain><os><nvram template='/t'/></os><devices><tpm/></devices></domain>", ["KEEP_NVRAM", "KEEP_TPM"]),
    ],
)
def test_a_domain_that_is_undefined_keeps_what_its_next_host_needs(definition, names):
    """The flags are only given where they are needed: not every driver knows them."""
    flags = []

    class Domain:
        def XMLDesc(self, _flags):  # noqa: N802  libvirt's
            return definition

        def undefineFlags(self, given):  # noqa: N802  libvirt's
            flags.append(given)

    libvirt_domains.Domains("test:///default").undefine(Domain())
    assert flags == [sum(getattr(libvirt, f"VIR_DOMAIN_UNDEFINE_{name}", 0) for name in names)]
