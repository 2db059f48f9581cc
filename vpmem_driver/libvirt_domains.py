"""The domains of a libvirt: which ones use a namespace, and changing the definition of one."""

import concurrent.futures
import contextlib
import functools
import os
import threading
import time
import typing
from collections.abc import Callable, Collection, Generator, Iterator

from vpmem_driver import exception, hostpaths

#: Where a libvirt daemon that serves qemu:///system listens: the monolithic one, and the modular one (libvirt >= 7).
_DAEMON_SOCKETS = ("/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock")
_SYSTEM_URI = "qemu:///system"

#: How long libvirt may take to answer. A daemon that hangs accepts connections and says nothing.
LIMIT_SECONDS = 30.0
#: How long one wait for it may last: a signal that another thread takes does not end a wait, Ctrl-C neither.
_LOOK_SECONDS = 0.5

_T = typing.TypeVar("_T")

#: A domain in words, and what returns its XML.
Dump = tuple[str, Callable[[], str]]


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


class Domains:
    """One libvirt. It is connected to for each question, so that a restarted daemon does no harm."""

    def __init__(self, uri: str | None) -> None:
        """`uri` None: the host's own daemon if there is one, else no domains at all."""
        self._uri = uri
        self._unanswered: threading.Thread | None = None

    @property
    def uri(self) -> str | None:
        """The libvirt that is asked now; None when there is none to ask."""
        if self._uri is not None:
            return self._uri
        return _SYSTEM_URI if any(map(_may_be_there, _DAEMON_SOCKETS)) else None

    def user_of(self, device: str, *, defined: bool = False) -> str | None:
        """Which running domain uses `device`, for whatever it does, in words; None when none does.

        It does when any path in its XML leads to the same device or file, or to a directory that holds it.

        :param defined: ask for those too that have it in their definition only: shut off, or from their next start on
        :raises LibvirtError: libvirt did not answer
        """
        return self._users([device], defined=defined).get(device)

    def users_of(self, devices: Collection[str]) -> dict[str, str]:
        """Which running domains use `devices`, as :meth:`user_of` has it, in one listing of the domains.

        :returns: the domain in words, by device path; a path that none uses is left out
        :raises LibvirtError: libvirt did not answer
        """
        return self._users(devices, defined=False)

    def _users(self, devices: Collection[str], *, defined: bool) -> dict[str, str]:
        if not devices or self.uri is None:
            return {}
        return self._ask(functools.partial(self._search, frozenset(devices), defined=defined))

    def _search(self, devices: frozenset[str], *, defined: bool) -> dict[str, str]:
        wanted = hostpaths.Wanted(devices)
        users: dict[str, str] = {}
        with contextlib.closing(self._dumps(defined=defined)) as dumps:
            for user, read in dumps:
                for path in self._used(user, read):
                    for device in wanted.reached_from(path):
                        users.setdefault(device, user)
                if len(users) == len(devices):
                    break
        return users

    def _used(self, user: str, read: Callable[[], str]) -> list[str]:
        """The paths that a domain uses; none when it is gone since it was listed."""
        from vpmem_driver import guestxml  # noqa: PLC0415  as slow to load as the binding

        libvirt = self._binding()
        try:
            return [source.path for source in guestxml.sources(read())]
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            return []
        except exception.InvalidDomainXML as error:
            raise self._error(f"what {user} uses is not known: {error}", "Fix that domain, or undefine it.") from error

    def _dumps(self, *, defined: bool) -> Generator[Dump, None, None]:
        """Each running domain; with `defined`, every domain, and the definition of each."""
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
        """An open ``libvirt.virConnect``.

        :raises LibvirtError: it cannot be opened
        """
        connection = self._ask(self._open)
        try:
            yield connection
        finally:
            with contextlib.suppress(exception.LibvirtError):  # all that was asked for is done
                self._ask(connection.close)

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
        return list(self._ask(connection.listAllDomains))

    def is_running(self, domain: typing.Any) -> bool:
        """Whether a ``libvirt.virDomain`` runs.

        :raises LibvirtError: libvirt did not answer
        """
        return bool(self._ask(domain.isActive))

    def definition(self, domain: typing.Any) -> str:
        """The XML that `domain` will be started from, secrets included, so that it can be defined again.

        :raises LibvirtError: libvirt did not answer
        """
        libvirt = _libvirt()
        return str(self._ask(lambda: domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)))

    def define(self, connection: typing.Any, domain_xml: str) -> typing.Any:
        """Define a domain, or define it anew.

        :raises LibvirtError: libvirt does not take it
        """
        return self._ask(lambda: connection.defineXMLFlags(domain_xml, _libvirt().VIR_DOMAIN_DEFINE_VALIDATE))

    def _binding(self) -> typing.Any:
        """The module whose ``libvirtError`` is raised here."""
        return _libvirt()

    def _open(self) -> typing.Any:
        libvirt = _libvirt()
        # Without a handler the library writes each error to standard error as well.
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        return libvirt.open(self.uri or _SYSTEM_URI)

    def _ask(self, question: Callable[[], _T]) -> _T:
        """What `question` returns. Another thread asks it, so that this one can stop waiting, also at Ctrl-C.

        :raises LibvirtError: libvirt reports an error, or does not answer within :data:`LIMIT_SECONDS`. Until that
            answer comes, every other question fails at once
        """
        if self._unanswered is not None and self._unanswered.is_alive():
            raise self._silent("an earlier question is not answered yet")
        answer: concurrent.futures.Future[_T] = concurrent.futures.Future()
        asking = threading.Thread(target=self._answer, args=(question, answer), name="libvirt", daemon=True)
        asking.start()
        try:
            deadline = time.monotonic() + LIMIT_SECONDS
            while not answer.done() and time.monotonic() < deadline:
                concurrent.futures.wait([answer], min(_LOOK_SECONDS, LIMIT_SECONDS))
        finally:
            if not answer.done():
                self._unanswered = asking
        if not answer.done():
            raise self._silent(f"there is no answer after {LIMIT_SECONDS:g} seconds")
        return answer.result()

    def _answer(self, question: Callable[[], _T], answer: concurrent.futures.Future[_T]) -> None:
        try:
            with self.errors():
                answer.set_result(question())
        except BaseException as error:  # noqa: BLE001  the thread that asks raises it
            answer.set_exception(error)

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """What libvirt raises inside becomes one of ours.

        :raises LibvirtError: libvirt reported an error
        """
        try:
            yield
        except self._binding().libvirtError as error:
            reason = error.get_error_message() or str(error)
            remedy = "Check that libvirt runs and that this user may use it ('virsh -c URI list')."
            raise self._error(reason, remedy) from error

    def _silent(self, reason: str) -> exception.LibvirtError:
        remedy = (
            "Find out why it hangs, or a filesystem that a domain uses ('virsh list' hangs too), or restart the daemon."
        )
        return self._error(reason, remedy)

    def _error(self, reason: str, remedy: str) -> exception.LibvirtError:
        return exception.LibvirtError(uri=self.uri, reason=reason, remedy=remedy)
