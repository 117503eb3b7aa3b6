// Package queue is what is wished for later: the jobs that a transaction
// promises, and the names of the periodic tasks. A job is written to the outbox
// by storage's Wish, in the transaction of the fact it follows from, and done
// by package tasks.
//
// A job holds row ids and words from closed sets, nothing personal.
package queue

import "errors"

// VerifyEmail mails the link that proves a mailbox.
type VerifyEmail struct {
	ChallengeID string `json:"challenge_id"`
}

// AccountExists tells the owner of an account that somebody, perhaps they
// themselves, tried to register with its address.
type AccountExists struct {
	PatientID string `json:"patient_id"`
}

// Notice tells a patient that something about the account has changed.
type Notice struct {
	PatientID string `json:"patient_id"`
	// Notice is one of Notices.
	Notice string `json:"notice"`
}

// Notices lists what a patient is told about. Each has its texts in the
// locales, under mail.notice.
var Notices = []string{
	"factor_added", "factor_removed", "factor_disabled", "password_changed",
	"link_made", "link_moved", "link_suspended", "link_ended", "token_reused",
}

// DeadLetter publishes a quarantined lab event for whoever sent it.
type DeadLetter struct {
	EventID string `json:"event_id"`
}

// BackchannelLogout tells a client that a session has ended.
type BackchannelLogout struct {
	ClientID  string `json:"client_id"`
	SessionID string `json:"session_id"`
}

// What a job may end with, besides success and an error that another attempt
// may not meet.
var (
	// ErrRefused says that every attempt would end like this one.
	ErrRefused = errors.New("refused for good")
	// ErrBusy says that the attempt was not made, and does not count.
	ErrBusy = errors.New("busy")
)

// Kind names the job.
func (VerifyEmail) Kind() string { return "verify_email" }

// Kind names the job.
func (AccountExists) Kind() string { return "account_exists" }

// Kind names the job.
func (Notice) Kind() string { return "notice" }

// Kind names the job.
func (DeadLetter) Kind() string { return "dead_letter" }

// Kind names the job.
func (BackchannelLogout) Kind() string { return "backchannel_logout" }

// Name makes a second wish for the same challenge the same wish.
func (j VerifyEmail) Name() string { return j.ChallengeID }

// Name is empty: every wish counts.
func (AccountExists) Name() string { return "" }

// Name is empty: every wish counts.
func (Notice) Name() string { return "" }

// Name makes a second wish for the same event the same wish.
func (j DeadLetter) Name() string { return j.EventID }

// Name makes a second wish for the same client and session the same wish.
func (j BackchannelLogout) Name() string { return j.ClientID + ":" + j.SessionID }

// The periodic tasks.
const (
	ExpireSessions = "expire_sessions"
	DeleteExpired  = "delete_expired"
	SweepOutbox    = "sweep_outbox"
	SyncUsers      = "sync_users"
	HealthCheck    = "health_check"
	BindRows       = "bind_rows"
	RotateKeys     = "rotate_keys"
)
