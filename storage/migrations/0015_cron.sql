-- When a periodic task last succeeded, whatever became of it since.
ALTER TABLE periodic_run ADD COLUMN succeeded_at TIMESTAMPTZ;
