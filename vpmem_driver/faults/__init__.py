"""Faults with stable ids: what each means, and what to do. ``vpmem explain`` and doc/faults.md show them.

``VPMEM-E…`` are errors (:mod:`vpmem_driver.exception`), ``VPMEM-N…`` namespaces that need a person, ``VPMEM-C…`` faults
of the host that ``vpmem host check`` finds. An id is never used again for something else.
"""

from vpmem_driver.faults import checks, errors, namespaces
from vpmem_driver.faults.fault import Fault

__all__ = ["ALL", "Fault", "find"]

ALL = (*errors.FAULTS, *namespaces.FAULTS, *checks.FAULTS)

_PREFIX = "VPMEM-"


def find(text: str) -> Fault | None:
    """Return the fault with that id, in upper or lower case, with or without ``VPMEM-``; None if there is none."""
    wanted = text.strip().upper()
    return next((fault for fault in ALL if wanted in {fault.id, fault.id.removeprefix(_PREFIX)}), None)
