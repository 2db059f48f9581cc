"""What is checked in a ledger each time it is opened: the table of namespaces, on which everything is decided.

SQLite has no checksums. A changed byte shows where it breaks the structure of the file or a constraint of the table
(:data:`STRUCTURE`), or where the table and the newest history line of a namespace, which are on different pages,
disagree (:data:`CONTENT`). Any other change of a name, a size or a reason remains unseen; discovery and the next wipe
take neither for granted.

The rest of the history is checked as it is read: nothing is decided on it, and it grows without limit. Measured with
4096 namespaces and 10^6 history lines: STRUCTURE 7 ms, CONTENT 7 ms, a quick_check of the whole file 170 ms.
"""

#: The pages, rows, indexes and constraints of the table. It returns a row of 'ok', or else faults.
STRUCTURE = "PRAGMA integrity_check(namespace)"
NO_FAULT = [("ok",)]

_UUID = "-".join("[0-9a-f]" * digits for digits in (8, 4, 4, 4, 12))

#: The places of one owner's devices are counted from 0. A larger one is damage, and the next one after it overflows.
_MOST_POSITION = (1 << 31) - 1

#: Whoever moves a namespace writes its state and its new owner, if it has one, to the history line `changed`.
CONTENT = f"""
    SELECT printf('the record of namespace %s (%s) cannot be right: %s', namespace.name, namespace.uuid, CASE
        WHEN namespace.uuid NOT GLOB '{_UUID}' THEN 'its uuid is none'
        WHEN namespace.owner NOT GLOB '{_UUID}' THEN 'its owner is no uuid'
        WHEN namespace.last_owner NOT GLOB '{_UUID}' THEN 'its last owner is no uuid'
        WHEN namespace.position NOT BETWEEN 0 AND {_MOST_POSITION} THEN 'its position is impossible'
        ELSE 'its newest history line is of another namespace, state or owner'
    END)
    FROM namespace LEFT JOIN history ON history.id = namespace.changed
    WHERE namespace.uuid NOT GLOB '{_UUID}' OR namespace.owner NOT GLOB '{_UUID}'
        OR namespace.last_owner NOT GLOB '{_UUID}'
        OR namespace.position NOT BETWEEN 0 AND {_MOST_POSITION}
        OR history.uuid IS NOT namespace.uuid OR history.to_state IS NOT namespace.state
        OR namespace.owner IS NOT NULL AND history.owner IS NOT namespace.owner
    LIMIT 1
"""  # noqa: S608  of constants
