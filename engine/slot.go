package engine

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
)

// A Slot is a place for a token.
type Slot struct {
	engine     *Engine
	id         p11.SlotID
	serial     uint64 // of no other slot, also of one that had the number before
	config     SlotConfig
	token      tokens.Token // nil when absent
	table      SessionTable // nil when no other process shares the token
	mechanisms atomic.Pointer[mechanismTable]
	unwatch    func() // ends tokens.Watcher; nil where there is none
	untell     func() // ends tokens.Teller, likewise
	looking    atomic.Bool
	looked     lookedAt // by who has set looking
	handles    handleTree
	tries      *pinTries
	counter    atomic.Uint64 // the last login generation given out
	epoch      atomic.Uint64 // how often the token was initialised here
	held       atomic.Pointer[hold]
	calls      callTimes
	granted    atomic.Uint64 // how often the grants or the held login changed

	mu           sync.Mutex    // guards all below; 5th in the order of doc.go
	sessions     int           // of all applications
	rwSessions   int           // the read-write ones of them
	initialising chan struct{} // closed when a running C_InitToken, or removal, ends; nil when none runs
	removed      bool          // it is none of the engine's any more
}

func newSlot(e *Engine, c SlotConfig, table SessionTable) *Slot {
	s := &Slot{engine: e, id: c.ID, config: c, token: c.Token, table: table, serial: e.serials.Add(1), tries: newPINTries(e.pinDelay)}
	s.handles.init()
	s.readMechanisms()
	if w, ok := c.Token.(tokens.Watcher); ok {
		s.unwatch = w.Watch(func() {
			s.readMechanisms()
			e.lookSoon()
		})
	}
	if t, ok := c.Token.(tokens.Teller); ok {
		s.untell = t.Tell(s.heard)
	}
	return s
}

// A mechanismTable is a token's mechanism list, as the policy leaves it.
type mechanismTable struct {
	list   []p11.MechanismInfo
	byType map[p11.MechanismType]p11.MechanismInfo
}

// readMechanisms reads the token's mechanism list.
func (s *Slot) readMechanisms() {
	if s.token == nil {
		return
	}
	t := &mechanismTable{slices.Clone(s.engine.policy.List(s.token.Mechanisms())), make(map[p11.MechanismType]p11.MechanismInfo)}
	for i, m := range t.list {
		m.Flags = offered(m.Flags)
		t.list[i], t.byType[m.Type] = m, m
	}
	s.mechanisms.Store(t)
}

// hearNoMore ends what the token tells.
func (s *Slot) hearNoMore() {
	for _, end := range []func(){s.unwatch, s.untell} {
		if end != nil {
			end()
		}
	}
}

// Serial is a number that no other slot has, also none that had the slot's number before.
func (s *Slot) Serial() uint64 { return s.serial }

// ID is the slot's number.
func (s *Slot) ID() p11.SlotID { return s.id }

// Name is the name of the token's directory, or empty for an empty slot.
func (s *Slot) Name() string {
	if s.token == nil {
		return ""
	}
	return s.token.Name()
}

// Kind is the kind of token, such as "swtok", or empty for an empty slot.
func (s *Slot) Kind() string {
	if s.token == nil {
		return ""
	}
	return s.token.Kind()
}

// Present says whether the slot has a token.
func (s *Slot) Present() bool { return s.token != nil }

// Refresh has the token look at what others did to it, which may have ended logins.
func (s *Slot) Refresh(ctx context.Context) error {
	if s.token == nil {
		return s.absent()
	}
	return s.token.Refresh(ctx)
}

// Info is C_GetSlotInfo (PKCS#11 v3.1 §5.5.2).
func (s *Slot) Info() p11.SlotInfo {
	info := p11.SlotInfo{
		Description:     s.config.Description,
		Manufacturer:    s.config.Manufacturer,
		HardwareVersion: s.config.Hardware,
		FirmwareVersion: s.config.Firmware,
	}
	if s.token != nil {
		info.Flags |= p11.CKF_TOKEN_PRESENT
	}
	return info
}

// TokenInfo is C_GetTokenInfo (PKCS#11 v3.1 §5.5.3), with the engine's session
// counts. Where the token does not know how many there may be, that is what the
// engine allows: programs take CK_UNAVAILABLE_INFORMATION for a small number.
func (s *Slot) TokenInfo(ctx context.Context) (p11.TokenInfo, error) {
	if s.token == nil {
		return p11.TokenInfo{}, s.absent()
	}
	info, err := s.token.Info(ctx)
	if err != nil {
		return p11.TokenInfo{}, err
	}
	others, err := s.othersSessions(ctx)
	if err != nil {
		return p11.TokenInfo{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	most := uint64(max(s.engine.limits.Sessions, 0)) // 0: no limit
	if info.MaxSessions == p11.Unavailable {
		info.MaxSessions = most
	}
	if info.MaxRWSessions == p11.Unavailable {
		info.MaxRWSessions = most
	}
	info.Sessions, info.RWSessions = uint64(s.sessions)+others, uint64(s.rwSessions)
	return info, nil
}

// othersSessions is the number of sessions that other processes have with the
// token. They do not tell which are read-write.
func (s *Slot) othersSessions(ctx context.Context) (uint64, error) {
	if s.table == nil {
		return 0, nil
	}
	return s.table.Others(ctx, s.id)
}

// Mechanisms is C_GetMechanismList with C_GetMechanismInfo of each, in the
// token's order, as the policy leaves it. The caller does not change it.
func (s *Slot) Mechanisms() []p11.MechanismInfo {
	if s.token == nil {
		return nil
	}
	return s.mechanisms.Load().list
}

// Mechanism is C_GetMechanismInfo (PKCS#11 v3.1 §5.5.6).
func (s *Slot) Mechanism(t p11.MechanismType) (p11.MechanismInfo, error) {
	if s.token == nil {
		return p11.MechanismInfo{}, s.absent()
	}
	m, ok := s.mechanisms.Load().byType[t]
	if !ok && s.forbidden(t) {
		return p11.MechanismInfo{}, p11.Advise(p11.Errorf(p11.CKR_MECHANISM_INVALID, "the policy in %s does not allow %s", s.engine.policy.Name, t.Short()),
			"use one that the token's list of mechanisms has")
	}
	if !ok {
		return p11.MechanismInfo{}, p11.Errorf(p11.CKR_MECHANISM_INVALID, "token %s has no mechanism %s", s.Name(), t.Short())
	}
	return m, nil
}

// forbidden says whether it is the policy that keeps the token's mechanism out.
func (s *Slot) forbidden(t p11.MechanismType) bool {
	return s.engine.policy != nil && slices.ContainsFunc(s.token.Mechanisms(), func(m p11.MechanismInfo) bool { return m.Type == t })
}

// usable checks that the token has the mechanism for that use (a CKF_ flag of
// CK_MECHANISM_INFO).
func (s *Slot) usable(t p11.MechanismType, use p11.Flags, what string) error {
	m, err := s.Mechanism(t)
	if err != nil {
		return err
	}
	if m.Flags&use == 0 {
		return p11.Errorf(p11.CKR_MECHANISM_INVALID, "mechanism %s cannot %s", t.Short(), what)
	}
	return nil
}

// worksWith refuses an asymmetric key that no mechanism of the token could ever use. A
// secret key can at least be wrapped.
func (s *Slot) worksWith(attrs p11.Attributes) error {
	class, _ := attrs.Class()
	kt, ok := attrs.KeyType()
	if !ok || class != p11.CKO_PUBLIC_KEY && class != p11.CKO_PRIVATE_KEY {
		return nil
	}
	for _, m := range s.Mechanisms() {
		if facts, known := p11.MechanismFacts(m.Type); known && m.Flags&p11.CKF_GENERATE_KEY_PAIR == 0 && slices.Contains(facts.KeyTypes, kt) {
			return nil
		}
	}
	return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "key-type: the token has no mechanism for keys of type %s: its list says what it has", kt.Short())
}

// Arithmetic is that of the token's curves, nil if it tells none.
func (s *Slot) Arithmetic() pkix.Arithmetic {
	if c, ok := s.token.(tokens.Calculator); ok {
		return c.Arithmetic()
	}
	return nil
}

// Offline returns nil, or why the keys of the slot's token cannot be used now
// (tokens.Offliner).
func (s *Slot) Offline() error {
	if o, ok := s.token.(tokens.Offliner); ok {
		return o.Offline()
	}
	return nil
}

// online is Offline as the answer to a call.
func (s *Slot) online() error {
	err := s.Offline()
	if err == nil {
		return nil
	}
	rv := p11.CKR_DEVICE_REMOVED
	if p11.RVOf(err) == p11.CKR_DEVICE_ERROR { // the kind says so of what nobody has taken out
		rv = p11.CKR_DEVICE_ERROR
	}
	return p11.Errorf(rv, "token %s is offline: %w", s.Name(), err)
}

func (s *Slot) absent() error {
	return p11.Errorf(p11.CKR_TOKEN_NOT_PRESENT, "slot %d has no token", uint64(s.id))
}

// generation returns a number never returned before.
func (s *Slot) generation() uint64 { return s.counter.Add(1) }

// enter counts a new session, waiting for a C_InitToken that runs.
func (s *Slot) enter(ctx context.Context, rw bool) error {
	for {
		s.mu.Lock()
		wait := s.initialising
		if s.removed {
			s.mu.Unlock()
			return s.gone()
		}
		if wait == nil {
			s.sessions++
			if rw {
				s.rwSessions++
			}
			s.mu.Unlock()
			return s.announce(ctx, rw)
		}
		s.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return interrupted(ctx)
		}
	}
}

// announce tells the other processes of a session that was counted here, and
// takes it back where that fails.
func (s *Slot) announce(ctx context.Context, rw bool) error {
	if s.table == nil {
		return nil
	}
	err := s.table.Opened(ctx, s.id)
	if err != nil {
		s.uncount(rw)
	}
	return err
}

func (s *Slot) leave(rw bool) {
	if s.table != nil {
		if err := s.table.Closed(s.id); err != nil {
			s.engine.log.Warn("a session's end was not told to the other processes", "slot", uint64(s.id), "err", err)
		}
	}
	s.uncount(rw)
}

func (s *Slot) uncount(rw bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions--
	if rw {
		s.rwSessions--
	}
}

// beginInit keeps sessions out until the returned function is called.
// PKCS#11 v3.1 §5.5.7: C_InitToken fails while any application has a session.
func (s *Slot) beginInit(ctx context.Context) (end func(), err error) {
	others, err := s.othersSessions(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.removed {
		return nil, s.gone()
	}
	if s.initialising != nil {
		return nil, p11.Advise(p11.Errorf(p11.CKR_SESSION_EXISTS, "token %s is being initialised or removed already", s.Name()), "wait for it")
	}
	if n := uint64(s.sessions) + others; n > 0 {
		return nil, p11.Errorf(p11.CKR_SESSION_EXISTS, "open sessions on token %s: %d", s.Name(), n)
	}
	return s.excludeLocked(), nil
}

// excludeLocked keeps sessions out until end is called.
func (s *Slot) excludeLocked() (end func()) {
	done := make(chan struct{})
	s.initialising = done
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.initialising = nil
		close(done)
	}
}
