CREATE TABLE audit_event (
    id         TEXT PRIMARY KEY,
    at         TIMESTAMPTZ NOT NULL,
    event      TEXT NOT NULL,
    actor      TEXT NOT NULL,
    subject    TEXT NOT NULL,
    object     TEXT NOT NULL,
    request_id TEXT NOT NULL,
    detail     TEXT NOT NULL
);
CREATE INDEX audit_event_subject ON audit_event (subject, at);
