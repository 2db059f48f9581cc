"""The domains of a libvirt: which running one uses a namespace, and changing the definition of one."""

import contextlib
import os
import pathlib
import typing
from collections.abc import Iterable, Iterator

from vpmem_driver import exception

#: Where a libvirt daemon that serves qemu:///system listens: the monolithic one, and the modular one (libvirt >= 7).
_DAEMON_SOCKETS = ("/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock")
_SYSTEM_URI = "qemu:///system"


def _libvirt() -> typing.Any:
    """The binding, loaded when first needed: most commands need none."""
    import libvirt  # noqa: PLC0415

    return libvirt


def _may_be_there(path: str) -> bool:
    """Whether there is such a file, as far as this user can tell; in doubt there is."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def same_file(path: str, device: str) -> bool:
    """Whether two paths lead to one file; a path that leads nowhere is told by its text."""
    return path == device or pathlib.Path(path).resolve() == pathlib.Path(device).resolve()


def _has(domain_xml: str, device: str) -> bool:
    from vpmem_driver import guestxml  # noqa: PLC0415  as slow to load as the binding

    return any(same_file(memory.path, device) for memory in guestxml.devices(domain_xml))


def _use(domain: typing.Any, device: str, *, defined: bool) -> str | None:
    """How a domain has `device`, in words; None when it has it not."""
    libvirt = _libvirt()
    try:
        if _has(domain.XMLDesc(), device):
            return f"the {'running' if domain.isActive() else 'defined'} domain {domain.name()}"
        if defined and _has(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), device):
            return f"the definition of domain {domain.name()}"
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        # It is gone since it was listed.
    return None


class Domains:
    """One libvirt. It is connected to for each question, so that a restarted daemon does no harm."""

    def __init__(self, uri: str | None) -> None:
        """`uri` None: the host's own daemon if there is one, else no domains at all."""
        self._uri = uri

    @property
    def uri(self) -> str | None:
        """The libvirt that is asked now; None when there is none to ask."""
        if self._uri is not None:
            return self._uri
        return _SYSTEM_URI if any(map(_may_be_there, _DAEMON_SOCKETS)) else None

    def user_of(self, device: str, *, defined: bool = False) -> str | None:
        """Which running domain has `device` as memory, in words; None when none has.

        :param defined: ask for those too that have it in their definition only: shut off, or from their next start on
        :raises LibvirtError: libvirt did not answer
        """
        if self.uri is None:
            return None
        with self.connection() as connection, self._errors():
            listed = connection.listAllDomains(0 if defined else _libvirt().VIR_CONNECT_LIST_DOMAINS_ACTIVE)
            return next(filter(None, (_use(domain, device, defined=defined) for domain in listed)), None)

    def users_of(self, devices: Iterable[str]) -> dict[str, str]:
        """Which of these device paths a running domain uses, and which domain.

        :raises LibvirtError: libvirt does not answer
        """
        return {device: user for device in devices if (user := self.user_of(device)) is not None}

    @contextlib.contextmanager
    def connection(self) -> Iterator[typing.Any]:
        """An open ``libvirt.virConnect``.

        :raises LibvirtError: it cannot be opened
        """
        libvirt = _libvirt()
        # Without a handler the library writes each error to standard error as well.
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        with self._errors():
            connection = libvirt.open(self.uri or _SYSTEM_URI)
        try:
            yield connection
        finally:
            connection.close()

    def find(self, connection: typing.Any, domain: str) -> typing.Any:
        """The ``libvirt.virDomain`` of that name or uuid.

        :raises InvalidRequest: there is none
        :raises LibvirtError: libvirt did not answer
        """
        for candidate in self.all(connection):
            if domain in {candidate.name(), candidate.UUIDString()}:
                return candidate
        raise exception.InvalidRequest(
            what="domain",
            value=domain,
            reason=f"there is no such domain on {self.uri or _SYSTEM_URI}",
            remedy="'virsh list --all' shows those there are.",
        )

    def all(self, connection: typing.Any) -> list[typing.Any]:
        """Every ``libvirt.virDomain``, running or not.

        :raises LibvirtError: libvirt did not answer
        """
        with self._errors():
            return list(connection.listAllDomains())

    def definition(self, domain: typing.Any) -> str:
        """The XML that `domain` will be started from, secrets included, so that it can be defined again."""
        libvirt = _libvirt()
        with self._errors():
            return str(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE))

    def define(self, connection: typing.Any, domain_xml: str) -> typing.Any:
        """Define a domain, or define it anew.

        :raises LibvirtError: libvirt does not take it
        """
        with self._errors():
            return connection.defineXMLFlags(domain_xml, _libvirt().VIR_DOMAIN_DEFINE_VALIDATE)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except _libvirt().libvirtError as error:
            raise exception.LibvirtError(
                uri=self.uri,
                reason=error.get_error_message() or str(error),
                remedy="Check that libvirt runs and that this user may use it ('virsh -c URI list').",
            ) from error
