package storage

import (
	"context"
	"time"

	"gorm.io/gorm/clause"
)

// usedJTI is something that was good once: the jti of an assertion that a client
// was authenticated by, a challenge that we keep nowhere.
type usedJTI struct {
	Digest    []byte
	ExpiresAt time.Time
}

// TableName names the table.
func (usedJTI) TableName() string { return "used_jti" }

// SpendJTI spends the jti of a client's assertion, which expires at expires. The
// second caller, on whatever replica, gets ErrSpent. A jti belongs to its client:
// nobody can spend another's.
func (db *DB) SpendJTI(ctx context.Context, clientID, jti string, expires time.Time) error {
	return db.spend(ctx, clientID+"\x00"+jti, expires)
}

// SpendSealed spends a challenge of a kind that was handed out sealed and is good
// until expires, for as many as SpendJTI: the second caller gets ErrSpent.
func (db *DB) SpendSealed(ctx context.Context, kind, challenge string, expires time.Time) error {
	return db.spend(ctx, "\x00"+kind+"\x00"+challenge, expires)
}

func (db *DB) spend(ctx context.Context, what string, expires time.Time) error {
	row := usedJTI{Digest: Digest(what), ExpiresAt: expires.UTC().Truncate(time.Microsecond)}
	return spentUnlessOne(db.g(ctx).Clauses(clause.OnConflict{DoNothing: true}).Create(&row))
}
