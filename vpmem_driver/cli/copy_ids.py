"""Ids of the copies that commands make. A command resumes only its own copy: the same purpose, in the same words."""

import hashlib
import secrets
from collections.abc import Iterable

from vpmem_driver import exception
from vpmem_driver.pool import Row


def new_id(purpose: str) -> str:
    """Return the id of a new copy."""
    return f"{secrets.token_hex(8)}-{_mark(purpose)}"


def is_for(copy: str, purpose: str) -> bool:
    """Whether the id was made for this purpose."""
    return copy.endswith(f"-{_mark(purpose)}")


def find(domain: str, rows: Iterable[Row], purpose: str) -> str | None:
    """Return the id of the interrupted copy for this purpose that takes `rows` away; None if nothing departs.

    :raises DomainRefused: another copy takes them away
    """
    departures = {row.departure for row in rows} - {None}
    for departure in departures:
        if departure is not None and not is_for(departure, purpose):
            raise exception.DomainRefused(
                domain=domain,
                reason=f"another copy ({departure}) of its content was begun, and is not complete",
                remedy="Complete or cancel that one first: run its command again, with the same destination",
            )
    return next(iter(departures), None)


def _mark(purpose: str) -> str:
    return hashlib.sha256(purpose.encode()).hexdigest()[:16]
