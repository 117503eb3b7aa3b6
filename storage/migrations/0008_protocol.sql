ALTER TABLE client ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}';
ALTER TABLE client ADD COLUMN origins TEXT NOT NULL DEFAULT '[]';
ALTER TABLE client ADD COLUMN registration BYTEA;

ALTER TABLE oauth_grant ADD COLUMN subject TEXT NOT NULL DEFAULT '';
ALTER TABLE oauth_grant ADD COLUMN claims TEXT NOT NULL DEFAULT '{}';

ALTER TABLE auth_request ADD COLUMN device_id TEXT NOT NULL DEFAULT '';

ALTER TABLE patient ADD COLUMN more TEXT NOT NULL DEFAULT '{}';

CREATE UNIQUE INDEX signing_key_pending ON signing_key (alg) WHERE state = 'pending';

CREATE TABLE used_jti (
    digest     BYTEA PRIMARY KEY,
    expires_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX used_jti_expires ON used_jti (expires_at);

CREATE TABLE pairwise_subject (
    sector     TEXT NOT NULL,
    patient_id TEXT NOT NULL REFERENCES patient (id) ON DELETE CASCADE,
    subject    TEXT NOT NULL UNIQUE,
    PRIMARY KEY (sector, patient_id)
);
CREATE INDEX pairwise_subject_patient ON pairwise_subject (patient_id);

CREATE TABLE device (
    id         TEXT PRIMARY KEY,
    digest     BYTEA NOT NULL UNIQUE,
    user_code  BYTEA NOT NULL UNIQUE,
    client_id  TEXT NOT NULL,
    scopes     TEXT NOT NULL,
    audience   TEXT NOT NULL,
    pace       INTEGER NOT NULL,
    polled_at  TIMESTAMPTZ,
    grant_id   TEXT NOT NULL,
    denied_at  TIMESTAMPTZ,
    used_at    TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX device_expires ON device (expires_at);
