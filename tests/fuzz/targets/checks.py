"""What holds of every result, whatever the input."""

import uuid
from collections.abc import Iterable

from vpmem_driver import ledger, model


def discovered(found: Iterable[model.Namespace]) -> None:
    """What discovery returns can be kept in the ledger and in the table."""
    for namespace in found:
        assert -(1 << 63) <= namespace.size < 1 << 63, f"size {namespace.size}"
        assert -(1 << 63) <= namespace.align < 1 << 63, f"align {namespace.align}"
        assert namespace.numa_node is None or 0 <= namespace.numa_node < 1 << 31, f"node {namespace.numa_node}"
        for text in (namespace.name, namespace.device, namespace.uuid):
            assert text is None or "\0" not in text, f"text {text!r}"
        if namespace.unusable is None:
            assert namespace.uuid and namespace.name and namespace.device, f"usable: {namespace}"
            assert namespace.size > 0 and namespace.align > 0, f"usable: {namespace}"
            assert str(uuid.UUID(namespace.uuid)) == namespace.uuid, f"uuid {namespace.uuid}"


def bad(ranges: Iterable[tuple[int, int]]) -> None:
    """Bad ranges are parts of the device."""
    for start, count in ranges:
        assert start >= 0 and count > 0, f"{count} bytes at {start}"


def recorded(rows: Iterable[ledger.Row]) -> None:
    """What the ledger returns is what it lets in (the CHECKs of its schema)."""
    for row in rows:
        assert row.size > 0, f"size {row.size}"
        assert row.align > 0, f"align {row.align}"
        assert 0 <= row.wiped <= row.size, f"{row.wiped} of {row.size} bytes wiped"
        assert row.state != "claimed" or row.owner is not None, "claimed without an owner"
        assert row.owner is None or row.state in {"claimed", "dirty"}, f"{row.state} with an owner"
        assert (row.owner is None) == (row.position is None), f"owner {row.owner}, position {row.position}"
