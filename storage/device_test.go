package storage_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// asking is a device that waits, with its codes, and a grant that it may be given.
func asking(t *testing.T, db *storage.DB) (d storage.Device, deviceCode, userCode string, g storage.Grant) {
	t.Helper()
	g, _, _ = granted(t, db)
	g.ID = storage.NewID()
	d = storage.Device{ClientID: g.ClientID, Scopes: g.Scopes, Audience: g.Audience}
	deviceCode, userCode, err := db.CreateDevice(context.Background(), &d)
	require.NoError(t, err)
	return d, deviceCode, userCode, g
}

func TestADeviceIsFoundByEitherCode(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		d, deviceCode, userCode, _ := asking(t, db)
		require.Regexp(t, `^pa_dc_[A-Za-z0-9_-]{43}$`, deviceCode)
		require.Regexp(t, `^[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}$`, userCode)
		require.False(t, bytes.Contains(d.UserCode, []byte(userCode)), "only its MAC is kept")
		require.Equal(t, d.CreatedAt.Add(10*time.Minute), d.ExpiresAt)

		found, err := db.DeviceByCode(ctx, storage.Digest(deviceCode))
		require.NoError(t, err)
		require.Equal(t, d.ID, found.ID)
		require.Equal(t, d.Scopes, found.Scopes)
		require.Equal(t, d.Audience, found.Audience)
		found, err = db.DeviceByUserCode(ctx, userCode, storage.Now())
		require.NoError(t, err)
		require.Equal(t, d.ID, found.ID)
		_, err = db.WaitingDevice(ctx, d.ID, storage.Now())
		require.NoError(t, err)
	})
}

// Who tries codes learns nothing from one that was good once.
func TestAUserCodeThatIsOverIsNotFound(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		for name, end := range map[string]func(storage.Device, storage.Grant) time.Time{
			"expired": func(d storage.Device, _ storage.Grant) time.Time { return d.ExpiresAt },
			"denied": func(d storage.Device, g storage.Grant) time.Time {
				require.NoError(t, db.DenyDevice(ctx, d.ID, g.PatientID, storage.Now()))
				return storage.Now()
			},
			"approved": func(d storage.Device, g storage.Grant) time.Time {
				require.NoError(t, db.ApproveDevice(ctx, d.ID, g, storage.Now()))
				return storage.Now()
			},
			"used": func(d storage.Device, g storage.Grant) time.Time {
				require.NoError(t, db.ApproveDevice(ctx, d.ID, g, storage.Now()))
				require.NoError(t, db.RedeemDevice(ctx, d.Digest, storage.Now()))
				return storage.Now()
			},
		} {
			d, deviceCode, userCode, g := asking(t, db)
			now := end(d, g)
			_, err := db.DeviceByUserCode(ctx, userCode, now)
			require.ErrorIs(t, err, storage.ErrNotFound, name)
			_, err = db.WaitingDevice(ctx, d.ID, now)
			require.ErrorIs(t, err, storage.ErrSpent, name)
			require.ErrorIs(t, db.DenyDevice(ctx, d.ID, g.PatientID, now), storage.ErrSpent, name)
			g.ID = storage.NewID()
			require.ErrorIs(t, db.ApproveDevice(ctx, d.ID, g, now), storage.ErrSpent, name)
			_, err = db.Grant(ctx, g.ID, now)
			require.ErrorIs(t, err, storage.ErrNotFound, "no grant without its device: %s", name)
			_, err = db.DeviceByCode(ctx, storage.Digest(deviceCode))
			require.NoError(t, err, "the device itself is told: %s", name)
		}
		_, err := db.DeviceByUserCode(ctx, "", storage.Now())
		require.ErrorIs(t, err, storage.ErrNotFound)
	})
}

func TestADeviceIsAnsweredOnce(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		d, deviceCode, _, g := asking(t, db)
		var n int
		answers := make(chan int, 50)
		for i := range 50 {
			answers <- i
		}
		won, spent := race(t, func() error {
			if <-answers%2 == 0 {
				return db.DenyDevice(ctx, d.ID, g.PatientID, storage.Now())
			}
			mine := g
			mine.ID = storage.NewID()
			return db.ApproveDevice(ctx, d.ID, mine, storage.Now())
		})
		require.Equal(t, []int{1, 49}, []int{won, spent})
		d, err := db.DeviceByCode(ctx, storage.Digest(deviceCode))
		require.NoError(t, err)
		require.NotEqual(t, d.GrantID == "", d.DeniedAt == nil, "one or the other")
		audit, err := db.AuditOf(ctx, g.PatientID, 100)
		require.NoError(t, err)
		for _, e := range audit {
			if strings.HasPrefix(e.Event, "device.") {
				require.Equal(t, "device:"+d.ID, e.Object)
				n++
			}
		}
		require.Equal(t, 1, n, "audited once")
	})
}

func TestADeviceCodeIsRedeemedOnce(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		d, _, _, g := asking(t, db)
		require.ErrorIs(t, db.RedeemDevice(ctx, d.Digest, storage.Now()), storage.ErrSpent, "nobody has allowed it")
		require.NoError(t, db.ApproveDevice(ctx, d.ID, g, storage.Now()))
		require.ErrorIs(t, db.RedeemDevice(ctx, d.Digest, d.ExpiresAt), storage.ErrSpent, "too late")
		won, spent := race(t, func() error { return db.RedeemDevice(ctx, d.Digest, storage.Now()) })
		require.Equal(t, []int{1, 49}, []int{won, spent})
	})
}

func TestADeviceKeepsItsPace(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		_, deviceCode, _, _ := asking(t, db)
		t0 := storage.Now()
		for _, c := range []struct {
			at     int // seconds
			inTime bool
			pace   int
		}{
			{0, true, 5}, {5, true, 5}, {9, false, 10}, {18, false, 15}, {33, true, 15}, {47, false, 20}, {67, true, 20},
		} {
			d, err := db.DeviceByCode(ctx, storage.Digest(deviceCode))
			require.NoError(t, err)
			got, err := db.PollDevice(ctx, d, t0.Add(time.Duration(c.at)*time.Second))
			require.NoError(t, err)
			require.Equal(t, c.inTime, got, "after %d s", c.at)
			d, err = db.DeviceByCode(ctx, storage.Digest(deviceCode))
			require.NoError(t, err)
			require.Equal(t, c.pace, d.Pace, "after %d s", c.at)
		}
		d, err := db.DeviceByCode(ctx, storage.Digest(deviceCode))
		require.NoError(t, err)
		won, _ := race(t, func() error {
			inTime, err := db.PollDevice(ctx, d, t0.Add(5*time.Minute))
			if err == nil && !inTime {
				err = storage.ErrSpent
			}
			return err
		})
		require.Equal(t, 1, won, "of many at once one is in time")
	})
}

func TestExpiredDevicesGo(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		d, deviceCode, _, _ := asking(t, db)
		_, err := db.DeleteExpired(ctx, "device", d.ExpiresAt.Add(time.Minute), 100)
		require.NoError(t, err)
		_, err = db.DeviceByCode(ctx, storage.Digest(deviceCode))
		require.NoError(t, err, "kept, to say that it has expired")
		_, err = db.DeleteExpired(ctx, "device", d.ExpiresAt.Add(time.Hour), 100)
		require.NoError(t, err)
		_, err = db.DeviceByCode(ctx, storage.Digest(deviceCode))
		require.ErrorIs(t, err, storage.ErrNotFound)
	})
}

func TestAnAttemptThatWasRightIsForgiven(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, now := context.Background(), storage.Now()
		count := func() int {
			require.NoError(t, db.CountAttempt(ctx, "what", "ada", 10, time.Minute, now))
			n, err := db.Attempts(ctx, "what", "ada", now)
			require.NoError(t, err)
			return n
		}
		require.NoError(t, db.ForgiveAttempt(ctx, "what", "ada"), "nothing to forgive")
		require.Equal(t, 1, count())
		require.Equal(t, 2, count())
		require.NoError(t, db.ForgiveAttempt(ctx, "what", "ada"))
		require.NoError(t, db.ForgiveAttempt(ctx, "what", "eve"))
		require.Equal(t, 2, count())
	})
}

func TestNormalUserCode(t *testing.T) {
	for typed, want := range map[string]string{
		"WDJB-MJHT": "WDJB-MJHT", "wdjbmjht": "WDJB-MJHT", " wdjb mjht ": "WDJB-MJHT", "W D J B\tM J H T": "WDJB-MJHT",
		"wdjb–mjht": "WDJB-MJHT", "WDJB—MJHT": "WDJB-MJHT", "wd-jb-mj-ht-": "WDJB-MJHT", "WDJB\u00a0\u2011\u00a0MJHT": "WDJB-MJHT",
		"": "", "-": "", "WDJB-MJH": "", "WDJB-MJHTT": "", "WDJB-MJHA": "", "WDJB-MJH1": "", "WDJB_MJHT": "", "ſDJB-MJHT": "", "WDJB-MJH\u212a": "",
	} {
		require.Equal(t, want, storage.NormalUserCode(typed), typed)
	}
}

func FuzzUserCode(f *testing.F) {
	f.Add("WDJB-MJHT")
	f.Add("wdjb mjht")
	f.Add("–\u2011-\xff")
	f.Fuzz(func(t *testing.T, typed string) {
		code := storage.NormalUserCode(typed)
		if code == "" {
			return
		}
		require.Regexp(t, `^[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}$`, code)
		require.Equal(t, code, storage.NormalUserCode(code), "it is its own spelling")
		require.Equal(t, code, storage.NormalUserCode(strings.ToLower(code)))
	})
}
