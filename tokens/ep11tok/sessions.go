package ep11tok

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"maps"
	"sync"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/ep11"
	"p11fs/tokens/securekey"
)

// The PIN of a login session of the cards, in bytes, and that of sessions for which nobody has
// set one, as stock has it.
const (
	leastPIN, mostPIN = 8, 16
	strictPIN         = "        "
)

// pinBlobSize is how long what the cards make of a login is: the identifier of the session, a
// salt and a MAC.
const pinBlobSize = ep11.SessionLen + 16 + ep11.MACLen

// A session is a login session of the cards, to which keys are bound: they are of use while
// the cards have it. Logging in with the same PIN and nonce gives the same one again, at each
// card.
type session struct {
	nonce []byte

	mu     sync.Mutex          // guards all below; nothing is locked under it
	pin    *secret.Bytes       // nil once the session has ended
	id     []byte              // nil before the first login
	places map[card.APQN]place // where it was logged in; with any card: of the zero one
	turn   int                 // how often it was

	record p11.ObjectHandle // of a strict one, 0 for none: see note. Guarded by sessions.busy
}

// A place is a domain where a session was logged in.
type place struct {
	blob   []byte // what the card made of the login
	serial string // of the card
}

// domainKey is a domain's in session.places, by the target that reaches it.
func domainKey(target card.Target) card.APQN {
	if len(target) == 0 {
		return card.APQN{}
	}
	return target[0]
}

// at is what a card is given for new keys of a session: nothing for nil. A session in which a
// domain is not logged in gives what a card would that has lost it.
func (s *session) at(target card.Target) ([]byte, error) {
	if s == nil {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.places[domainKey(target)]
	switch {
	case !ok:
		return nil, p11.Errorf(p11.CKR_SESSION_CLOSED, "the card is not logged in")
	case !bytes.Equal(p.blob[:ep11.SessionLen], s.id):
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "the cards have made different login sessions of one PIN, and none could use the keys of another")
	}
	return p.blob, nil
}

// turns is how often a session was logged in.
func (s *session) turns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.turn
}

// is says whether a session has that identifier.
func (s *session) is(id []byte) bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Equal(s.id, id)
}

// sessions are those of a token's logins: with STRICT_MODE each login has one, for the keys
// that end with it, and with VHSM_MODE all of them share one, for private keys.
type sessions struct {
	t    *token
	busy chan struct{} // has room for one: who logs cards in and out; it is before mu

	mu     sync.Mutex // guards all below; only a session's mu is locked under it
	logins map[*boundLogin]struct{}
	vhsm   *session // of the logins that are open; nil before it is wanted
}

func newSessions(t *token) *sessions {
	return &sessions{t: t, busy: make(chan struct{}, 1), logins: make(map[*boundLogin]struct{})}
}

// wanted says whether the token has any.
func (s *sessions) wanted() bool { return s.t.conf.strict || s.t.conf.vhsm }

func (s *sessions) enter(ctx context.Context) error {
	select {
	case s.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *sessions) leave() { <-s.busy }

// A boundLogin is a login of the user, whose sessions of the cards end with it.
type boundLogin struct {
	tokens.Login
	of     *sessions
	strict *session // nil without STRICT_MODE
}

// Close is tokens.Login.
func (l *boundLogin) Close() error {
	l.of.end(l)
	return l.Login.Close()
}

// begin has the sessions of a login begin with it. One that cannot, because no card answers,
// because nobody has set the PIN or because the record cannot be written, begins at its first
// use: the objects can be listed, and destroyed, without.
func (s *sessions) begin(ctx context.Context, login tokens.Login) (tokens.Login, error) {
	l := &boundLogin{Login: login, of: s}
	if s.t.conf.strict {
		var err error
		if l.strict, err = newStrict(); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	first := len(s.logins) == 0
	s.logins[l] = struct{}{}
	s.mu.Unlock()
	err := card.Ask(ctx, func(ctx context.Context) error {
		if first {
			s.sweep(ctx)
		}
		var err error
		if s.t.conf.vhsm {
			_, err = s.shared(ctx)
		}
		if l.strict != nil {
			err = errors.Join(err, s.open(ctx, l.strict, 0))
		}
		return err
	})
	if err != nil {
		level := slog.LevelWarn
		if errors.Is(err, p11.CKR_USER_PIN_NOT_INITIALIZED) {
			level = slog.LevelInfo // who logs in may be about to set it
		}
		s.t.log.Log(ctx, level, "a login session of the cards does not begin yet", "token", s.t.name, "err", failed(err, nil))
	}
	return l, nil
}

// end ends the sessions of a login, that of all with the last one.
func (s *sessions) end(l *boundLogin) {
	s.mu.Lock()
	_, open := s.logins[l]
	delete(s.logins, l)
	var vhsm *session
	if len(s.logins) == 0 {
		vhsm, s.vhsm = s.vhsm, nil
	}
	s.mu.Unlock()
	if !open {
		return
	}
	err := card.Ask(context.Background(), func(ctx context.Context) error {
		if err := s.enter(ctx); err != nil {
			return err
		}
		defer s.leave()
		return errors.Join(s.close(ctx, l.strict), s.close(ctx, vhsm))
	})
	if err != nil {
		s.t.log.Warn("a login session of the cards does not end", "token", s.t.name, "err", failed(err, nil))
	}
}

// endAll ends all of them.
func (s *sessions) endAll() {
	s.mu.Lock()
	var list []*boundLogin
	for l := range s.logins {
		list = append(list, l)
	}
	s.mu.Unlock()
	for _, l := range list {
		s.end(l)
	}
}

// vhsmNonce tells the tokens of a machine apart, as stock has it.
func (t *token) vhsmNonce() []byte {
	return append(binary.BigEndian.AppendUint32(nil, t.slot), "VHSM-session"...)
}

// shared is the session of all logins, logged in.
func (s *sessions) shared(ctx context.Context) (*session, error) {
	s.mu.Lock()
	v, some := s.vhsm, len(s.logins) > 0
	s.mu.Unlock()
	switch {
	case v != nil && v.turns() > 0:
		return v, nil
	case !some:
		return nil, p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "nobody is logged in, and so the cards are not")
	case v == nil:
		pin, err := s.t.sessionPIN(ctx)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		if v = s.vhsm; v == nil && len(s.logins) > 0 {
			v = &session{pin: pin, nonce: s.t.vhsmNonce()}
			s.vhsm, pin = v, nil
		}
		s.mu.Unlock()
		if pin != nil {
			_ = pin.Close()
		}
		if v == nil {
			return nil, p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the user logged out meanwhile")
		}
	}
	return v, s.open(ctx, v, 0)
}

// open logs a session in at each domain that answers, unless somebody has done so since it was
// logged in turn times.
func (s *sessions) open(ctx context.Context, one *session, turn int) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	one.mu.Lock()
	again, ended := one.turn != turn, one.pin == nil
	one.mu.Unlock()
	switch {
	case ended:
		return p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the login of the key has ended")
	case again:
		return nil
	}
	if err := s.t.cards.learn(ctx, turn > 0); err != nil {
		return err
	}
	strict := len(one.nonce) == ep11.SessionLen
	if strict && one.record == 0 {
		if err := s.note(ctx, one); err != nil {
			return err
		}
	}
	if err := s.logIn(ctx, one); err != nil || !strict {
		return err
	}
	return s.complete(ctx, one)
}

// logIn logs a session in.
func (s *sessions) logIn(ctx context.Context, one *session) error {
	last := p11.Errorf(ep11.WKNotInitialised, "no domain has a wrapping key")
	places := make(map[card.APQN]place)
	var id []byte
	for _, target := range s.t.cards.sites() {
		blob, err := s.logInAt(ctx, target, one)
		if err == nil {
			places[domainKey(target)] = place{blob, s.t.cards.serial(target)}
			if id == nil {
				id = blob[:ep11.SessionLen]
			}
			continue
		}
		if last = err; !gone(err) {
			break
		}
	}
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.places == nil {
		one.places = make(map[card.APQN]place)
	}
	maps.Copy(one.places, places) // one that does not answer now is logged out later all the same
	if len(places) == 0 || !gone(last) && p11.RVOf(last) != ep11.WKNotInitialised {
		s.t.cards.heard(ctx, last)
		return last
	}
	one.id = id
	one.turn++
	return nil
}

// logInAt logs a session in at a domain.
func (s *sessions) logInAt(ctx context.Context, target card.Target, one *session) (blob []byte, err error) {
	one.mu.Lock()
	pin := one.pin
	one.mu.Unlock()
	if pin == nil {
		return nil, p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the login of the key has ended")
	}
	pin.Use(func(b []byte) { blob, err = ep11.Login(ctx, s.t.cards.via, target, b, one.nonce) })
	if err == nil && len(blob) != pinBlobSize {
		err = p11.Errorf(p11.CKR_DEVICE_ERROR, "the card made a login session of %d bytes", len(blob))
	}
	return blob, err
}

// close ends a session, which may be nil. busy is taken.
func (s *sessions) close(ctx context.Context, one *session) error {
	if one == nil {
		return nil
	}
	one.mu.Lock()
	places := one.places
	one.mu.Unlock()
	if len(places) == 0 && one.record != 0 { // a login that failed, which a card may have all the same
		places = make(map[card.APQN]place)
		for _, target := range s.t.cards.sites() {
			places[domainKey(target)] = place{serial: s.t.cards.serial(target)}
		}
	}
	var left []string
	for at, p := range places {
		var target card.Target
		if len(s.t.conf.apqns) > 0 {
			target = card.Target{at}
		}
		if err := s.logOutAt(ctx, target, one, p.blob); err != nil {
			s.t.log.Warn("a card stays logged in", "token", s.t.name, "card", at, "err", failed(err, nil))
			left = append(left, p.serial)
		}
	}
	err := s.forget(ctx, one, left)
	one.mu.Lock()
	defer one.mu.Unlock()
	pin := one.pin
	one.pin, one.places = nil, nil
	return errors.Join(err, pin.Close())
}

// logOutAt ends a session at a domain. A blob that the domain does not take, since it has another
// wrapping key than when it was made, or that is not there, is made anew for that.
func (s *sessions) logOutAt(ctx context.Context, target card.Target, one *session, blob []byte) error {
	err := p11.Errorf(p11.CKR_PIN_INCORRECT, "it is not known what the card made of the login")
	if blob != nil {
		err = ep11.Logout(ctx, s.t.cards.via, target, blob)
	}
	if p11.RVOf(err) == p11.CKR_PIN_INCORRECT {
		if blob, err = s.logInAt(ctx, target, one); err == nil {
			err = ep11.Logout(ctx, s.t.cards.via, target, blob)
		}
	}
	if p11.RVOf(err) == p11.CKR_SESSION_CLOSED {
		return nil
	}
	return err
}

// forNew is the session that a new key is bound to: nil for none.
func (s *sessions) forNew(ctx context.Context, a p11.Attributes) (*session, error) {
	switch {
	case !a.Bool(p11.CKA_PRIVATE):
		return nil, nil // who has not logged in uses it, too
	case s.t.conf.strict && !a.Bool(p11.CKA_TOKEN):
		if l, ok := tokens.LoginOf(ctx).(*boundLogin); ok {
			return l.strict, nil
		}
		return nil, p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "a private session key is bound to a login, and there is none")
	case s.t.conf.vhsm:
		return s.shared(ctx)
	}
	return nil, nil
}

// of is the session that a key is bound to: nil for none.
func (s *sessions) of(ctx context.Context, blob []byte) (*session, error) {
	id := ep11.Blob(blob).Session()
	if id == nil || !s.wanted() {
		return nil, nil
	}
	find := func() *session {
		s.mu.Lock()
		defer s.mu.Unlock()
		for l := range s.logins {
			if l.strict.is(id) {
				return l.strict
			}
		}
		if s.vhsm.is(id) {
			return s.vhsm
		}
		return nil
	}
	one := find()
	if one == nil && s.t.conf.vhsm { // which may not have begun
		if _, err := s.shared(ctx); err != nil {
			return nil, err
		}
		one = find()
	}
	if one == nil {
		return nil, p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "the key is bound to a login session of the cards that is none of this token's: it was made under another VHSM PIN, in another slot or by a login that has ended"),
			"set that PIN again by p11fs card vhsm-pin, or make the key anew")
	}
	return one, nil
}

// mayStay refuses a copy in the token of a key that ends with a login, and a public one of a
// key that is bound to any.
func (s *sessions) mayStay(a p11.Attributes) error {
	blob, _ := securekey.Blob(a)
	id := ep11.Blob(blob).Session()
	if id == nil || !s.wanted() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.Bool(p11.CKA_PRIVATE) && s.vhsm.is(id) {
		return nil
	}
	return p11.Advise(p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the key is bound to a login session of the cards, and cannot be there without"),
		"make or import the key anew with token=true and private=true")
}

// within makes a call that needs sessions, of which some may be nil. Where a card has lost one,
// or came back after the others had logged in, it logs in again, and the call is made once more.
func (s *sessions) within(ctx context.Context, list []*session, call func() error) error {
	turns := make([]int, len(list))
	for i, one := range list {
		if one != nil {
			turns[i] = one.turns()
		}
	}
	err := call()
	if rv := p11.RVOf(err); rv != p11.CKR_SESSION_CLOSED && rv != p11.CKR_PIN_INCORRECT {
		return err
	}
	renewed := false
	for i, one := range list {
		if one == nil {
			continue
		}
		if err := s.open(ctx, one, turns[i]); err != nil {
			return err
		}
		renewed = true
	}
	if !renewed {
		return err
	}
	return call()
}

// sites are targets of the domains that answer and have a wrapping key, each by itself.
func (c *cards) sites() (list []card.Target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.domains {
		if d := &c.domains[i]; d.err == nil && d.info.Flags&ep11.DomainWK != 0 {
			list = append(list, d.target())
		}
	}
	return list
}

// serial is that of the card with a domain.
func (c *cards) serial(target card.Target) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.domains {
		if d := &c.domains[i]; d.err == nil && domainKey(d.target()) == domainKey(target) {
			return string(d.module.Serial[:])
		}
	}
	return ""
}
