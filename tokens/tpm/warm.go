package tpm

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"sync"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/tpm/tpm20"
)

// A warm keeps what was made of the PINs of those who are logged in, so that a second
// program with the same PIN need not wait for it to be made again. The TPM looks at each PIN
// all the same. While somebody is logged in the daemon has the master key itself, so no
// more is lost with its memory.
type warm struct {
	key [sha256.Size]byte // by which PINs are told apart

	mu    sync.Mutex // guards what follows; nothing is locked under it
	pins  map[p11.UserType]*warmPIN
	tried map[p11.UserType]*warmPIN // the last right ones, which may be no logins
}

// A warmPIN is one that was right.
type warmPIN struct {
	salt      [tpm20.SaltSize]byte
	mark      [sha256.Size]byte
	stretched *tpm20.PIN
}

func newWarm() *warm {
	w := &warm{pins: make(map[p11.UserType]*warmPIN), tried: make(map[p11.UserType]*warmPIN)}
	_, _ = rand.Read(w.key[:]) // which never fails
	return w
}

func (w *warm) mark(pin *secret.Bytes) (mark [sha256.Size]byte) {
	h := hmac.New(sha256.New, w.key[:])
	pin.Use(func(b []byte) { h.Write(b) })
	h.Sum(mark[:0])
	return mark
}

// stretch is tpm20.Stretch, or what that has given. The caller closes it.
func (w *warm) stretch(user p11.UserType, pin *secret.Bytes, f *keyFile) (*tpm20.PIN, error) {
	if known, err := w.known(user, pin, f); known != nil || err != nil {
		return known, err
	}
	return tpm20.Stretch(pin, f.salt[:], f.cost)
}

// known is what was made of a PIN, or nil.
func (w *warm) known(user p11.UserType, pin *secret.Bytes, f *keyFile) (*tpm20.PIN, error) {
	mark := w.mark(pin)
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.pins[user]; p != nil && p.salt == f.salt && hmac.Equal(p.mark[:], mark[:]) {
		return p.stretched.Clone()
	}
	return nil, nil
}

// right notes a PIN that was right.
func (w *warm) right(user p11.UserType, pin *secret.Bytes, f *keyFile, stretched *tpm20.PIN) {
	kept, err := stretched.Clone()
	if err != nil {
		return // the next one takes its time
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tried[user].close()
	w.tried[user] = &warmPIN{salt: f.salt, mark: w.mark(pin), stretched: kept}
}

// settle keeps the last right PIN of a role if that made a login of it, or wipes it.
func (w *warm) settle(user p11.UserType, login bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := w.tried[user]
	delete(w.tried, user)
	if !login {
		last.close()
	} else if last != nil {
		w.pins[user].close()
		w.pins[user] = last
	}
}

// ended wipes what there is of a role that nobody is logged in as any more.
func (w *warm) ended(user p11.UserType) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pins[user].close()
	delete(w.pins, user)
}

// close wipes all.
func (w *warm) close() {
	for _, user := range []p11.UserType{p11.CKU_SO, p11.CKU_USER} {
		w.settle(user, false)
		w.ended(user)
	}
}

// close wipes it. It may be called of nil.
func (p *warmPIN) close() {
	if p != nil {
		p.stretched.Close()
	}
}
