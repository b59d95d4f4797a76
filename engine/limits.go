package engine

import (
	"fmt"
	"sync"

	"p11fs/p11"
	"p11fs/tokens"
)

// Limits bounds what one uid may hold in all its applications together. Zero
// means the default, a negative number no limit.
type Limits struct {
	Sessions       int // 4096
	SessionObjects int // 16384
	// Bytes of session objects, of what searches found, and of what the doors keep
	// for the uid's clients: 192 MiB, and less while others hold much. See Account.Take.
	Bytes int64
	// Public are the bytes that the public objects of a token have when nobody who has not
	// logged in there makes more of them, whichever uid: 64 MiB.
	Public int64
}

func (l Limits) withDefaults() Limits {
	if l.Sessions == 0 {
		l.Sessions = 4096
	}
	if l.SessionObjects == 0 {
		l.SessionObjects = 16384
	}
	if l.Bytes == 0 {
		l.Bytes = 192 << 20
	}
	if l.Public == 0 {
		l.Public = 64 << 20
	}
	return l
}

// mayGrow refuses more of a public token object to who has not logged in, where such objects
// take much together: they stay, and are in no account. was is nil for a new one.
func (s *Session) mayGrow(was, attrs p11.Attributes) error {
	if !attrs.Bool(p11.CKA_TOKEN) || attrs.Bool(p11.CKA_PRIVATE) {
		return nil
	}
	more := tokens.SizeOf(attrs)
	if was != nil {
		more -= tokens.SizeOf(was)
	}
	most := s.appSlot.app.engine.limits.Public
	if more <= 0 || most < 0 || int64(s.appSlot.slot.token.PublicSize()+more) <= most {
		return nil
	}
	return p11.Advise(p11.Errorf(p11.CKR_DEVICE_MEMORY, "the public objects of the token have all %d bytes that they may have without a login", most),
		"log in, or destroy some")
}

// A LimitError says that a uid holds all it may. It wraps CKR_SESSION_COUNT for
// sessions and CKR_DEVICE_MEMORY for session objects and memory.
type LimitError struct {
	UID  uint32
	What string // "sessions", "session objects" or "bytes"
	Max  int64
	rv   p11.RV
}

// Error gives the reason.
func (e *LimitError) Error() string {
	return fmt.Sprintf("uid %d has all %d %s that a user may have", e.UID, e.Max, e.What)
}

// Unwrap returns the CK_RV.
func (e *LimitError) Unwrap() error { return e.rv }

// usage is what one uid holds.
type usage struct{ sessions, objects int }

// quota counts what each uid holds.
type quota struct {
	mu       sync.Mutex // guards all below and what users holds; 7th in the order of doc.go
	users    map[uint32]*usage
	accounts map[uint32]*Account
}

func (q *quota) take(uid uint32, l Limits, sessions, objects int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	u := q.users[uid]
	if u == nil {
		u = new(usage)
		q.users[uid] = u
	}
	if sessions > 0 && l.Sessions >= 0 && u.sessions+sessions > l.Sessions {
		return &LimitError{UID: uid, What: "sessions", Max: int64(l.Sessions), rv: p11.CKR_SESSION_COUNT}
	}
	if objects > 0 && l.SessionObjects >= 0 && u.objects+objects > l.SessionObjects {
		return &LimitError{UID: uid, What: "session objects", Max: int64(l.SessionObjects), rv: p11.CKR_DEVICE_MEMORY}
	}
	u.sessions += sessions
	u.objects += objects
	if *u == (usage{}) {
		delete(q.users, uid)
	}
	return nil
}

func (q *quota) give(uid uint32, sessions, objects int) {
	// Giving back never meets a limit.
	_ = q.take(uid, Limits{}, -sessions, -objects)
}
