package main

import (
	"io"
	"log/slog"
)

// logTo makes the log of the process JSON lines on w.
func logTo(w io.Writer, level slog.Level) {
	slog.SetDefault(slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})))
}
