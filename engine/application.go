package engine

import (
	"context"
	"sync"
	"time"

	"github.com/google/btree"

	"p11fs/p11"
	"p11fs/secret"
)

// Owner says whose application it is.
type Owner struct {
	UID, GID uint32
	Groups   []uint32 // the supplementary ones; nil where they are not known
	PID      int      // of whoever made the application; 0 where it is not known
	Door     string   // the way it came: "files", "rpc"
	Command  string   // what PID calls itself; empty where it is not known
	Unit     string   // the systemd unit that it is of; empty where it is of none, or that is not known
	// LoginForToken: token objects are made, changed and destroyed only after a
	// login, of the user or the security officer. PKCS#11 lets everybody do it where
	// they are not private.
	LoginForToken bool
}

// An Application is what PKCS#11 calls one: what shares logins, sessions and
// session objects, and sees nothing of any other's.
type Application struct {
	engine    *Engine
	number    uint64
	owner     Owner
	account   *Account
	defaults  Defaults
	mask      p11.ObjectHandle // of handles of what is seen by grants: see login.mask
	since     time.Time
	grantings sync.Map // *Slot to *granting: the newest
	events    slotEvents
	calls     callSum
	makings   ongoing[Busy] // keys that a token is making, which are no operations
	lockWaits ongoing[LockWait]

	mu       sync.RWMutex            // guards all below; 1st in the order of doc.go
	closed   bool                    //
	last     p11.SessionHandle       // the newest session's handle
	sessions *btree.BTreeG[*Session] // by handle
	slots    map[*Slot]*appSlot      // made at the first session on a slot, kept
}

func newApplication(e *Engine, owner Owner, d Defaults) *Application {
	return &Application{
		engine:   e,
		owner:    owner,
		account:  e.Account(owner.UID),
		defaults: d,
		mask:     newMask(),
		since:    e.now(),
		events:   slotEvents{news: make(chan struct{}, 1)},
		sessions: btree.NewG(treeDegree, func(a, b *Session) bool { return a.handle < b.handle }),
		slots:    make(map[*Slot]*appSlot),
	}
}

// Owner says whose application it is.
func (a *Application) Owner() Owner { return a.owner }

// Close ends all sessions, logins and session objects of the application, which
// opens no more. It may be called again.
func (a *Application) Close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	for _, s := range a.Sessions(nil) {
		_ = s.Close() // another may have closed it meanwhile
	}
	a.engine.forget(a)
	for _, w := range a.engine.watchers.all() {
		if w.app == a {
			w.end()
		}
	}
}

// OpenSession is C_OpenSession (PKCS#11 v3.1 §5.6.1). Handles count up from 1 and
// are not used again. No session is asynchronous (PKCS#11 v3.2 §5.6.1).
func (a *Application) OpenSession(ctx context.Context, slot *Slot, flags p11.Flags) (*Session, error) {
	if flags&p11.CKF_SERIAL_SESSION == 0 {
		return nil, p11.Errorf(p11.CKR_SESSION_PARALLEL_NOT_SUPPORTED, "a session that is not serial is not possible")
	}
	if flags&p11.CKF_ASYNC_SESSION != 0 {
		return nil, p11.Errorf(p11.CKR_SESSION_ASYNC_NOT_SUPPORTED, "no token here has asynchronous sessions")
	}
	if slot.token == nil {
		return nil, slot.absent()
	}
	rw := flags&p11.CKF_RW_SESSION != 0
	if rw {
		info, err := slot.token.Info(ctx)
		if err != nil {
			return nil, err
		}
		if info.Flags&p11.CKF_WRITE_PROTECTED != 0 {
			return nil, p11.Errorf(p11.CKR_TOKEN_WRITE_PROTECTED, "token %s is write-protected", slot.Name())
		}
	}
	if err := interrupted(ctx); err != nil {
		return nil, err
	}
	if err := a.engine.quota.take(a.owner.UID, a.engine.limits, 1, 0); err != nil {
		return nil, err
	}
	if err := slot.enter(ctx, rw); err != nil {
		a.engine.quota.give(a.owner.UID, 1, 0)
		return nil, err
	}
	s, err := a.addSession(slot, rw)
	if err != nil {
		slot.leave(rw)
		a.engine.quota.give(a.owner.UID, 1, 0)
		return nil, err
	}
	a.engine.sessions.Add(1)
	// Counted before the slot was removed, and there after its sessions were closed.
	if slot.isRemoved() {
		_ = s.Close() // it may have been closed already
		return nil, slot.gone()
	}
	return s, nil
}

func (a *Application) addSession(slot *Slot, rw bool) (*Session, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, p11.Errorf(p11.CKR_CRYPTOKI_NOT_INITIALIZED, "the application has ended")
	}
	st := a.slots[slot]
	if st == nil {
		st = newAppSlot(a, slot)
		a.slots[slot] = st
	}
	if err := st.join(rw); err != nil {
		return nil, err
	}
	a.last++
	s := newSession(st, a.last, rw)
	a.sessions.ReplaceOrInsert(s)
	return s, nil
}

// removeSession takes s out of the tree, and says whether it was there.
func (a *Application) removeSession(s *Session) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.sessions.Delete(s)
	return ok
}

// Session returns the application's session with that handle, or
// CKR_SESSION_HANDLE_INVALID.
func (a *Application) Session(h p11.SessionHandle) (*Session, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if s, ok := a.sessions.Get(&Session{handle: h}); ok {
		return s, nil
	}
	return nil, p11.Errorf(p11.CKR_SESSION_HANDLE_INVALID, "there is no session %d", uint64(h))
}

// Sessions returns the application's sessions on slot, or on every slot for nil,
// in the order of their handles.
func (a *Application) Sessions(slot *Slot) []*Session {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var list []*Session
	a.sessions.Ascend(func(s *Session) bool {
		if slot == nil || s.appSlot.slot == slot {
			list = append(list, s)
		}
		return true
	})
	return list
}

// CloseAllSessions is C_CloseAllSessions (PKCS#11 v3.1 §5.6.3).
func (a *Application) CloseAllSessions(slot *Slot) error {
	for _, s := range a.Sessions(slot) {
		_ = s.Close() // another may have closed it meanwhile
	}
	return nil
}

// InitToken is C_InitToken (PKCS#11 v3.1 §5.5.7). It fails with
// CKR_SESSION_EXISTS while any application has a session with the token.
func (a *Application) InitToken(ctx context.Context, slot *Slot, pin *secret.Bytes, label string) error {
	if slot.token == nil {
		return slot.absent()
	}
	if len(label) > 32 {
		return p11.Errorf(p11.CKR_ARGUMENTS_BAD, "the label has %d bytes and may have 32", len(label))
	}
	// What can be refused waits for no turn; nobody is kept out while the PIN waits.
	end, err := slot.beginInit(ctx)
	if err != nil {
		a.engine.logHolders(ctx, slot, a.owner)
		return err
	}
	end()
	err = slot.tryPIN(ctx, a.owner, p11.CKU_SO, func() error {
		if end, err = slot.beginInit(ctx); err != nil {
			a.engine.logHolders(ctx, slot, a.owner)
			return err
		}
		defer end()
		if err := interrupted(ctx); err != nil {
			return err
		}
		if err := slot.token.InitToken(ctx, pin, label); err != nil {
			return err
		}
		slot.tries.forget(p11.CKU_USER)
		slot.Release("the token was initialised")
		slot.epoch.Add(1)
		slot.tell(TokenInitialised, 0, nil)
		return nil
	})
	if err != nil {
		return err
	}
	a.engine.log.Info("token initialised", "token", slot.Name(), "uid", a.owner.UID)
	return nil
}

// LoggedIn says who is logged in to the slot's token; not ok means nobody.
func (a *Application) LoggedIn(slot *Slot) (user p11.UserType, ok bool) {
	if l := a.login(slot); l != nil {
		return l.user, true
	}
	return 0, false
}

// LoginGeneration returns a number that differs after each login, logout,
// lock-out and token initialisation from all it was before: what was learned
// under another generation is to be asked for again. So it differs after each change of
// grants, where nobody is logged in.
func (a *Application) LoginGeneration(slot *Slot) uint64 {
	epoch := slot.epoch.Load()
	if a.login(slot) == nil {
		slot.holding()
		epoch += slot.granted.Load() << 40 // there are never so many logins
	}
	st := a.on(slot)
	if st == nil {
		return epoch
	}
	return st.generation.Load() + epoch
}

// on returns the application's part of slot, or nil when it never had a
// session there.
func (a *Application) on(slot *Slot) *appSlot {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.slots[slot]
}

func (a *Application) login(slot *Slot) *login {
	st := a.on(slot)
	if st == nil {
		return nil
	}
	return st.current()
}
