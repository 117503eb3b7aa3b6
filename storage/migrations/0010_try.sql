-- A try of a credential that is under way: others wait for what becomes of it.
ALTER TABLE credential ADD COLUMN trying_until TIMESTAMPTZ;
