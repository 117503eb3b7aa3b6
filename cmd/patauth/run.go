package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pat-authenticate/patauth/provider"
	"github.com/pat-authenticate/patauth/provider/web"
)

// finishWithin bounds how long a stopping server waits for the requests it has
// begun to answer.
const finishWithin = 30 * time.Second

// A job runs until its context ends, and returns early only with an error.
type job func(context.Context) error

// run runs jobs until ctx ends or one of them fails. When ctx ends, health says
// that the process is draining, the jobs go on for drain, and then they are told
// to stop.
func run(ctx context.Context, health *provider.Health, drain time.Duration, jobs ...job) error {
	g, running := errgroup.WithContext(context.WithoutCancel(ctx))
	running, stop := context.WithCancel(running)
	defer stop()
	g.Go(func() error {
		select {
		case <-running.Done(): // a job has failed
		case <-ctx.Done():
			health.Drain()
			slog.Info("draining", "for", drain.String())
			select {
			case <-running.Done():
			case <-time.After(drain):
			}
		}
		stop()
		return nil
	})
	for _, j := range jobs {
		g.Go(func() error { return j(running) })
	}
	err := g.Wait()
	slog.Info("stopped")
	return err
}

// serve is a job that answers on a listener. When it is told to stop it takes no
// more connections and finishes what it has begun.
func serve(l net.Listener, h http.Handler, cert *tls.Certificate) job {
	return server(l, web.NewServer(h), cert)
}

// serveInternal is serve for the internal listener, whose profiles take longer.
func serveInternal(l net.Listener, h http.Handler) job {
	s := web.NewServer(h)
	s.WriteTimeout = 2 * time.Minute
	return server(l, s, nil)
}

func server(l net.Listener, s *http.Server, cert *tls.Certificate) job {
	if cert != nil {
		s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS12}
	}
	s.ErrorLog = slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn)
	return func(ctx context.Context) error {
		done := make(chan error, 1)
		go func() {
			<-ctx.Done()
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishWithin)
			defer cancel()
			err := s.Shutdown(ctx)
			if err != nil {
				s.Close()
				err = fmt.Errorf("requests were cut off after %s: %w", finishWithin, err)
			}
			done <- err
		}()
		var err error
		if cert != nil {
			err = s.ServeTLS(l, "", "")
		} else {
			err = s.Serve(l)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", l.Addr(), err)
		}
		return <-done
	}
}

// listen opens a listener for the setting named key.
func listen(key, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return l, nil
}
