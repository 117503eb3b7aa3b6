CREATE TABLE signing_key (
    id           TEXT PRIMARY KEY,
    alg          TEXT NOT NULL,
    state        TEXT NOT NULL,
    public       TEXT NOT NULL,
    private      BYTEA NOT NULL,
    created_at   TIMESTAMPTZ NOT NULL,
    activated_at TIMESTAMPTZ,
    retired_at   TIMESTAMPTZ
);
CREATE UNIQUE INDEX signing_key_active ON signing_key (alg) WHERE state = 'active';
