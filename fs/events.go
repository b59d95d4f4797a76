package fs

import (
	"bytes"
	"context"
	"fmt"
	"syscall"

	"p11fs/engine"
	"p11fs/p11"
)

// eventsFile is what happens to the token, or to all, one line each: a read waits for the
// next. What is kept for it counts to who opened it.
func (p place) eventsFile() *file {
	return &file{open: func(_ context.Context, c caller, flags uint32) (*handle, error) {
		if _, write := wants(flags); write {
			return nil, errReadOnly
		}
		viewer := p.fs.callers.nobody
		a, err := p.fs.callers.get(c)
		if err == nil {
			viewer = a.eng
		}
		w := viewer.Watch(p.slot, p.owns(c.uid) && c.pid != 0)
		e := &openEvents{fs: p.fs, watcher: w}
		h := p.newHandle(a)
		h.news, h.read, h.giveBack = w.News(), e.read, w.Close
		// As of a pipe: what was read is gone, and another may read meanwhile.
		h.stream, h.nonblock = true, flags&syscall.O_NONBLOCK != 0
		return h, nil
	}}
}

// openEvents is the file while it is open.
type openEvents struct {
	fs      *FS
	watcher *engine.Watcher
	rest    []byte // of lines that were read in part
}

func (o *openEvents) read(_ context.Context, dest []byte, _ int64) ([]byte, error) {
	for len(o.rest) < len(dest) {
		v, more, ended := o.watcher.Next()
		switch {
		case more:
			o.rest = append(o.rest, eventLine(v)...)
			continue
		case len(o.rest) == 0 && !ended:
			return nil, errNotYet
		}
		break
	}
	n := copy(dest, o.rest)
	o.rest = bytes.Clone(o.rest[n:])
	return dest[:n], nil
}

// eventLine is an event as a line: when, token, what, and more as NAME=VALUE.
func eventLine(v engine.Event) []byte {
	b := fmt.Appendf(nil, "%s %s %s", v.At.UTC().Format("2006-01-02T15:04:05.000Z"), token(v), v.Kind)
	switch v.Kind {
	case engine.ObjectMade, engine.ObjectChanged, engine.ObjectGone:
		b = fmt.Appendf(b, " class=%s label=%q id=0x%x uid=%s", v.Class.Short(), v.Label, v.ID, objectRef{stored: v.UID}.uid())
	case engine.LoggedIn, engine.LoggedOut, engine.PINLocked, engine.PINUnlocked:
		user := "user"
		if v.User == p11.CKU_SO {
			user = "so"
		}
		b = fmt.Appendf(b, " user=%s", user)
	case engine.TokenCame, engine.TokenWent:
		b = fmt.Appendf(b, " slot=%d", uint64(v.Slot))
	case engine.EventsLost:
		b = fmt.Appendf(b, " events=%d", v.Lost)
	}
	return append(b, '\n')
}

// token is the name of the event's token, or - for that of none.
func token(v engine.Event) string {
	if v.Token == "" {
		return "-"
	}
	return v.Token
}
