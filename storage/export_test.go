package storage

// Exec runs a statement as who reaches the database and has no key of the keyring.
func (db *DB) Exec(statement string, args ...any) error {
	return db.gorm.Exec(statement, args...).Error
}

// RefuseUnbound is db after its operator has said so.
func (db *DB) RefuseUnbound() *DB {
	strict := *db
	strict.refuseUnbound = true
	return &strict
}
