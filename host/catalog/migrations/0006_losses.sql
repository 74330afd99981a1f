-- What of a backup is known to be lost at a target. No row means that nothing is.

CREATE TABLE losses (
    backup_uid TEXT NOT NULL REFERENCES backups (uid) ON DELETE CASCADE,
    target_uid TEXT NOT NULL REFERENCES targets (uid),
    total      INTEGER NOT NULL,
    ranges     TEXT NOT NULL,
    found_ms   INTEGER NOT NULL,
    PRIMARY KEY (backup_uid, target_uid)
) STRICT, WITHOUT ROWID;
CREATE INDEX losses_at_target ON losses (target_uid);
