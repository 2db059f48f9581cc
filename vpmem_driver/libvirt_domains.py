"""Access to the domains of a libvirt: find those that use a namespace, and change a definition."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import os
import re
import threading
import time
import typing
from collections.abc import Callable, Collection, Generator, Iterator

from vpmem_driver import exception, hostpaths

#: Sockets of the libvirt daemons that serve qemu:///system: the monolithic one, and the modular one (libvirt >= 7).
_DAEMON_SOCKETS = ("/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock")
_SYSTEM_URI = "qemu:///system"

#: Time limit for an answer of libvirt. A daemon that hangs accepts connections and does not answer.
LIMIT_SECONDS = 30.0
#: Time limit for one wait: a signal that another thread receives, also by Ctrl-C, does not end a wait.
_POLL_SECONDS = 0.5

#: What Nova stores in the metadata of its domains (nova/virt/libvirt/config.py, Nova 31-34), and the name in it.
_NOVA_METADATA = "http://openstack.org/xmlns/libvirt/nova/1.1"
_NOVA_NAME = re.compile(r"<(?:\w+:)?name>([^<]+)</")

#: In the domain capabilities since libvirt 8.1 (formatdomaincaps.html).
_MEMORY_BACKING = re.compile(r"<memoryBacking supported='(yes|no)'")

#: The first libvirt that starts a guest with virtio-pmem, and keeps the address of the device (NEWS.rst of 9.4). 9.0
#: fails at its start: "virtio-pmem memory device info is not handled yet".
VIRTIO_PMEM_VERSION = (9, 4, 0)

_T = typing.TypeVar("_T")

#: A description of a domain, and a function that returns its XML.
Dump = tuple[str, Callable[[], str]]


def _libvirt() -> typing.Any:
    """Return the libvirt binding. It is imported on demand, because most commands do not need it."""
    import libvirt  # noqa: PLC0415

    return libvirt


def _version(number: int) -> tuple[int, int, int]:
    """Split a version as libvirt encodes it: 9003001 is 9.3.1."""
    return number // 1_000_000, number // 1000 % 1000, number % 1000


def _may_exist(path: str) -> bool:
    """Return False only if the file certainly does not exist."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


@dataclasses.dataclass(frozen=True, slots=True)
class About:
    """What a libvirt says of itself.

    :ivar kind: its hypervisor: QEMU, Test, …
    :ivar memory_backing: whether its domain capabilities have memory backing; None if they do not say
    """

    libvirt: tuple[int, int, int]
    kind: str
    hypervisor: tuple[int, int, int]
    memory_backing: bool | None


@dataclasses.dataclass(frozen=True, slots=True)
class DomainXML:
    """One domain with its XML.

    :ivar definition: what it has from its next start; of a transient domain, its current XML
    :ivar running: its current XML; None if it is shut off
    """

    uuid: str
    name: str
    definition: str
    running: str | None


class Domains:
    """One libvirt. Each query opens a new connection, so a restart of the daemon does no harm."""

    def __init__(self, uri: str | None) -> None:
        """Without `uri`, use the host's own daemon if it has one; otherwise there are no domains."""
        self._uri = uri
        self._unanswered: threading.Thread | None = None

    @property
    def uri(self) -> str | None:
        """URI of the libvirt to ask now; None if there is none."""
        if self._uri is not None:
            return self._uri
        return _SYSTEM_URI if any(map(_may_exist, _DAEMON_SOCKETS)) else None

    def names(self, uuids: Collection[str], *, limit: float | None = None) -> dict[str, str]:
        """Return the names of the domains with these uuids, running or not; for Nova's instances, their display names.

        The connection is read-only. Two domains with the same display name have their libvirt names instead.

        :param limit: time limit in seconds, instead of :data:`LIMIT_SECONDS`
        :returns: name by uuid, without the uuids that no domain has
        :raises LibvirtError: libvirt did not answer
        """
        if not uuids or self.uri is None:
            return {}
        return self._call(functools.partial(self._names, frozenset(uuids)), limit)

    def _names(self, uuids: frozenset[str]) -> dict[str, str]:
        with contextlib.closing(self._open(read_only=True)) as connection:
            domains = {domain.UUIDString(): domain for domain in connection.listAllDomains()}
            found = {uuid: self._both_names(domains[uuid]) for uuid in uuids if uuid in domains}
        shown = [display for display, _ in found.values()]
        return {uuid: display if shown.count(display) == 1 else name for uuid, (display, name) in found.items()}

    def _both_names(self, domain: typing.Any) -> tuple[str, str]:
        """Return the display name that Nova gave a domain, or its libvirt name, and its libvirt name."""
        libvirt = self._binding()
        name = str(domain.name())
        try:
            metadata = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, _NOVA_METADATA)
        except libvirt.libvirtError:
            return name, name  # it has no such metadata, or has just been removed
        import html  # noqa: PLC0415  slow to import, and rarely needed

        match = _NOVA_NAME.search(metadata)
        return (html.unescape(match[1]) if match else name), name

    def domain_xml(self) -> list[DomainXML]:
        """Return every domain with its XML, without secrets; none if there is no libvirt. The connection is read-only.

        :raises LibvirtError: libvirt did not answer
        """
        return [] if self.uri is None else self._call(self._domain_xml)

    def _domain_xml(self) -> list[DomainXML]:
        libvirt = self._binding()
        found = []
        with contextlib.closing(self._open(read_only=True)) as connection:
            for domain in connection.listAllDomains():
                try:
                    running = domain.XMLDesc() if domain.isActive() else None
                    definition = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
                    found.append(DomainXML(domain.UUIDString(), domain.name(), definition, running))
                except libvirt.libvirtError as error:
                    if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                        raise
        return found

    def about(self, *, limit: float | None = None) -> About:
        """Return the versions and the domain capabilities of libvirt. The connection is read-only.

        :param limit: time limit in seconds, instead of :data:`LIMIT_SECONDS`
        :raises LibvirtError: libvirt did not answer
        """
        return self._call(self._about, limit)

    def _about(self) -> About:
        libvirt = self._binding()
        with contextlib.closing(self._open(read_only=True)) as connection:
            try:
                match = _MEMORY_BACKING.search(connection.getDomainCapabilities())
            except libvirt.libvirtError:  # the hypervisor has no such call
                match = None
            return About(
                libvirt=_version(connection.getLibVersion()),
                kind=connection.getType(),
                hypervisor=_version(connection.getVersion()),
                memory_backing=None if match is None else match[1] == "yes",
            )

    def starts_virtio_pmem(self) -> bool:
        """Return whether guests with virtio-pmem can start. Without a libvirt, its version is no reason against it.

        :raises LibvirtError: libvirt did not answer
        """
        if self.uri is None:
            return True
        about = self.about()
        return about.kind != "QEMU" or about.libvirt >= VIRTIO_PMEM_VERSION

    def user_of(self, device: str, *, defined: bool = False) -> str | None:
        """Describe the running domain that uses `device` for any purpose; None if no domain does.

        A domain uses a device if any path in its XML leads to the same device or file, or to a directory that contains
        it.

        :param defined: include domains that have it only in their definition: shut off, or from their next start
        :raises LibvirtError: libvirt did not answer
        """
        return self._users([device], defined=defined).get(device)

    def users_of(self, devices: Collection[str]) -> dict[str, str]:
        """Like :meth:`user_of` for several devices, with one listing of the domains.

        :returns: description of the domain by device path, without the unused paths
        :raises LibvirtError: libvirt did not answer
        """
        return self._users(devices, defined=False)

    def _users(self, devices: Collection[str], *, defined: bool) -> dict[str, str]:
        if not devices or self.uri is None:
            return {}
        return self._call(functools.partial(self._search, frozenset(devices), defined=defined))

    def _search(self, devices: frozenset[str], *, defined: bool) -> dict[str, str]:
        wanted = hostpaths.Wanted(devices)
        users: dict[str, str] = {}
        with contextlib.closing(self._dumps(defined=defined)) as dumps:
            for user, read in dumps:
                for path in self._paths(user, read):
                    for device in wanted.reached_from(path):
                        users.setdefault(device, user)
                if len(users) == len(devices):
                    break
        return users

    def _paths(self, user: str, read: Callable[[], str]) -> list[str]:
        """Return the paths that a domain uses, or none if the domain no longer exists."""
        from vpmem_driver import guestxml  # noqa: PLC0415  slow to import, and not always needed

        libvirt = self._binding()
        try:
            return [source.path for source in guestxml.sources(read())]
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            return []
        except exception.InvalidDomainXML as error:
            raise self._error(f"cannot read the XML of {user}: {error}", "Fix that domain, or undefine it") from error

    def _dumps(self, *, defined: bool) -> Generator[Dump, None, None]:
        """Yield each running domain; with `defined`, every domain and the definition of each."""
        libvirt = self._binding()
        with contextlib.closing(self._open()) as connection:
            for domain in connection.listAllDomains(0 if defined else libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
                name, is_running = domain.name(), domain.ID() >= 0
                yield f"the {'running' if is_running else 'defined'} domain {name}", domain.XMLDesc
                if defined:
                    definition = functools.partial(domain.XMLDesc, libvirt.VIR_DOMAIN_XML_INACTIVE)
                    yield f"the definition of domain {name}", definition

    @contextlib.contextmanager
    def connection(self) -> Iterator[typing.Any]:
        """Open a ``libvirt.virConnect``.

        :raises LibvirtError: it cannot be opened
        """
        connection = self._call(self._open)
        try:
            yield connection
        finally:
            with contextlib.suppress(exception.LibvirtError):  # the work is done
                self._call(connection.close)

    def find(self, connection: typing.Any, domain: str) -> typing.Any:
        """Return the ``libvirt.virDomain`` with that name or uuid.

        :raises InvalidRequest: it does not exist
        :raises LibvirtError: libvirt did not answer
        """
        for candidate in self.all(connection):
            if domain in {candidate.name(), candidate.UUIDString()}:
                return candidate
        raise exception.InvalidRequest(
            what="domain",
            value=domain,
            reason=f"it does not exist on {self.uri or _SYSTEM_URI}",
            remedy="'virsh list --all' lists the domains",
        )

    def lookup(self, connection: typing.Any, uuid: str) -> typing.Any | None:
        """Return the ``libvirt.virDomain`` with that uuid; None if there is none.

        :raises LibvirtError: libvirt did not answer
        """
        return next((domain for domain in self.all(connection) if domain.UUIDString() == uuid), None)

    def all(self, connection: typing.Any) -> list[typing.Any]:
        """Return every ``libvirt.virDomain``, running or not.

        :raises LibvirtError: libvirt did not answer
        """
        return list(self._call(connection.listAllDomains))

    def is_running(self, domain: typing.Any) -> bool:
        """Return whether a ``libvirt.virDomain`` is running.

        :raises LibvirtError: libvirt did not answer
        """
        return bool(self._call(domain.isActive))

    def definition(self, domain: typing.Any) -> str:
        """Return the persistent XML of `domain`, including secrets, so that it can be defined again.

        :raises LibvirtError: libvirt did not answer
        """
        libvirt = _libvirt()
        return str(self._call(lambda: domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)))

    def define(self, connection: typing.Any, domain_xml: str) -> typing.Any:
        """Define a domain, or replace its definition.

        :raises LibvirtError: libvirt refuses it
        """
        return self._call(lambda: connection.defineXMLFlags(domain_xml, _libvirt().VIR_DOMAIN_DEFINE_VALIDATE))

    def running(self, domain: typing.Any) -> str:
        """Return the XML of a running `domain`.

        :raises LibvirtError: libvirt did not answer
        """
        return str(self._call(domain.XMLDesc))

    def attach(self, domain: typing.Any, device_xml: str) -> None:
        """Add a device to a running `domain` and to its definition: to both, or to none.

        :raises LibvirtError: libvirt or QEMU refuses it
        """
        libvirt = _libvirt()
        flags = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG
        self._call(lambda: domain.attachDeviceFlags(device_xml, flags))

    def undefine(self, domain: typing.Any) -> None:
        """Remove the definition of `domain`, and keep its nvram and the state of its TPM.

        :raises LibvirtError: libvirt refuses it
        """
        libvirt, definition = _libvirt(), self.definition(domain)
        flags = 0  # not every driver knows them
        if "<nvram" in definition:
            flags |= libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
        if "<tpm" in definition:
            flags |= getattr(libvirt, "VIR_DOMAIN_UNDEFINE_KEEP_TPM", 0)  # libvirt 8.9
        self._call(lambda: domain.undefineFlags(flags))

    def leftovers(self, domain: typing.Any) -> str | None:
        """Describe what `domain` has on this host beside its definition, and would lose: a saved state, snapshots.

        :raises LibvirtError: libvirt did not answer
        """
        if self._call(domain.hasManagedSaveImage):
            return "it has a saved state"
        if self._call(domain.snapshotNum):
            return "it has snapshots"
        return None

    def copy_autostart(self, domain: typing.Any, other: typing.Any) -> None:
        """Give `other` the autostart setting of `domain`.

        :raises LibvirtError: libvirt did not answer
        """
        self._call(lambda: other.setAutostart(domain.autostart()))

    def _binding(self) -> typing.Any:
        """Return the module whose ``libvirtError`` is raised here."""
        return _libvirt()

    def _open(self, *, read_only: bool = False) -> typing.Any:
        libvirt = _libvirt()
        # Without this handler the library also writes each error to standard error.
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        uri = self.uri or _SYSTEM_URI
        return libvirt.openReadOnly(uri) if read_only else libvirt.open(uri)

    def _call(self, function: Callable[[], _T], limit: float | None = None) -> _T:
        """Call `function` in another thread, so that this thread can stop waiting, also by Ctrl-C.

        :param limit: seconds, instead of :data:`LIMIT_SECONDS`
        :raises LibvirtError: libvirt reports an error, or does not answer within the limit. Until that answer arrives,
            every other call fails at once
        """
        limit = LIMIT_SECONDS if limit is None else limit
        if self._unanswered is not None and self._unanswered.is_alive():
            raise self._timeout_error("it has not answered an earlier call yet")
        answer: concurrent.futures.Future[_T] = concurrent.futures.Future()
        thread = threading.Thread(target=self._answer, args=(function, answer), name="libvirt", daemon=True)
        thread.start()
        try:
            deadline = time.monotonic() + limit
            while not answer.done() and time.monotonic() < deadline:
                concurrent.futures.wait([answer], min(_POLL_SECONDS, limit))
        finally:
            if not answer.done():
                self._unanswered = thread
        if not answer.done():
            raise self._timeout_error(f"no answer after {limit:g} seconds")
        return answer.result()

    def _answer(self, function: Callable[[], _T], answer: concurrent.futures.Future[_T]) -> None:
        try:
            with self.errors():
                answer.set_result(function())
        except BaseException as error:  # noqa: BLE001  the calling thread raises it
            answer.set_exception(error)

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Convert libvirt's errors into :class:`~vpmem_driver.exception.LibvirtError`.

        :raises LibvirtError: libvirt reported an error
        """
        try:
            yield
        except self._binding().libvirtError as error:
            reason = error.get_error_message() or str(error)
            remedy = "Check that libvirt is running and that this user may use it ('virsh -c URI list')"
            raise self._error(reason, remedy) from error

    def _timeout_error(self, reason: str) -> exception.LibvirtError:
        return self._error(
            reason,
            "Check the daemon, and the filesystems that domains use: does 'virsh list' hang too? Restart the daemon if "
            "necessary",
            is_timeout=True,
        )

    def _error(self, reason: str, remedy: str, *, is_timeout: bool = False) -> exception.LibvirtError:
        return exception.LibvirtError(uri=self.uri, reason=reason, remedy=remedy, is_timeout=is_timeout)
