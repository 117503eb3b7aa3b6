package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/lis"
	"github.com/pat-authenticate/patauth/provider"
)

func TestStoppingDrainsAndFinishesWhatItBegan(t *testing.T) {
	begun, let := make(chan bool), make(chan bool)
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(begun)
			<-let
		}
		io.WriteString(w, "done")
	})
	l, err := listen("listen", "127.0.0.1:0")
	require.NoError(t, err)
	at := "http://" + l.Addr().String()
	health := &provider.Health{}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, health, 500*time.Millisecond, serve(l, slow, nil)) }()

	answer := make(chan string, 1)
	go func() {
		r, err := http.Get(at + "/slow")
		if err != nil {
			answer <- err.Error()
			return
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		answer <- string(b)
	}()
	<-begun
	stop()
	require.Eventually(t, func() bool { return len(health.Reasons(context.Background())) == 1 }, time.Second, time.Millisecond)
	r, err := http.Get(at + "/")
	require.NoError(t, err, "whoever has not heard yet is still answered")
	r.Body.Close()
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			c.Close()
		}
		return err != nil
	}, 2*time.Second, 10*time.Millisecond, "then nobody new is let in")
	select {
	case <-ended:
		t.Fatal("it must wait for the request it has begun")
	default:
	}
	close(let)
	require.Equal(t, "done", <-answer)
	require.NoError(t, <-ended)
}

func TestAJobThatFailsStopsTheOthers(t *testing.T) {
	broken := errors.New("broken")
	err := run(context.Background(), &provider.Health{}, time.Hour,
		func(context.Context) error { return broken },
		func(ctx context.Context) error { <-ctx.Done(); return nil },
	)
	require.ErrorIs(t, err, broken)
}

// free is an address nobody listens on.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// Each workload, started as a process would be.
func TestWorkloadsStartAndStop(t *testing.T) {
	brokers, stopBroker, err := lis.DevBroker("lis.patient.v1", "lis.patient.v1.dlq")
	require.NoError(t, err)
	t.Cleanup(stopBroker)
	env := append(sqliteEnv(t), "PATAUTH_KAFKA_BROKERS="+brokers, "PATAUTH_REDIS_URL=redis://"+miniredis.RunT(t).Addr(), "PATAUTH_DRAIN=0s",
		"PATAUTH_SMTP_HOST=localhost", "PATAUTH_SMTP_FROM=id@example.org", "PATAUTH_SMTP_STARTTLS=none")
	must[any](t, env, "migrate")
	must[any](t, env, "key", "rotate") // the first keys take their time
	_, err = patauth(t, env, "cron")
	require.NoError(t, err)
	for _, workload := range []string{"app", "consumer", "worker"} {
		t.Run(workload, func(t *testing.T) {
			internal, public := free(t), free(t)
			ctx, stop := context.WithCancel(context.Background())
			cmd := newCommand(append(env, "PATAUTH_LISTEN="+public, "PATAUTH_INTERNAL_LISTEN="+internal))
			cmd.SetArgs([]string{workload})
			cmd.SetErr(io.Discard)
			ended := make(chan error, 1)
			go func() { ended <- cmd.ExecuteContext(ctx) }()
			require.Eventually(t, func() bool {
				r, err := http.Get("http://" + internal + "/readyz")
				if err != nil {
					return false
				}
				r.Body.Close()
				return r.StatusCode == 200
			}, 10*time.Second, 20*time.Millisecond)
			if workload == "app" {
				r, err := http.Get("http://" + public + "/.well-known/openid-configuration")
				require.NoError(t, err)
				r.Body.Close()
				require.Equal(t, 200, r.StatusCode)
			}
			stop()
			require.NoError(t, <-ended)
		})
	}
}
