"""The tables of the ledger, and the migrations from older versions."""

#: One script per version; PRAGMA user_version counts the scripts that were run. Append, never edit.
SCRIPTS = (
    """
    CREATE TABLE namespace (
        uuid       TEXT PRIMARY KEY,
        name       TEXT,
        size       INTEGER NOT NULL CHECK (size > 0),
        align      INTEGER NOT NULL CHECK (align > 0),
        numa_node  INTEGER,
        mode       TEXT NOT NULL,
        device     TEXT,
        pmem       INTEGER NOT NULL CHECK (pmem IN (0, 1)),
        state      TEXT NOT NULL CHECK (state IN ('unknown', 'clean', 'dirty', 'claimed', 'quarantined')),
        owner      TEXT,
        position   INTEGER,
        label      TEXT,
        last_owner TEXT,
        begun      INTEGER NOT NULL DEFAULT 0 CHECK (begun IN (0, 1)),
        wiped      INTEGER NOT NULL DEFAULT 0 CHECK (wiped BETWEEN 0 AND size),
        reason     TEXT,
        changed    INTEGER NOT NULL,
        CHECK (state <> 'claimed' OR owner IS NOT NULL),
        CHECK (owner IS NULL OR state IN ('claimed', 'dirty')),
        CHECK ((owner IS NULL) = (position IS NULL))
    ) STRICT;
    CREATE INDEX namespace_changed ON namespace (changed);
    CREATE INDEX namespace_owner ON namespace (owner) WHERE owner IS NOT NULL;
    CREATE TABLE history (
        id         INTEGER PRIMARY KEY AUTOINCREMENT,
        at         TEXT NOT NULL,
        uuid       TEXT NOT NULL,
        name       TEXT,
        from_state TEXT,
        to_state   TEXT NOT NULL,
        owner      TEXT,
        reason     TEXT NOT NULL
    ) STRICT;
    CREATE INDEX history_uuid ON history (uuid);
    CREATE INDEX history_owner ON history (owner) WHERE owner IS NOT NULL;
    """,
    # Each index, and the counter of AUTOINCREMENT, adds a page that every move must write durably.
    """
    DROP INDEX namespace_changed;
    CREATE TABLE moves (
        id         INTEGER PRIMARY KEY,
        at         TEXT NOT NULL,
        uuid       TEXT NOT NULL,
        name       TEXT,
        from_state TEXT,
        to_state   TEXT NOT NULL,
        owner      TEXT,
        reason     TEXT NOT NULL
    ) STRICT;
    INSERT INTO moves SELECT * FROM history;
    DROP TABLE history;
    ALTER TABLE moves RENAME TO history;
    """,
    # A claim reserves all its namespaces, also clean ones, until the last wipe is done. A wipe has a fencing token.
    """
    CREATE TABLE renewed (
        uuid        TEXT PRIMARY KEY,
        name        TEXT,
        size        INTEGER NOT NULL CHECK (size > 0),
        align       INTEGER NOT NULL CHECK (align > 0),
        numa_node   INTEGER,
        mode        TEXT NOT NULL,
        device      TEXT,
        pmem        INTEGER NOT NULL CHECK (pmem IN (0, 1)),
        state       TEXT NOT NULL CHECK (state IN ('unknown', 'clean', 'dirty', 'claimed', 'quarantined')),
        owner       TEXT,
        position    INTEGER,
        label       TEXT,
        last_owner  TEXT,
        begun       INTEGER NOT NULL DEFAULT 0 CHECK (begun IN (0, 1)),
        wiped       INTEGER NOT NULL DEFAULT 0 CHECK (wiped BETWEEN 0 AND size),
        verified    INTEGER NOT NULL DEFAULT 0 CHECK (verified BETWEEN 0 AND size),
        run         TEXT,
        reservation TEXT,
        reason      TEXT,
        changed     INTEGER NOT NULL,
        CHECK (state <> 'claimed' OR owner IS NOT NULL),
        CHECK (owner IS NULL OR state IN ('claimed', 'dirty', 'clean')),
        CHECK ((owner IS NULL) = (position IS NULL)),
        CHECK ((reservation IS NULL) = (owner IS NULL OR state = 'claimed')),
        CHECK (run IS NULL OR state = 'dirty')
    ) STRICT;
    INSERT INTO renewed (uuid, name, size, align, numa_node, mode, device, pmem, state, owner, position, label,
        last_owner, begun, wiped, reservation, reason, changed)
        SELECT uuid, name, size, align, numa_node, mode, device, pmem, state, owner, position, label, last_owner, begun,
        wiped, CASE WHEN owner IS NOT NULL AND state <> 'claimed' THEN uuid END, reason, changed FROM namespace;
    DROP TABLE namespace;
    ALTER TABLE renewed RENAME TO namespace;
    CREATE INDEX namespace_owner ON namespace (owner) WHERE owner IS NOT NULL;
    """,
    # One-time steps in the life of a ledger that are done.
    """
    CREATE TABLE mark (
        name TEXT PRIMARY KEY,
        at   TEXT NOT NULL
    ) STRICT;
    """,
    # A copy fills a namespace for its owner (receiving). It is complete or it is wiped; no guest gets a part of it.
    """
    CREATE TABLE renewed (
        uuid        TEXT PRIMARY KEY,
        name        TEXT,
        size        INTEGER NOT NULL CHECK (size > 0),
        align       INTEGER NOT NULL CHECK (align > 0),
        numa_node   INTEGER,
        mode        TEXT NOT NULL,
        device      TEXT,
        pmem        INTEGER NOT NULL CHECK (pmem IN (0, 1)),
        state       TEXT NOT NULL
                    CHECK (state IN ('unknown', 'clean', 'dirty', 'claimed', 'quarantined', 'receiving')),
        owner       TEXT,
        position    INTEGER,
        label       TEXT,
        last_owner  TEXT,
        begun       INTEGER NOT NULL DEFAULT 0 CHECK (begun IN (0, 1)),
        wiped       INTEGER NOT NULL DEFAULT 0 CHECK (wiped BETWEEN 0 AND size),
        verified    INTEGER NOT NULL DEFAULT 0 CHECK (verified BETWEEN 0 AND size),
        run         TEXT,
        reservation TEXT,
        reason      TEXT,
        changed     INTEGER NOT NULL,
        copied      INTEGER NOT NULL DEFAULT 0 CHECK (copied BETWEEN 0 AND size),
        arrival     TEXT,
        departure   TEXT,
        CHECK (state NOT IN ('claimed', 'receiving') OR owner IS NOT NULL),
        CHECK (owner IS NULL OR state IN ('claimed', 'receiving', 'dirty', 'clean')),
        CHECK ((owner IS NULL) = (position IS NULL)),
        CHECK ((reservation IS NULL) = (owner IS NULL OR state IN ('claimed', 'receiving'))),
        CHECK (run IS NULL OR state IN ('dirty', 'receiving')),
        CHECK (state <> 'receiving' OR arrival IS NOT NULL),
        CHECK (arrival IS NULL OR state IN ('claimed', 'receiving')),
        CHECK (departure IS NULL OR state = 'claimed')
    ) STRICT;
    INSERT INTO renewed (uuid, name, size, align, numa_node, mode, device, pmem, state, owner, position, label,
        last_owner, begun, wiped, verified, run, reservation, reason, changed)
        SELECT uuid, name, size, align, numa_node, mode, device, pmem, state, owner, position, label, last_owner, begun,
        wiped, verified, run, reservation, reason, changed FROM namespace;
    DROP TABLE namespace;
    ALTER TABLE renewed RENAME TO namespace;
    CREATE INDEX namespace_owner ON namespace (owner) WHERE owner IS NOT NULL;
    """,
    # The content of volatile memory is lost with the boot in which the state of its namespace became true.
    """
    ALTER TABLE namespace ADD COLUMN boot TEXT;
    """,
    # What the owner's device is, decided at the claim. Until now all were nvdimms with a label area of 2 MiB.
    """
    CREATE TABLE renewed (
        uuid         TEXT PRIMARY KEY,
        name         TEXT,
        size         INTEGER NOT NULL CHECK (size > 0),
        align        INTEGER NOT NULL CHECK (align > 0),
        numa_node    INTEGER,
        mode         TEXT NOT NULL,
        device       TEXT,
        pmem         INTEGER NOT NULL CHECK (pmem IN (0, 1)),
        state        TEXT NOT NULL
                     CHECK (state IN ('unknown', 'clean', 'dirty', 'claimed', 'quarantined', 'receiving')),
        owner        TEXT,
        position     INTEGER,
        label        TEXT,
        last_owner   TEXT,
        begun        INTEGER NOT NULL DEFAULT 0 CHECK (begun IN (0, 1)),
        wiped        INTEGER NOT NULL DEFAULT 0 CHECK (wiped BETWEEN 0 AND size),
        verified     INTEGER NOT NULL DEFAULT 0 CHECK (verified BETWEEN 0 AND size),
        run          TEXT,
        reservation  TEXT,
        reason       TEXT,
        changed      INTEGER NOT NULL,
        copied       INTEGER NOT NULL DEFAULT 0 CHECK (copied BETWEEN 0 AND size),
        arrival      TEXT,
        departure    TEXT,
        boot         TEXT,
        device_model TEXT CHECK (device_model IN ('nvdimm', 'virtio-pmem')),
        label_size   INTEGER CHECK (label_size >= 0),
        CHECK (state NOT IN ('claimed', 'receiving') OR owner IS NOT NULL),
        CHECK (owner IS NULL OR state IN ('claimed', 'receiving', 'dirty', 'clean')),
        CHECK ((owner IS NULL) = (position IS NULL)),
        CHECK ((reservation IS NULL) = (owner IS NULL OR state IN ('claimed', 'receiving'))),
        CHECK (run IS NULL OR state IN ('dirty', 'receiving')),
        CHECK (state <> 'receiving' OR arrival IS NOT NULL),
        CHECK (arrival IS NULL OR state IN ('claimed', 'receiving')),
        CHECK (departure IS NULL OR state = 'claimed'),
        CHECK ((owner IS NULL) = (device_model IS NULL)),
        CHECK ((owner IS NULL) = (label_size IS NULL)),
        CHECK (device_model IS NULL OR device_model <> 'virtio-pmem' OR label_size = 0)
    ) STRICT;
    INSERT INTO renewed SELECT *, CASE WHEN owner IS NOT NULL THEN 'nvdimm' END,
        CASE WHEN owner IS NOT NULL THEN 2097152 END FROM namespace;
    DROP TABLE namespace;
    ALTER TABLE renewed RENAME TO namespace;
    CREATE INDEX namespace_owner ON namespace (owner) WHERE owner IS NOT NULL;
    """,
)
