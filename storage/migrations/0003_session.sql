CREATE TABLE session (
    id           TEXT PRIMARY KEY,
    digest       BYTEA NOT NULL,
    patient_id   TEXT NOT NULL,
    factors      TEXT NOT NULL,
    auth_time    TIMESTAMPTZ NOT NULL,
    created_at   TIMESTAMPTZ NOT NULL,
    last_seen_at TIMESTAMPTZ NOT NULL,
    expires_at   TIMESTAMPTZ NOT NULL,
    ended_at     TIMESTAMPTZ,
    user_agent   TEXT NOT NULL,
    ip           TEXT NOT NULL
);
CREATE UNIQUE INDEX session_digest ON session (digest);
CREATE INDEX session_patient ON session (patient_id);
CREATE INDEX session_expires ON session (expires_at);
