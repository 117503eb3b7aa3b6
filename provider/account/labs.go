package account

import (
	"context"
	"crypto/hmac"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// record is the linked lab record as a patient sees it.
type record struct {
	Authority string // the name of who keeps it
	Number    string // masked
	Since     moment
	Suspended bool // it shows nothing until staff have looked at it
}

// labsView is what the page account_labs shows.
type labsView struct {
	Record  *record // nil where none is linked
	Today   string
	Mark    string // says in the form whose page it was
	Problem string
}

// GetLabs shows the linked record, or the form that links one. Health data
// wants two factors. GET /account/labs
func (a *Account) GetLabs(w http.ResponseWriter, r *http.Request) error {
	s, err := a.owner(w, r, 2, 0)
	if s == nil {
		return err
	}
	rec, err := a.record(r.Context(), s.PatientID, web.Lang(r))
	if err != nil {
		return err
	}
	return a.show(w, r, "account_labs", labsView{Record: rec, Mark: a.mark(s), Today: today()})
}

// PostLabs links the record that an activation code and its birth date open.
// Whatever was wrong, the answer is the same, so that nobody learns which codes
// or records there are. POST /account/labs
func (a *Account) PostLabs(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	s, err := a.owner(w, r, 2, 0)
	if s == nil {
		return err
	}
	form, err := web.Form(r)
	if err != nil {
		return err
	}
	if !hmac.Equal([]byte(form.Get("mark")), []byte(a.mark(s))) {
		return web.Redirect(w, r, "/account/labs") // somebody else's page
	}
	link, err := a.db.RedeemInvitation(ctx, s.PatientID, form.Get("activation-code"), form.Get("bday"), storage.Now())
	switch {
	case errors.Is(err, storage.ErrNotFound), errors.Is(err, storage.ErrSpent), errors.Is(err, storage.ErrConflict):
		web.Event(ctx, "link.refused", "reason", err.Error())
		rec, err := a.record(ctx, s.PatientID, web.Lang(r))
		if err != nil {
			return err
		}
		return a.again(w, r, "account_labs", labsView{Record: rec, Mark: a.mark(s), Today: today(), Problem: "account.labs.refused"})
	case err != nil:
		return err
	}
	web.Event(ctx, "link.made", "link", link.ID)
	return web.Redirect(w, r, "/account/labs")
}

// PostUnlink ends the link for good, and every app's access with it.
// POST /account/labs/unlink
func (a *Account) PostUnlink(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	s, err := a.owner(w, r, 2, fresh)
	if s == nil {
		return err
	}
	form, err := web.Form(r)
	if err != nil {
		return err
	}
	if !hmac.Equal([]byte(form.Get("mark")), []byte(a.mark(s))) {
		return web.Redirect(w, r, "/account/labs") // somebody else's page
	}
	link, err := a.link(ctx, s.PatientID)
	if err != nil {
		return err
	}
	err = a.act(ctx, s, func(ctx context.Context) error {
		now := storage.Now()
		if err := a.db.Unlink(ctx, s.PatientID, link.ID, now); err != nil {
			return err
		}
		return a.db.RevokePatientGrants(ctx, s.PatientID, "link ended", now)
	})
	if err != nil {
		return fmt.Errorf("unlink: %w", err)
	}
	web.Event(ctx, "link.ended", "link", link.ID)
	return web.Redirect(w, r, "/account/labs")
}

// mark is what the page of the lab record says about who saw it: two tabs of one
// browser may be signed in as two patients, one after the other.
func (a *Account) mark(s *storage.Session) string {
	return hex.EncodeToString(a.db.MAC("labs-page", []byte(s.PatientID)))
}

// link is the patient's live link, suspended or not; ErrNotFound for none.
func (a *Account) link(ctx context.Context, patientID string) (storage.Link, error) {
	all, err := a.db.Links(ctx, patientID)
	if err != nil {
		return storage.Link{}, err
	}
	for _, l := range all {
		if l.EndedAt == nil {
			return l, nil
		}
	}
	return storage.Link{}, storage.ErrNotFound
}

// record is the patient's linked record; nil where none is linked.
func (a *Account) record(ctx context.Context, patientID, lang string) (*record, error) {
	link, err := a.link(ctx, patientID)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := record{Since: at(lang, link.MadeAt), Suspended: link.State == storage.LinkSuspended}
	if out.Suspended {
		return &out, nil
	}
	identity, err := a.db.LabIdentityByID(ctx, link.LabIdentityID)
	if err != nil {
		return nil, err
	}
	authorities, err := a.db.LabAuthorities(ctx)
	if err != nil {
		return nil, err
	}
	out.Number = mask(identity.Value)
	out.Authority = identity.Authority
	for _, authority := range authorities {
		if authority.ID == identity.Authority && authority.Name != "" {
			out.Authority = authority.Name
		}
	}
	return &out, nil
}

// mask leaves of a record number what its owner knows it by: the end, at most
// four characters and at most half of it. How long it is does not show.
func mask(number string) string {
	runes := []rune(strings.TrimSpace(number))
	return "••••" + string(runes[len(runes)-min(4, len(runes)/2):])
}
