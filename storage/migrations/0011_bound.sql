-- What opens an account is sealed to its owner; see storage/credential.go.
ALTER TABLE credential ADD COLUMN bound BYTEA;
