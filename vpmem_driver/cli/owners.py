"""Owners as people read them: the name of the domain where libvirt knows it, otherwise a uuid."""

import logging
from collections.abc import Collection

from vpmem_driver import exception
from vpmem_driver.libvirt_domains import Domains

LOG = logging.getLogger(__name__)

#: A listing waits no longer for libvirt, which only has to list its domains.
LIMIT_SECONDS = 2.0

#: Digits of a shortened uuid: its first block.
_DIGITS = 8


class Owners:
    """The names of some owners."""

    def __init__(self, uuids: Collection[str], domains: Domains) -> None:
        """Ask libvirt for the names. A libvirt that does not answer is a warning."""
        self._uuids = frozenset(uuids)
        self._names: dict[str, str] = {}
        try:
            self._names = domains.names(self._uuids, limit=LIMIT_SECONDS)
        except exception.LibvirtError as error:
            LOG.warning("Owners are shown by uuid. %s", error)

    def short(self, uuid: str | None) -> str:
        """Return the name of an owner, or its uuid: shortened if no other owner has the same first digits."""
        if uuid is None:
            return ""
        if uuid in self._names:
            return exception.printable(self._names[uuid])
        same = [other for other in self._uuids if other[:_DIGITS] == uuid[:_DIGITS]]
        return uuid if len(same) > 1 else uuid[:_DIGITS]

    def full(self, uuid: str | None) -> str:
        """Return the uuid of an owner, with its name if it is known."""
        if uuid is None:
            return ""
        return f"{exception.printable(self._names[uuid])} ({uuid})" if uuid in self._names else uuid
