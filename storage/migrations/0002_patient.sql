CREATE TABLE patient (
    id                TEXT PRIMARY KEY,
    email             TEXT NOT NULL UNIQUE,
    email_verified_at TIMESTAMPTZ,
    given_name        TEXT NOT NULL,
    family_name       TEXT NOT NULL,
    birth_date        TEXT NOT NULL,
    locale            TEXT NOT NULL,
    webauthn_handle   BYTEA NOT NULL UNIQUE,
    disabled_at       TIMESTAMPTZ,
    created_at        TIMESTAMPTZ NOT NULL,
    updated_at        TIMESTAMPTZ NOT NULL
);

CREATE TABLE credential (
    id           TEXT PRIMARY KEY,
    patient_id   TEXT NOT NULL REFERENCES patient (id) ON DELETE CASCADE,
    kind         TEXT NOT NULL,
    name         TEXT NOT NULL,
    external_id  TEXT NOT NULL,
    secret       BYTEA NOT NULL,
    last_step    BIGINT NOT NULL,
    failures     INTEGER NOT NULL,
    retry_after  TIMESTAMPTZ,
    confirmed_at TIMESTAMPTZ,
    last_used_at TIMESTAMPTZ,
    revoked_at   TIMESTAMPTZ,
    disabled_at  TIMESTAMPTZ,
    created_at   TIMESTAMPTZ NOT NULL
);
CREATE INDEX credential_patient ON credential (patient_id);
CREATE UNIQUE INDEX credential_external ON credential (external_id) WHERE external_id <> '';
CREATE UNIQUE INDEX credential_password ON credential (patient_id) WHERE kind = 'password' AND revoked_at IS NULL;

CREATE TABLE challenge (
    id         TEXT PRIMARY KEY,
    kind       TEXT NOT NULL,
    patient_id TEXT NOT NULL,
    digest     BYTEA NOT NULL,
    data       BYTEA NOT NULL,
    attempts   INTEGER NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    spent_at   TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX challenge_patient ON challenge (patient_id, kind);
CREATE INDEX challenge_expires ON challenge (expires_at);

CREATE TABLE attempt (
    id         TEXT PRIMARY KEY,
    tries      INTEGER NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX attempt_expires ON attempt (expires_at);
