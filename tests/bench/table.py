"""All rows, in the order of the table."""

from bench import (
    claim,
    copying,
    destroying,
    discovering,
    domains,
    durable,
    handout,
    history,
    importing,
    opening,
    planning,
    sizes,
    wiping,
)
from bench.rows import Row

ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        claim.ROW,
        claim.TABLE_ROW,
        claim.NUMA_ROW,
        history.ROW,
        handout.ROW,
        handout.CLAIM_ROW,
        discovering.ROW,
        discovering.SYSFS_ROW,
        opening.ROW,
        domains.ROW,
        durable.ROW,
        wiping.ROW,
        wiping.VERIFY_ROW,
        wiping.DEVICE_ROW,
        copying.ROW,
        copying.EMPTY_ROW,
        copying.STREAM_ROW,
        copying.SSH_ROW,
        destroying.ROW,
        importing.ROW,
        planning.ROW,
        sizes.ROW,
    )
}
