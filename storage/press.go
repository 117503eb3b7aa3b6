package storage

import (
	"context"
	"time"
)

// A press is a form together with the session handle that it came with. It is
// known here by its Digest only, and its answer is encrypted under it, as the
// successor of a refresh token is: whoever has both may have the answer again.

const (
	// PressUnderWay is how long an answer may take, and PressOverlap how long it is
	// kept for who presses again.
	PressUnderWay = 10 * time.Second
	PressOverlap  = time.Minute
)

// BeginPress begins to answer a press; ErrSpent where somebody already does, or
// has done so a moment ago.
func (db *DB) BeginPress(ctx context.Context, presented string, now time.Time) error {
	return spentUnlessOne(db.g(ctx).Exec(`INSERT INTO press (expires_at, digest) VALUES (?, ?)
		ON CONFLICT (digest) DO UPDATE SET answer = NULL, expires_at = excluded.expires_at WHERE press.expires_at <= ?`,
		now.Add(PressUnderWay), Digest(presented), now))
}

// AnswerPress keeps the answer for a second press; "" forgets the press.
func (db *DB) AnswerPress(ctx context.Context, presented, answer string, now time.Time) error {
	if answer == "" {
		return mapErr(db.g(ctx).Exec("DELETE FROM press WHERE digest = ?", Digest(presented)).Error)
	}
	return mapErr(db.g(ctx).Exec("UPDATE press SET answer = ?, expires_at = ? WHERE digest = ?",
		envelop(presented, answer), now.Add(PressOverlap), Digest(presented)).Error)
}

// PressAnswer is the answer to a press, "" as long as it is under way; ErrNotFound
// where nobody presses, or it was too long ago.
func (db *DB) PressAnswer(ctx context.Context, presented string, now time.Time) (string, error) {
	var row struct{ Answer []byte }
	err := db.g(ctx).Table("press").Select("answer").Where("digest = ? AND expires_at > ?", Digest(presented), now).Take(&row).Error
	if err != nil || row.Answer == nil {
		return "", mapErr(err)
	}
	return unenvelop(presented, row.Answer)
}
