package ep11tok

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/ep11"
)

// The types of the hidden private objects that stock keeps of login sessions (openCryptoki
// 3.9 and later): what a process with STRICT_MODE is logged in with, and the PIN of VHSM_MODE.
const (
	sessionRecord p11.HardwareFeatureType = p11.CKH_VENDOR_DEFINED + 1
	vhsmPIN       p11.HardwareFeatureType = p11.CKH_VENDOR_DEFINED + 2
)

// The lengths of a record's parts: of the identifier, which is the beginning of the nonce; of
// the targets, two numbers and two for each domain that there may be; of a serial number.
const (
	recordID     = 16
	targetsSize  = 2 + 2 + 2*2*card.MaxTarget
	serialSize   = 16
	sessionTitle = "EP11 Session Object\x00"
	recordLabel  = "p11fs" // stock's records have none
	vhsmTitle    = "EP11 VHSM PIN Object"
)

// strictNonce is the nonce of a session, by its identifier in the record: who has the record
// can log in to it, and out, also where a process was killed before it wrote what the cards
// made of it.
func strictNonce(id []byte) []byte {
	sum := sha256.Sum256(append([]byte("p11fs EP11 login session "), id...))
	return append(slices.Clone(id), sum[:ep11.SessionLen-recordID]...)
}

func newStrict() (*session, error) {
	id := make([]byte, recordID)
	_, _ = rand.Read(id) // which never fails
	pin, err := secret.New([]byte(strictPIN))
	return &session{nonce: strictNonce(id), pin: pin}, err
}

// ownObjects is what the records match.
func ownObjects() (a p11.Attributes) {
	a.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_HW_FEATURE))
	a.SetBool(p11.CKA_HIDDEN, true)
	return a
}

// hiddenObject are the attributes that both kinds have.
func hiddenObject(of p11.HardwareFeatureType, title string, value []byte) p11.Attributes {
	a := ownObjects()
	for _, t := range []p11.AttributeType{p11.CKA_TOKEN, p11.CKA_PRIVATE, p11.CKA_MODIFIABLE} {
		a.SetBool(t, true)
	}
	a.SetUlong(p11.CKA_HW_FEATURE_TYPE, uint64(of))
	a.Set(p11.CKA_LABEL, []byte{})
	a.Set(p11.CKA_SUBJECT, []byte(title))
	a.Set(p11.CKA_VALUE, slices.Clone(value))
	return a
}

// targetsOf is what stock has of domains in a record, in the order of its machine: a format, how
// many there are, none for any, and adapters and domains; and serial numbers of the cards.
func targetsOf(order binary.ByteOrder, list card.Target, serials []string) []byte {
	b := make([]byte, targetsSize, targetsSize+serialSize*len(serials))
	order.PutUint16(b[2:], uint16(len(list)))
	for i, a := range list {
		order.PutUint16(b[4+4*i:], a.Adapter)
		order.PutUint16(b[6+4*i:], a.Domain)
	}
	for _, s := range serials {
		b = append(b, (s + string(make([]byte, serialSize)))[:serialSize]...)
	}
	return b
}

// readTargets is the inverse. ok is false for what is no such thing.
func readTargets(order binary.ByteOrder, b []byte) (list card.Target, serials []string, ok bool) {
	if len(b) < targetsSize || (len(b)-targetsSize)%serialSize != 0 || len(b) > targetsSize+serialSize*card.MaxTarget {
		return nil, nil, false
	}
	n := int(order.Uint16(b[2:]))
	if n > card.MaxTarget {
		return nil, nil, false
	}
	for i := range n {
		list = append(list, card.APQN{Adapter: order.Uint16(b[4+4*i:]), Domain: order.Uint16(b[6+4*i:])})
	}
	for part := range slices.Chunk(b[targetsSize:], serialSize) {
		serials = append(serials, string(part))
	}
	return list, serials, true
}

// note writes down that a session begins, before any card hears of it: a process that finds the
// record can end the session, whenever this one is killed. busy is taken.
func (s *sessions) note(ctx context.Context, one *session) error {
	a := hiddenObject(sessionRecord, sessionTitle, make([]byte, pinBlobSize))
	a.Set(p11.CKA_LABEL, []byte(recordLabel))
	a.Set(p11.CKA_ID, slices.Clone(one.nonce[:recordID]))
	a.Set(p11.CKA_APPLICATION, targetsOf(s.t.Order(), s.t.conf.apqns, nil))
	owner := make([]byte, 4)
	s.t.Order().PutUint32(owner, uint32(os.Getpid()))
	a.Set(p11.CKA_OWNER, owner)
	a.Set(p11.CKA_START_DATE, []byte(s.t.now().Format("20060102")))
	o, err := s.t.Store.Create(ctx, a)
	if err != nil {
		return err
	}
	one.record = o.Handle
	return nil
}

// complete puts what the cards made of a login into its record. busy is taken.
func (s *sessions) complete(ctx context.Context, one *session) error {
	one.mu.Lock()
	var blob []byte
	var serials []string
	for _, p := range one.places {
		if blob == nil {
			blob = slices.Clone(p.blob)
		}
		if !slices.Contains(serials, p.serial) {
			serials = append(serials, p.serial)
		}
	}
	one.mu.Unlock()
	slices.Sort(serials)
	return s.rewrite(ctx, one.record, blob, serials)
}

// rewrite changes a record. blob is nil where it stays.
func (s *sessions) rewrite(ctx context.Context, h p11.ObjectHandle, blob []byte, serials []string) error {
	_, err := s.t.Update(ctx, h, func(a p11.Attributes) (p11.Attributes, error) {
		a = a.Clone()
		if blob != nil {
			a.Set(p11.CKA_VALUE, slices.Clone(blob))
		}
		was, _ := a.Get(p11.CKA_APPLICATION)
		list, _, ok := readTargets(s.t.Order(), was)
		if !ok {
			list = s.t.conf.apqns
		}
		a.Set(p11.CKA_APPLICATION, targetsOf(s.t.Order(), list, serials))
		return a, nil
	})
	return err
}

// forget removes the record of a session that has ended, or says in it at which cards it has
// not. busy is taken.
func (s *sessions) forget(ctx context.Context, one *session, left []string) error {
	h := one.record
	if h == 0 {
		return nil
	}
	one.record = 0
	return s.drop(ctx, h, left)
}

func (s *sessions) drop(ctx context.Context, h p11.ObjectHandle, left []string) error {
	err := error(nil)
	if len(left) > 0 {
		err = s.rewrite(ctx, h, nil, left)
	} else {
		err = s.t.Destroy(ctx, h, func(p11.Attributes) error { return nil })
	}
	if p11.RVOf(err) == p11.CKR_OBJECT_HANDLE_INVALID {
		return nil // the token was initialised, or somebody else has seen to it
	}
	return err
}

// hiddenOf are the hidden private objects of a type. A public one is none: everybody who can
// write into the directory can make one.
func (t *token) hiddenOf(ctx context.Context, of p11.HardwareFeatureType) ([]*tokens.Object, error) {
	if err := t.Refresh(ctx); err != nil {
		return nil, err
	}
	a := ownObjects()
	a.SetUlong(p11.CKA_HW_FEATURE_TYPE, uint64(of))
	list, err := t.Store.Find(ctx, a, true)
	return slices.DeleteFunc(list, func(o *tokens.Object) bool { return !o.Private }), err
}

// sweep ends the sessions of processes of ours that have ended and did not see to it, as stock's
// pkcsep11_session does when somebody calls it. Records of stock it leaves to that: the process
// number in one is of the slot daemon's PID namespace, which may be another than ours, where a
// process that goes on has the number of none. Of ours no two daemons serve one directory.
func (s *sessions) sweep(ctx context.Context) {
	list, err := s.t.hiddenOf(ctx, sessionRecord)
	for _, o := range list {
		if serr := s.sweepOne(ctx, o); serr != nil {
			err = errors.Join(err, serr)
		}
	}
	if err != nil {
		s.t.log.Warn("login sessions of processes that have ended stay", "token", s.t.name, "err", failed(err, nil))
	}
}

func (s *sessions) sweepOne(ctx context.Context, o *tokens.Object) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	a, err := o.Acquire()
	if err != nil {
		return nil //nolint:nilerr // it has gone
	}
	defer o.Release()
	if by, _ := a.Get(p11.CKA_LABEL); string(by) != recordLabel {
		return nil
	}
	if owner, _ := a.Get(p11.CKA_OWNER); len(owner) == 4 && s.living(o.Handle, s.t.Order().Uint32(owner)) {
		return nil
	}
	id, _ := a.Get(p11.CKA_ID)
	value, _ := a.Get(p11.CKA_VALUE)
	where, _ := a.Get(p11.CKA_APPLICATION)
	domains, _, ok := readTargets(s.t.Order(), where)
	if !ok || len(id) != recordID || len(value) != pinBlobSize {
		return s.drop(ctx, o.Handle, nil) // which nobody can do anything with
	}
	one, err := newStrict()
	if err != nil {
		return err
	}
	defer one.pin.Close()
	one.nonce = strictNonce(id)
	if [pinBlobSize]byte(value) == [pinBlobSize]byte{} {
		value = nil
	}
	if err := s.t.cards.learn(ctx, false); err != nil {
		return err
	}
	targets := s.t.cards.sites()
	if len(domains) > 0 {
		targets = nil
		for _, a := range domains {
			targets = append(targets, card.Target{a})
		}
	}
	var left []string
	for _, target := range targets {
		if err := s.logOutAt(ctx, target, one, value); gone(err) {
			left = append(left, s.t.cards.serial(target))
		} else if err != nil {
			s.t.log.Warn("a card knows nothing of a login session", "token", s.t.name, "card", domainKey(target), "err", failed(err, nil))
		}
	}
	s.t.log.Info("a login session of a process that has ended", "token", s.t.name, "cards that do not answer", len(left))
	return s.drop(ctx, o.Handle, left)
}

// living says whether the process that made a record goes on. busy is taken.
func (s *sessions) living(record p11.ObjectHandle, pid uint32) bool {
	switch {
	case pid == 0 || pid > math.MaxInt32:
		return false
	case int(pid) != os.Getpid():
		return !errors.Is(unix.Kill(int(pid), 0), unix.ESRCH)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.logins {
		if l.strict != nil && l.strict.record == record {
			return true
		}
	}
	return false // one of the same number was there before, as in a container
}

// sessionPIN is the PIN of the session that all logins share, as the cards get it.
func (t *token) sessionPIN(ctx context.Context) (*secret.Bytes, error) {
	list, err := t.hiddenOf(ctx, vhsmPIN)
	if err != nil {
		return nil, err
	}
	for _, o := range list {
		a, err := o.Acquire()
		if err != nil {
			continue // it has gone
		}
		defer o.Release()
		if value, _ := a.Get(p11.CKA_VALUE); len(value) >= leastPIN && len(value) <= mostPIN {
			padded := make([]byte, mostPIN)
			defer secret.Wipe(padded)
			copy(padded, value)
			return secret.New(padded)
		}
	}
	return nil, p11.Advise(p11.Errorf(p11.CKR_USER_PIN_NOT_INITIALIZED, "VHSM_MODE binds keys to a login of the cards, for which nobody has set a PIN"), "set one: p11fs card vhsm-pin")
}

// SetSessionPIN is tokens.SessionPINSetter.
func (t *token) SetSessionPIN(ctx context.Context, pin *secret.Bytes) error {
	if n := pin.Len(); n < leastPIN || n > mostPIN {
		return p11.Errorf(p11.CKR_PIN_LEN_RANGE, "the PIN of the cards' login has %d to %d bytes, not %d", leastPIN, mostPIN, n)
	}
	list, err := t.hiddenOf(ctx, vhsmPIN)
	if err != nil {
		return err
	}
	var a p11.Attributes
	pin.Use(func(b []byte) { a = hiddenObject(vhsmPIN, vhsmTitle, b) })
	if len(list) == 0 {
		_, err := t.Store.Create(ctx, a)
		return err
	}
	defer a.Wipe()
	for _, o := range list { // all, since nobody knows which one stock takes
		if _, err := t.Update(ctx, o.Handle, func(was p11.Attributes) (p11.Attributes, error) { return was.Merge(a), nil }); err != nil {
			return err
		}
	}
	return nil
}
