-- What keeps backups. What a policy says, and what it said before for as long as that counts, are JSON. A removed one stays for as long as it counts.

CREATE TABLE policies (
    uid              TEXT PRIMARY KEY,
    name             TEXT NOT NULL,
    spec             TEXT NOT NULL,
    since_ms         INTEGER NOT NULL,
    former           TEXT NOT NULL,
    created_ms       INTEGER NOT NULL,
    updated_ms       INTEGER NOT NULL,
    resource_version INTEGER NOT NULL,
    removed_ms       INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX policies_by_name ON policies (name) WHERE removed_ms IS NULL;

-- A backup that follows no policy is kept until its instance has a success of this time.
ALTER TABLE backups ADD COLUMN keep_until_ms INTEGER;

-- When policies let a copy go: it is not counted on, and not made again.
ALTER TABLE copies ADD COLUMN expired_ms INTEGER;
