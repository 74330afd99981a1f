-- Plugins that an operator installed. The component of each lies in the data directory under its digest.

CREATE TABLE plugins (
    name         TEXT PRIMARY KEY,
    version      TEXT NOT NULL,
    engine       TEXT NOT NULL UNIQUE,
    digest       TEXT NOT NULL UNIQUE,
    installed_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
