CREATE TABLE lab_authority (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    oid        TEXT NOT NULL,
    namespaces TEXT NOT NULL,
    uris       TEXT NOT NULL,
    link_key   BOOLEAN NOT NULL,
    case_fold  BOOLEAN NOT NULL,
    sources    TEXT NOT NULL,
    active     BOOLEAN NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);
CREATE UNIQUE INDEX lab_authority_oid ON lab_authority (oid) WHERE oid <> '';

CREATE TABLE lab_identity (
    id              TEXT PRIMARY KEY,
    authority       TEXT NOT NULL REFERENCES lab_authority (id),
    value           TEXT NOT NULL,
    status          TEXT NOT NULL,
    merged_into     TEXT NOT NULL,
    family          TEXT NOT NULL,
    given           TEXT NOT NULL,
    family_key      TEXT NOT NULL,
    given_key       TEXT NOT NULL,
    birth_date      TEXT NOT NULL,
    birth_precision TEXT NOT NULL,
    sex             TEXT NOT NULL,
    deceased        BOOLEAN NOT NULL,
    inactive        BOOLEAN NOT NULL,
    flag            TEXT NOT NULL,
    hold            TEXT NOT NULL,
    versions        TEXT NOT NULL,
    created_at      TIMESTAMPTZ NOT NULL,
    updated_at      TIMESTAMPTZ NOT NULL,
    UNIQUE (authority, value)
);
CREATE INDEX lab_identity_merged ON lab_identity (merged_into) WHERE merged_into <> '';
CREATE INDEX lab_identity_hold ON lab_identity (updated_at) WHERE hold <> '';

CREATE TABLE lab_invitation (
    id              TEXT PRIMARY KEY,
    lab_identity_id TEXT NOT NULL REFERENCES lab_identity (id) ON DELETE CASCADE,
    mac             BYTEA NOT NULL UNIQUE,
    tries           INTEGER NOT NULL,
    expires_at      TIMESTAMPTZ NOT NULL,
    spent_at        TIMESTAMPTZ,
    created_at      TIMESTAMPTZ NOT NULL
);
CREATE UNIQUE INDEX lab_invitation_open ON lab_invitation (lab_identity_id) WHERE spent_at IS NULL;
CREATE INDEX lab_invitation_expires ON lab_invitation (expires_at);

CREATE TABLE link (
    id              TEXT PRIMARY KEY,
    patient_id      TEXT NOT NULL REFERENCES patient (id) ON DELETE CASCADE,
    lab_identity_id TEXT NOT NULL REFERENCES lab_identity (id),
    state           TEXT NOT NULL,
    reason          TEXT NOT NULL,
    replaces        TEXT NOT NULL,
    made_at         TIMESTAMPTZ NOT NULL,
    suspended_at    TIMESTAMPTZ,
    ended_at        TIMESTAMPTZ
);
CREATE UNIQUE INDEX link_patient_live ON link (patient_id) WHERE ended_at IS NULL;
CREATE UNIQUE INDEX link_identity_live ON link (lab_identity_id) WHERE ended_at IS NULL;
CREATE INDEX link_patient ON link (patient_id);

CREATE TABLE lab_event (
    source         TEXT NOT NULL,
    event_id       TEXT NOT NULL,
    id             TEXT NOT NULL UNIQUE,
    payload_sha256 BYTEA NOT NULL,
    topic          TEXT NOT NULL,
    part           INTEGER NOT NULL,
    position       BIGINT NOT NULL,
    kind           TEXT NOT NULL,
    outcome        TEXT NOT NULL,
    reason         TEXT NOT NULL,
    record_id      TEXT NOT NULL,
    sealed         BYTEA,
    received_at    TIMESTAMPTZ NOT NULL,
    applied_at     TIMESTAMPTZ NOT NULL,
    published_at   TIMESTAMPTZ,
    PRIMARY KEY (source, event_id)
);
CREATE INDEX lab_event_outcome ON lab_event (outcome, applied_at);
CREATE INDEX lab_event_applied ON lab_event (applied_at);
