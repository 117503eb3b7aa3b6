package storage

import (
	"context"
	"time"

	"gorm.io/gorm/clause"
)

// usedJTI is the jti of one assertion that a client was authenticated by.
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
	row := usedJTI{Digest: Digest(clientID + "\x00" + jti), ExpiresAt: expires.UTC().Truncate(time.Microsecond)}
	return spentUnlessOne(db.g(ctx).Clauses(clause.OnConflict{DoNothing: true}).Create(&row))
}
