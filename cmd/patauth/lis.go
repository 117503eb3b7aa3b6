package main

import (
	"context"
	"errors"
)

// deadLetters publishes quarantined events on the dead letter topic. Without
// brokers there is no feed, and nothing that could be published.
func deadLetters(c Config) func(context.Context, string) error {
	return func(context.Context, string) error { return errors.New("kafka.brokers is not set") }
}
