"""Checks of the table of namespaces, each time the ledger is opened. All decisions depend on this table.

SQLite has no checksums. A changed byte is detected if it breaks the structure of the file or a constraint of the table
(:data:`STRUCTURE`), or if the table and the newest history line of a namespace, which are on different pages, disagree
(:data:`CONTENT`). Any other change of a name, a size or a reason remains undetected; discovery and the next wipe do not
rely on these.

The rest of the history is checked when it is read: no decision depends on it, and it can be large. Measured with
4096 namespaces and 10^6 history lines: STRUCTURE 7 ms, CONTENT 7 ms, a quick_check of the whole file 170 ms.
"""

#: Checks pages, rows, indexes and constraints of the table. Returns one row 'ok', or the faults.
STRUCTURE = "PRAGMA integrity_check(namespace)"
NO_FAULT = [("ok",)]

_UUID = "-".join("[0-9a-f]" * digits for digits in (8, 4, 4, 4, 12))

#: The positions of one owner's devices count from 0. A larger one is damage, and the next position would overflow.
_MAX_POSITION = (1 << 31) - 1

#: Each change of a namespace writes its state and its new owner, if any, to the history line `changed`.
CONTENT = f"""
    SELECT printf('the record of namespace %s (%s) is damaged: %s', namespace.name, namespace.uuid, CASE
        WHEN namespace.uuid NOT GLOB '{_UUID}' THEN 'its uuid is malformed'
        WHEN namespace.owner NOT GLOB '{_UUID}' THEN 'its owner is not a uuid'
        WHEN namespace.last_owner NOT GLOB '{_UUID}' THEN 'its last owner is not a uuid'
        WHEN namespace.position NOT BETWEEN 0 AND {_MAX_POSITION} THEN 'its position is impossible'
        ELSE 'its newest history line names another namespace, state or owner'
    END)
    FROM namespace LEFT JOIN history ON history.id = namespace.changed
    WHERE namespace.uuid NOT GLOB '{_UUID}' OR namespace.owner NOT GLOB '{_UUID}'
        OR namespace.last_owner NOT GLOB '{_UUID}'
        OR namespace.position NOT BETWEEN 0 AND {_MAX_POSITION}
        OR history.uuid IS NOT namespace.uuid OR history.to_state IS NOT namespace.state
        OR namespace.owner IS NOT NULL AND history.owner IS NOT namespace.owner
    LIMIT 1
"""  # noqa: S608  only constants
