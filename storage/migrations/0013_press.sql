-- The forms of signed-in browsers that are being answered, or were a moment ago.
CREATE TABLE press (
    digest     BYTEA PRIMARY KEY,
    answer     BYTEA,
    expires_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX press_expires ON press (expires_at);
