CREATE TABLE outbox (
    id         TEXT PRIMARY KEY,
    kind       TEXT NOT NULL,
    name       TEXT NOT NULL UNIQUE,
    payload    TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    relayed_at TIMESTAMPTZ,
    held_until TIMESTAMPTZ,
    attempts   INTEGER NOT NULL,
    done_at    TIMESTAMPTZ,
    failed_at  TIMESTAMPTZ,
    reason     TEXT NOT NULL
);
CREATE INDEX outbox_waiting ON outbox (created_at) WHERE relayed_at IS NULL;
CREATE INDEX outbox_undone ON outbox (relayed_at) WHERE done_at IS NULL AND failed_at IS NULL;
CREATE INDEX outbox_failed ON outbox (failed_at) WHERE failed_at IS NOT NULL;
CREATE INDEX outbox_over ON outbox (COALESCE(done_at, failed_at));

CREATE TABLE periodic_run (
    name        TEXT PRIMARY KEY,
    slot        TIMESTAMPTZ NOT NULL,
    finished_at TIMESTAMPTZ,
    outcome     TEXT NOT NULL
);
