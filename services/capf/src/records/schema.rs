use casemate_store::Migration;

/// The schema of `capf.db`. Times are seconds since 1970. Nothing is ever deleted but what an authentication string left, when
/// its operation ends, and what stood in `outbox`, when it is in the audit trail.
pub(super) const MIGRATIONS: &[Migration] = &[FIRST, OUTBOX];

const FIRST: Migration = Migration {
    number: 1,
    name: "devices, operations, certificates",
    sql: "
    -- The key of the verifiers of authentication strings.
    CREATE TABLE verifier_key (one INTEGER PRIMARY KEY CHECK (one = 1), key BLOB NOT NULL) STRICT;
    -- The number of the last change of a device; grows with each, in the order of commits.
    CREATE TABLE sequence (one INTEGER PRIMARY KEY CHECK (one = 1), last INTEGER NOT NULL) STRICT;
    INSERT INTO sequence VALUES (1, 0);
    CREATE TABLE devices (
        name TEXT PRIMARY KEY,
        sequence INTEGER NOT NULL UNIQUE,
        added INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE operations (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        device TEXT NOT NULL REFERENCES devices (name),
        mode TEXT NOT NULL,
        key TEXT NOT NULL,
        salt BLOB,
        tag BLOB,
        state TEXT NOT NULL,
        failures INTEGER NOT NULL DEFAULT 0,
        created INTEGER NOT NULL,
        expires INTEGER,
        ended INTEGER
    ) STRICT;
    CREATE INDEX operations_of_device ON operations (device, id);
    CREATE UNIQUE INDEX one_pending_operation ON operations (device) WHERE state = 'pending';
    CREATE INDEX expiring_operations ON operations (expires) WHERE state = 'pending';
    CREATE TABLE certificates (
        serial TEXT PRIMARY KEY,
        operation INTEGER NOT NULL REFERENCES operations (id),
        device TEXT NOT NULL REFERENCES devices (name),
        mode TEXT NOT NULL,
        key TEXT NOT NULL,
        key_digest BLOB NOT NULL,
        request_digest BLOB NOT NULL,
        not_after INTEGER NOT NULL,
        der BLOB NOT NULL,
        issued INTEGER NOT NULL,
        delivered INTEGER,
        UNIQUE (operation, key_digest)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX certificates_of_device ON certificates (device, issued);
    ",
};

const OUTBOX: Migration = Migration {
    number: 2,
    name: "outbox",
    sql: "
    -- Audit events of changes on record that may not be in the audit trail yet (JSON).
    CREATE TABLE outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, notice TEXT NOT NULL) STRICT;
    ",
};
