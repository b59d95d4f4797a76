package mountd

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// LineHandler returns a handler that has write make a line of each record from level
// least on. text is its message and attributes on one line, "text key=value …"; own is
// the value of the attribute called key, which is no part of text then, and empty
// without one. Calls of write come one after the other.
func LineHandler(least slog.Level, key string, write func(r slog.Record, own, text string) error) slog.Handler {
	out := &lineOutput{key: key, write: write}
	plain := func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
			return slog.Attr{}
		}
		a.Value = slog.StringValue(blankControls(a.Value.String()))
		return a
	}
	return &lineHandler{out: out, attrs: slog.NewTextHandler(&out.attrs, &slog.HandlerOptions{Level: least, ReplaceAttr: plain})}
}

// lineOutput is what the handlers of one log share.
type lineOutput struct {
	key   string
	write func(r slog.Record, own, text string) error
	mu    sync.Mutex // guards attrs, and is held over write
	attrs bytes.Buffer
}

type lineHandler struct {
	out     *lineOutput
	own     string
	grouped bool         // keys are not own any more
	attrs   slog.Handler // writes attributes into out.attrs
}

// Enabled implements slog.Handler.
func (h *lineHandler) Enabled(ctx context.Context, l slog.Level) bool { return h.attrs.Enabled(ctx, l) }

// Handle implements slog.Handler.
func (h *lineHandler) Handle(ctx context.Context, r slog.Record) error {
	var attrs []slog.Attr
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, a)
		return true
	})
	own, attrs := h.takeOwn(attrs)
	bare := slog.NewRecord(time.Time{}, r.Level, "", 0)
	bare.AddAttrs(attrs...)
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	h.out.attrs.Reset()
	if err := h.attrs.Handle(ctx, bare); err != nil {
		return err
	}
	return h.out.write(r, own, strings.TrimSpace(blankControls(r.Message)+" "+strings.TrimSpace(h.out.attrs.String())))
}

// takeOwn takes the attribute called key out of attrs.
func (h *lineHandler) takeOwn(attrs []slog.Attr) (own string, rest []slog.Attr) {
	own = h.own
	for _, a := range attrs {
		if a.Key == h.out.key && !h.grouped {
			own = blankControls(a.Value.Resolve().String())
		} else {
			rest = append(rest, a)
		}
	}
	return own, rest
}

// WithAttrs implements slog.Handler.
func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	own, attrs := h.takeOwn(attrs)
	return &lineHandler{h.out, own, h.grouped, h.attrs.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h *lineHandler) WithGroup(name string) slog.Handler {
	return &lineHandler{h.out, h.own, h.grouped || name != "", h.attrs.WithGroup(name)}
}

// blankControls keeps a text on one line.
func blankControls(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
