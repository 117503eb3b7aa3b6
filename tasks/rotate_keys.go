package tasks

import (
	"context"

	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/storage"
)

// rotateKeys does what the schedule of the signing keys asks for.
func (w *Worker) rotateKeys(ctx context.Context) error {
	return keys.Rotate(ctx, w.DB, w.Keys, storage.Now())
}
