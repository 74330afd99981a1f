-- Who holds a backup, and why (JSON). While anybody does, it is neither deleted nor expired.

ALTER TABLE backups ADD COLUMN holds TEXT NOT NULL DEFAULT '[]';
