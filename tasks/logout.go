package tasks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hibiken/asynq"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/tasks/queue"
)

// backchannelLogout tells a client that a session has ended. A client that says
// no is not asked again.
func (w *Worker) backchannelLogout(ctx context.Context, o storage.Outbox) error {
	var j queue.BackchannelLogout
	if err := json.Unmarshal([]byte(o.Payload), &j); err != nil {
		return fmt.Errorf("back-channel logout: %w", err)
	}
	err := w.Logout(ctx, j.ClientID, j.SessionID)
	if errors.Is(err, queue.ErrRefused) {
		return fmt.Errorf("%w (%w)", err, asynq.SkipRetry)
	}
	return err
}
