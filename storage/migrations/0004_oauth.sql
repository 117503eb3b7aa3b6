CREATE TABLE client (
    id                        TEXT PRIMARY KEY,
    name                      TEXT NOT NULL,
    auth_methods              TEXT NOT NULL,
    secrets                   TEXT NOT NULL,
    redirect_uris             TEXT NOT NULL,
    post_logout_redirect_uris TEXT NOT NULL,
    grant_types               TEXT NOT NULL,
    scopes                    TEXT NOT NULL,
    audience                  TEXT NOT NULL,
    id_token_alg              TEXT NOT NULL,
    can_introspect            BOOLEAN NOT NULL,
    first_party               BOOLEAN NOT NULL,
    created_at                TIMESTAMPTZ NOT NULL,
    disabled_at               TIMESTAMPTZ
);

CREATE TABLE auth_request (
    id           TEXT PRIMARY KEY,
    binding      BYTEA NOT NULL,
    client_id    TEXT NOT NULL,
    params       BYTEA NOT NULL,
    requested_at TIMESTAMPTZ NOT NULL,
    expires_at   TIMESTAMPTZ NOT NULL,
    denied_at    TIMESTAMPTZ,
    issued_at    TIMESTAMPTZ
);
CREATE INDEX auth_request_expires ON auth_request (expires_at);

CREATE TABLE consent (
    patient_id TEXT NOT NULL,
    client_id  TEXT NOT NULL,
    scopes     TEXT NOT NULL,
    granted_at TIMESTAMPTZ NOT NULL,
    revoked_at TIMESTAMPTZ,
    PRIMARY KEY (patient_id, client_id)
);

CREATE TABLE oauth_grant (
    id         TEXT PRIMARY KEY,
    client_id  TEXT NOT NULL,
    patient_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    scopes     TEXT NOT NULL,
    audience   TEXT NOT NULL,
    offline    BOOLEAN NOT NULL,
    auth_time  TIMESTAMPTZ NOT NULL,
    acr        TEXT NOT NULL,
    amr        TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    revoked_at TIMESTAMPTZ,
    reason     TEXT NOT NULL
);
CREATE INDEX oauth_grant_patient ON oauth_grant (patient_id, client_id);
CREATE INDEX oauth_grant_session ON oauth_grant (session_id);
CREATE INDEX oauth_grant_expires ON oauth_grant (expires_at);

CREATE TABLE oauth_code (
    digest         BYTEA PRIMARY KEY,
    grant_id       TEXT NOT NULL,
    redirect_uri   TEXT NOT NULL,
    code_challenge TEXT NOT NULL,
    nonce          TEXT NOT NULL,
    requested_at   TIMESTAMPTZ NOT NULL,
    expires_at     TIMESTAMPTZ NOT NULL,
    used_at        TIMESTAMPTZ
);
CREATE INDEX oauth_code_expires ON oauth_code (expires_at);

CREATE TABLE oauth_refresh (
    digest     BYTEA PRIMARY KEY,
    grant_id   TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    used_at    TIMESTAMPTZ,
    successor  BYTEA,
    next       BYTEA
);
CREATE INDEX oauth_refresh_grant ON oauth_refresh (grant_id);
CREATE INDEX oauth_refresh_expires ON oauth_refresh (expires_at);

CREATE TABLE oauth_access (
    digest     BYTEA PRIMARY KEY,
    grant_id   TEXT NOT NULL,
    client_id  TEXT NOT NULL,
    patient_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    scopes     TEXT NOT NULL,
    audience   TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    revoked_at TIMESTAMPTZ
);
CREATE INDEX oauth_access_grant ON oauth_access (grant_id);
CREATE INDEX oauth_access_expires ON oauth_access (expires_at);
