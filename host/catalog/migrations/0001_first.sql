-- The catalog's first shape. This file is never edited: a change is a new file with the next number.
-- Uids are 32 hexadecimal digits, times are milliseconds since 1970, JSON is text.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE instances (
    uid              TEXT PRIMARY KEY,
    organization     TEXT NOT NULL,
    project          TEXT NOT NULL,
    name             TEXT NOT NULL,
    engine           TEXT NOT NULL,
    site             TEXT NOT NULL,
    settings         TEXT NOT NULL,
    secrets          TEXT NOT NULL,
    created_ms       INTEGER NOT NULL,
    updated_ms       INTEGER NOT NULL,
    resource_version INTEGER NOT NULL,
    removed_ms       INTEGER,
    -- Removed instances count: a name is used again only by adopting what had it.
    UNIQUE (organization, project, name)
) STRICT;

CREATE TABLE targets (
    uid                TEXT PRIMARY KEY,
    name               TEXT NOT NULL,
    role               TEXT NOT NULL,
    url                TEXT NOT NULL,
    site               TEXT NOT NULL,
    settings           TEXT NOT NULL,
    secrets            TEXT NOT NULL,
    conditional_writes INTEGER NOT NULL,
    last_error         TEXT,
    newest_heads       TEXT NOT NULL,
    created_ms         INTEGER NOT NULL,
    updated_ms         INTEGER NOT NULL,
    resource_version   INTEGER NOT NULL,
    removed_ms         INTEGER
) STRICT;
CREATE UNIQUE INDEX targets_by_name ON targets (name) WHERE removed_ms IS NULL;
CREATE UNIQUE INDEX targets_one_primary ON targets (role) WHERE role = 'primary' AND removed_ms IS NULL;

-- No reference to instances: a backup found at a target is worth knowing even if its instance is not known any more.
CREATE TABLE backups (
    uid              TEXT PRIMARY KEY,
    instance_uid     TEXT NOT NULL,
    organization     TEXT NOT NULL,
    project          TEXT NOT NULL,
    instance         TEXT NOT NULL,
    name             TEXT NOT NULL,
    description      TEXT,
    method           TEXT NOT NULL,
    backup_type      TEXT NOT NULL,
    plugin           TEXT NOT NULL,
    component        TEXT NOT NULL,
    engine           TEXT NOT NULL,
    site             TEXT NOT NULL,
    labels           TEXT NOT NULL,
    state            TEXT NOT NULL,
    phase            TEXT NOT NULL,
    reason           TEXT,
    hint             TEXT,
    created_ms       INTEGER NOT NULL,
    started_ms       INTEGER,
    finished_ms      INTEGER,
    entries          INTEGER NOT NULL,
    logical_bytes    INTEGER NOT NULL,
    stored_bytes     INTEGER NOT NULL,
    warnings         TEXT NOT NULL,
    verified         TEXT,
    document         TEXT,
    parent           TEXT,
    job_id           TEXT,
    updated_ms       INTEGER NOT NULL,
    resource_version INTEGER NOT NULL,
    UNIQUE (instance_uid, name)
) STRICT;
CREATE UNIQUE INDEX backups_one_pending ON backups (instance_uid) WHERE state = 'Pending';
CREATE INDEX backups_newest ON backups (created_ms DESC, uid DESC);
CREATE INDEX backups_of_instance ON backups (instance_uid, created_ms DESC, uid DESC);
CREATE INDEX backups_of_job ON backups (job_id) WHERE job_id IS NOT NULL;

CREATE TABLE copies (
    backup_uid   TEXT NOT NULL REFERENCES backups (uid) ON DELETE CASCADE,
    target_uid   TEXT NOT NULL REFERENCES targets (uid),
    state        TEXT NOT NULL,
    durable_ms   INTEGER,
    reason       TEXT,
    copied_bytes INTEGER NOT NULL,
    PRIMARY KEY (backup_uid, target_uid)
) STRICT, WITHOUT ROWID;
CREATE INDEX copies_at_target ON copies (target_uid, state);

CREATE TABLE jobs (
    id               TEXT PRIMARY KEY,
    kind             TEXT NOT NULL,
    state            TEXT NOT NULL,
    subject          TEXT NOT NULL,
    payload          TEXT NOT NULL,
    attempts         INTEGER NOT NULL,
    max_attempts     INTEGER NOT NULL,
    not_before_ms    INTEGER NOT NULL,
    progress         TEXT NOT NULL,
    cancel_requested INTEGER NOT NULL,
    error            TEXT,
    result           TEXT,
    created_ms       INTEGER NOT NULL,
    started_ms       INTEGER,
    finished_ms      INTEGER,
    heartbeat_ms     INTEGER,
    instance_uid     TEXT,
    lane             TEXT NOT NULL
) STRICT;
CREATE INDEX jobs_newest ON jobs (created_ms DESC, id DESC);
CREATE INDEX jobs_queued ON jobs (not_before_ms, created_ms, id) WHERE state = 'Queued';
CREATE INDEX jobs_running ON jobs (lane) WHERE state = 'Running';
CREATE INDEX jobs_active ON jobs (kind, subject) WHERE state IN ('Queued', 'Running');
CREATE INDEX jobs_finished ON jobs (finished_ms) WHERE finished_ms IS NOT NULL;

CREATE TABLE job_log (
    job_id   TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    at_ms    INTEGER NOT NULL,
    level    TEXT NOT NULL,
    message  TEXT NOT NULL,
    PRIMARY KEY (job_id, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
    name         TEXT PRIMARY KEY,
    hash         BLOB NOT NULL CHECK (length(hash) = 32),
    created_ms   INTEGER NOT NULL,
    last_used_ms INTEGER
) STRICT, WITHOUT ROWID;

-- No reference to backups: a repeated request gets its first answer even after the backup was deleted.
CREATE TABLE idempotency (
    principal      TEXT NOT NULL,
    key            TEXT NOT NULL,
    request_digest TEXT NOT NULL,
    backup_uid     TEXT NOT NULL,
    created_ms     INTEGER NOT NULL,
    PRIMARY KEY (principal, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms    INTEGER NOT NULL,
    who      TEXT NOT NULL,
    action   TEXT NOT NULL,
    subject  TEXT NOT NULL,
    detail   TEXT NOT NULL
) STRICT;
