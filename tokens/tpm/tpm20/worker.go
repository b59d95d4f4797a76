package tpm20

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"time"

	"github.com/google/go-tpm/tpm2"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/tpm/desk"
)

// A worker is what there is of a TPM while it is used. It belongs to one goroutine, and
// is the transport of go-tpm.
type worker struct {
	*desk.Line
	chip *Chip

	storage *storage
	room    int       // how many keys there may be
	keys    []*loaded // the one that was used last stands last
	lost    leftovers
}

// How long a command may take. Chips take a minute over an RSA key.
const (
	patience     = 4 * time.Second // so that nobody waits for more than 5
	longPatience = 3 * time.Minute
	retryTime    = 2 * time.Second
)

func patienceOf(cc tpm2.TPMCC) time.Duration {
	switch cc {
	case tpm2.TPMCCCreate, tpm2.TPMCCCreatePrimary:
		return longPatience
	}
	return patience
}

// newWorker is the worker of a chip at a device.
func newWorker(c *Chip, d Device) *worker {
	w := &worker{chip: c}
	w.Line = &desk.Line{
		Device: d, Give: w.flush,
		Greet: func() error {
			err := w.guarded((*worker).look)
			if err == nil {
				err = w.guarded((*worker).reclaim)
			}
			return err
		},
		Lost: func() {
			w.lose()
			w.forget()
		},
		Stale: func(err error) bool {
			rc, _ := code(err)
			return forgotten(rc)
		},
	}
	return w
}

// forget forgets handles, which are those of nothing.
func (w *worker) forget() {
	for _, k := range w.keys {
		k.end()
	}
	w.keys, w.storage = nil, nil
}

// Send is tpm2's transport. It repeats what the TPM asks to repeat, and makes room. The
// command is wiped: there may be an authorisation in it.
func (w *worker) Send(command []byte) ([]byte, error) {
	defer secret.Wipe(command)
	if len(command) < desk.HeaderSize {
		return nil, p11.CKR_GENERAL_ERROR
	}
	cc := tpm2.TPMCC(binary.BigEndian.Uint32(command[6:]))
	begun, started := time.Now(), false
	for wait := time.Millisecond; ; wait *= 2 {
		response, err := w.Exchange(command, patienceOf(cc))
		if err != nil {
			return nil, err
		}
		rc := tpm2.TPMRC(binary.BigEndian.Uint32(response[6:]))
		switch {
		case rc == rcInitialize && !started:
			started = true
			startup := []byte{0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0} // TPM2_Startup(CLEAR)
			if _, err := w.Exchange(startup, patience); err != nil {
				return nil, err
			}
		case outOfRoom(rc) && w.makeRoom(cc):
		case again(rc) && time.Since(begun)+wait < retryTime:
			time.Sleep(wait)
		default:
			return response, nil
		}
	}
}

// makeRoom gives up something of ours that is not in use where the TPM has no room for
// what a command makes, and reports whether there was something.
func (w *worker) makeRoom(cc tpm2.TPMCC) bool {
	if cc == tpm2.TPMCCStartAuthSession && w.hasSessions() {
		w.endSessions()
		return true
	}
	if cc != tpm2.TPMCCLoad && cc != tpm2.TPMCCImport && cc != tpm2.TPMCCCreate && cc != tpm2.TPMCCCreatePrimary || len(w.keys) == 0 {
		return false
	}
	w.evict(0)
	return true
}

// evict flushes the key at i.
func (w *worker) evict(i int) {
	k := w.keys[i]
	w.keys = append(w.keys[:i], w.keys[i+1:]...)
	k.endSession(w)
	w.flushHandle(k.handle)
}

// flush gives up keys, sessions and the storage key.
func (w *worker) flush() {
	for len(w.keys) > 0 && w.Connected() {
		w.evict(len(w.keys) - 1)
	}
	if s := w.storage; s != nil && s.transient && w.Connected() {
		w.flushHandle(s.handle)
	}
	w.forget()
}

func (w *worker) flushHandle(h tpm2.TPMHandle) {
	if w.Connected() {
		_, _ = tpm2.FlushContext{FlushHandle: h}.Execute(w) // what is gone is gone
	}
}

func (w *worker) hasSessions() bool {
	for _, k := range w.keys {
		if k.session != nil {
			return true
		}
	}
	return false
}

func (w *worker) endSessions() {
	for _, k := range w.keys {
		k.endSession(w)
	}
}

// A Template is that of a storage key (TCG, TPM 2.0 Provisioning Guidance, §7.5.1).
type Template string

// The templates.
const (
	P256    Template = "ecc-p256"
	RSA2048 Template = "rsa-2048"
)

func (t Template) public() tpm2.TPMTPublic {
	if t == RSA2048 {
		return tpm2.RSASRKTemplate
	}
	return tpm2.ECCSRKTemplate
}

// A Parent is the storage key that keys hang below: of its template, in the owner's
// hierarchy and without authorisation, as every program makes it.
type Parent struct {
	Template Template
	Handle   uint32 // where somebody has made it persistent; 0 where nobody has
	Name     []byte // by which the same key is known
}

// A storage is a Parent in the TPM.
type storage struct {
	name      []byte
	handle    tpm2.TPMHandle
	public    tpm2.TPMTPublic
	transient bool
}

func (s *storage) with(session tpm2.Session) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: s.handle, Name: tpm2.TPM2BName{Buffer: s.name}, Auth: session}
}

// salted are the options of a session that is salted with the storage key.
func (s *storage) salted(auth []byte, more ...tpm2.AuthOption) []tpm2.AuthOption {
	return append([]tpm2.AuthOption{tpm2.Auth(auth), tpm2.Salted(s.handle, s.public)}, more...)
}

// encrypting is a session of one command whose first parameter is encrypted, with the
// authorisation of what it is for.
func (s *storage) encrypting(auth []byte) tpm2.Session {
	return tpm2.HMAC(tpm2.TPMAlgSHA256, nonceSize, s.salted(auth, tpm2.AESEncryption(128, tpm2.EncryptIn))...)
}

const nonceSize = 16

// parent has the storage key in the TPM.
func (w *worker) parent(p Parent) (*storage, error) {
	if w.storage != nil && bytes.Equal(w.storage.name, p.Name) {
		return w.storage, nil
	}
	w.flush()
	// It may have been made persistent since, for an owner with a password.
	s, err := w.persistent(cmp.Or(p.Handle, commonHandle))
	if err == nil && bytes.Equal(s.name, p.Name) {
		// A key that somebody has brought, and who knows it reads what is under it.
		if a := s.public.ObjectAttributes; !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin || !a.Restricted || !a.Decrypt {
			return nil, p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED, "the key at %#x is no storage key that the TPM has made: nothing is put under it", cmp.Or(p.Handle, commonHandle))
		}
		return w.keep(s)
	}
	if _, ok := code(err); err != nil && !ok {
		return nil, err
	}
	if s, err = w.primary(p.Template); err != nil {
		return nil, err
	}
	if !bytes.Equal(s.name, p.Name) {
		w.flushHandle(s.handle)
		return nil, ErrOther
	}
	return w.keep(s)
}

// keep has the storage key stay, and asks how many keys fit beside it.
func (w *worker) keep(s *storage) (*storage, error) {
	w.storage = s
	n, err := w.property(tpm2.TPMPTHRTransientAvail)
	w.room = max(int(min(n, 64))-1, 1)
	return s, err
}

// persistent is the storage key of a persistent handle.
func (w *worker) persistent(handle uint32) (*storage, error) {
	r, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(handle)}.Execute(w)
	if err != nil {
		return nil, err
	}
	public, err := r.OutPublic.Contents()
	if err != nil {
		return nil, err
	}
	return newStorage(tpm2.TPMHandle(handle), public)
}

// newStorage is a storage key, by the name of what is to be its public half: somebody
// between us and the TPM could give the name of the one with another one's key, and read
// what sessions are salted with.
func newStorage(handle tpm2.TPMHandle, public *tpm2.TPMTPublic) (*storage, error) {
	name, err := tpm2.ObjectName(public)
	if err != nil {
		return nil, err
	}
	return &storage{name: name.Buffer, handle: handle, public: *public}, nil
}

// primary makes the storage key of a template.
func (w *worker) primary(t Template) (*storage, error) {
	r, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(t.public())}.Execute(w)
	if err != nil {
		if rc, _ := code(err); rc == rcBadAuth || rc == rcAuthFail {
			return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "the TPM's owner has a password, and there is no storage key at 0x81000001 to work with: %w", err)
		}
		return nil, err
	}
	var s *storage
	public, err := r.OutPublic.Contents()
	if err == nil {
		s, err = newStorage(r.ObjectHandle, public)
	}
	if err != nil {
		w.flushHandle(r.ObjectHandle)
		return nil, err
	}
	s.transient = true
	return s, nil
}

// commonHandle is where the storage key is made persistent by whoever does that (TCG, TPM
// 2.0 Provisioning Guidance, §7.8).
const commonHandle = 0x81000001

// FindParent returns the storage key for a new token: that of the common handle, if it is
// one without authorisation; else one of a template, which is the same each time.
func (c *Chip) FindParent(ctx context.Context) (Parent, error) {
	facts, err := c.Facts(ctx)
	if err != nil {
		return Parent{}, err
	}
	return do(ctx, c, func(w *worker) (Parent, error) {
		w.flush()
		t := P256
		if !facts.P256 {
			t = RSA2048
		}
		if s, err := w.persistent(commonHandle); err == nil && storageKey(&s.public) && w.takesKeys(s) {
			if s.public.Type == tpm2.TPMAlgRSA {
				t = RSA2048
			}
			return Parent{t, commonHandle, s.name}, nil
		}
		s, err := w.primary(t)
		if err != nil {
			return Parent{}, err
		}
		w.flushHandle(s.handle)
		return Parent{Template: t, Name: s.name}, nil
	})
}

// Knows returns nil if the TPM has the storage key, ErrOther if it has another one, or why
// that is not known.
func (c *Chip) Knows(ctx context.Context, p Parent) error {
	_, err := do(ctx, c, func(w *worker) (struct{}, error) {
		_, err := w.parent(p)
		return struct{}{}, err
	})
	return err
}

// storageKey says whether keys can hang below a key of any authorisation.
func storageKey(p *tpm2.TPMTPublic) bool {
	a := p.ObjectAttributes
	return a.Restricted && a.Decrypt && !a.SignEncrypt && a.FixedTPM && (p.Type == tpm2.TPMAlgRSA || p.Type == tpm2.TPMAlgECC)
}

// takesKeys says whether keys can be made below a storage key without authorisation.
func (w *worker) takesKeys(s *storage) bool {
	_, err := w.create(s, sealTemplate(nil), nil, make([]byte, 1))
	return err == nil
}
