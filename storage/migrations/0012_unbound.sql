-- What is still to be sealed to its owner is found without a scan.
CREATE INDEX CONCURRENTLY IF NOT EXISTS credential_unbound ON credential (id) WHERE bound IS NULL AND revoked_at IS NULL;
