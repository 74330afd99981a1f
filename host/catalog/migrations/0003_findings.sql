-- What was found when a target was tried (JSON), for people.

ALTER TABLE targets ADD COLUMN findings TEXT NOT NULL DEFAULT '[]';
