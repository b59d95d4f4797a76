package mountd

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// In quietTime not more than quietLines records of one message are logged, and then how
// many were left out: what clients do wrong, they can do a thousand times a second.
const (
	quietTime  = time.Minute
	quietLines = 50
	// maxQuiet is how many messages are counted; nearly all are constants.
	maxQuiet = 256
)

// quietHandler passes on what is not said too often. What is for debugging always passes.
type quietHandler struct {
	slog.Handler
	said *saidLines
}

// saidLines is what has been said.
type saidLines struct {
	mu       sync.Mutex // guards all below; a handler is called under it
	messages map[string]*saidMessage
}

type saidMessage struct {
	since time.Time // when its time began
	lines int
}

func newQuietHandler(h slog.Handler) slog.Handler {
	return quietHandler{h, &saidLines{messages: make(map[string]*saidMessage)}}
}

// Handle implements slog.Handler.
func (h quietHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelInfo {
		return h.Handler.Handle(ctx, r)
	}
	h.said.mu.Lock()
	defer h.said.mu.Unlock()
	m := h.said.messages[r.Message]
	switch {
	case m == nil && len(h.said.messages) >= maxQuiet:
		return h.Handler.Handle(ctx, r)
	case m == nil:
		m = &saidMessage{since: r.Time}
		h.said.messages[r.Message] = m
	case r.Time.Sub(m.since) >= quietTime || r.Time.Before(m.since):
		if n := m.lines - quietLines; n > 0 {
			r.AddAttrs(slog.Int("omitted", n))
		}
		*m = saidMessage{since: r.Time}
	}
	switch m.lines++; {
	case m.lines > quietLines:
		return nil
	case m.lines == quietLines:
		r.AddAttrs(slog.String("more", "are left out for a minute"))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h quietHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return quietHandler{h.Handler.WithAttrs(attrs), h.said}
}

// WithGroup implements slog.Handler.
func (h quietHandler) WithGroup(name string) slog.Handler {
	return quietHandler{h.Handler.WithGroup(name), h.said}
}
