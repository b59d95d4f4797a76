package tpm12

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"p11fs/secret"
)

// A Device carries a command to a TPM 1.2 and brings its response, whole.
type Device interface {
	Send(ctx context.Context, command []byte) ([]byte, error)
}

// A Chip does the commands of a TPM 1.2 that a store takes (TPM Main Specification v1.2,
// Part 3). It is used by one goroutine at a time, as a TPM is.
type Chip struct {
	Device Device
}

// A Handle is TPM_KEY_HANDLE, a key that is loaded.
type Handle uint32

// SRK is the storage root key, which is always loaded.
const SRK Handle = 0x40000000

// An ordinal is TPM_COMMAND_CODE.
type ordinal uint32

const (
	ordOIAP          ordinal = 0x0a
	ordOSAP          ordinal = 0x0b
	ordChangeAuth    ordinal = 0x0c
	ordUnBind        ordinal = 0x1e
	ordCreateWrapKey ordinal = 0x1f
	ordGetPubKey     ordinal = 0x21
	ordSign          ordinal = 0x3c
	ordLoadKey2      ordinal = 0x41
	ordGetRandom     ordinal = 0x46
	ordGetCapability ordinal = 0x65
	ordFlushSpecific ordinal = 0xba
)

const (
	tagCommand   = 0xc1 // and one more for each auth trailer
	tagResponse  = 0xc4 // likewise
	headerSize   = 10
	trailerOut   = sha1.Size + 1 + sha1.Size
	maxResponse  = 4096 // no TPM 1.2 has longer ones
	protocolADCP = 4    // TPM_PID_ADCP: ChangeAuth's new secret is encrypted
	entityKey    = 1    // TPM_ET_KEYHANDLE
	entityBlob   = 5    // TPM_ET_KEY
	resourceKey  = 1    // TPM_RT_KEY
	resourceAuth = 2    // TPM_RT_AUTH
	capProperty  = 5    // TPM_CAP_PROPERTY
	propSlots    = 0x104
)

// errResponse is that of a response whose form is wrong, or whose authorisation is: what
// is between p11fs and the chip has changed it.
var errResponse = errors.New("the TPM's response is damaged")

// A session authorises one command by a secret: OIAP with that of what is used, OSAP with
// one that also encrypts.
type session struct {
	handle uint32
	even   [sha1.Size]byte
	key    Auth
}

func (c Chip) oiap(ctx context.Context, a Auth) (session, error) {
	r, err := c.plain(ctx, ordOIAP, nil)
	if err != nil {
		return session{}, err
	}
	s := session{handle: r.u32(), key: a}
	copy(s.even[:], r.take(sha1.Size))
	return s, r.end()
}

// osap begins a session for a loaded key.
func (c Chip) osap(ctx context.Context, of Handle, a Auth) (session, error) {
	var odd Auth
	_, _ = rand.Read(odd[:]) // never fails
	b := binary.BigEndian.AppendUint16(nil, entityKey)
	b = append(binary.BigEndian.AppendUint32(b, uint32(of)), odd[:]...)
	r, err := c.plain(ctx, ordOSAP, b)
	if err != nil {
		return session{}, err
	}
	s := session{handle: r.u32()}
	copy(s.even[:], r.take(sha1.Size))
	s.key = a.mac(r.take(sha1.Size), odd[:])
	return s, r.end()
}

// mac is HMAC-SHA-1 under the secret.
func (a Auth) mac(parts ...[]byte) (out Auth) {
	h := hmac.New(sha1.New, a[:])
	for _, p := range parts {
		h.Write(p)
	}
	h.Sum(out[:0])
	return out
}

// hidden is a, encrypted under the session (Part 1 §18.5).
func (s session) hidden(a Auth, nonce []byte) (out Auth) {
	pad := sha1.Sum(slices.Concat(s.key[:], nonce))
	subtle.XORBytes(out[:], a[:], pad[:])
	return out
}

// plain does a command without authorisation.
func (c Chip) plain(ctx context.Context, o ordinal, params []byte) (*reader, error) {
	return c.run(ctx, o, nil, params, 0)
}

// run does a command, whose handles and parameters are given, under sessions that end
// with it. handlesOut bytes of the response are handles, which nothing authenticates.
func (c Chip) run(ctx context.Context, o ordinal, handles, params []byte, handlesOut int, sessions ...session) (*reader, error) {
	odd := make([]Auth, len(sessions))
	for i := range odd {
		_, _ = rand.Read(odd[i][:])
	}
	return c.runWith(ctx, o, handles, params, handlesOut, sessions, odd)
}

// runWith has the nonces of the sessions.
func (c Chip) runWith(ctx context.Context, o ordinal, handles, params []byte, handlesOut int, sessions []session, odd []Auth) (*reader, error) {
	b := binary.BigEndian.AppendUint16(nil, tagCommand+uint16(len(sessions)))
	b = append(b, 0, 0, 0, 0) // its length
	b = binary.BigEndian.AppendUint32(b, uint32(o))
	b = append(append(b, handles...), params...)
	name := binary.BigEndian.AppendUint32(nil, uint32(o))
	digest := sha1.Sum(slices.Concat(name, params))
	last := []byte{0} // the session ends
	for i, s := range sessions {
		mac := s.key.mac(digest[:], s.even[:], odd[i][:], last)
		b = binary.BigEndian.AppendUint32(b, s.handle)
		b = append(append(append(b, odd[i][:]...), last...), mac[:]...)
	}
	binary.BigEndian.PutUint32(b[2:], uint32(len(b)))
	response, err := c.send(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("TPM command %#x: %w", uint32(o), err)
	}
	r := reader{b: response}
	tag, size, code := r.u16(), r.u32(), Code(r.u32())
	switch {
	case r.short || uint64(size) != uint64(len(response)) || len(response) > maxResponse:
		return nil, errResponse
	case code != 0:
		c.end(ctx, sessions)
		return nil, fmt.Errorf("TPM command %#x: %w", uint32(o), code)
	case tag != tagResponse+uint16(len(sessions)) || len(r.b) < handlesOut+trailerOut*len(sessions):
		return nil, errResponse
	}
	out := r.b[:len(r.b)-trailerOut*len(sessions)]
	trailers := reader{b: r.b[len(out):]}
	digest = sha1.Sum(slices.Concat([]byte{0, 0, 0, 0}, name, out[handlesOut:]))
	for i, s := range sessions {
		even, goesOn, mac := trailers.take(sha1.Size), trailers.take(1), trailers.take(sha1.Size)
		want := s.key.mac(digest[:], even, odd[i][:], goesOn)
		if !hmac.Equal(mac, want[:]) {
			return nil, errResponse
		}
	}
	return &reader{b: out}, nil
}

// end ends sessions that a command has not ended: libtpms leaves those of one that it
// refuses with CodeDefending, and has few. Those that have ended are none.
func (c Chip) end(ctx context.Context, sessions []session) {
	for _, s := range sessions {
		_ = c.flush(ctx, s.handle, resourceAuth)
	}
}

// longestRetry is how long a TPM is asked again that is busy.
const longestRetry = 2 * time.Second

// send sends a command, again while the TPM asks for that.
func (c Chip) send(ctx context.Context, b []byte) ([]byte, error) {
	for wait, all := time.Millisecond, time.Duration(0); ; wait, all = 2*wait, all+wait {
		r, err := c.Device.Send(ctx, b)
		if err != nil || len(r) < headerSize || Code(binary.BigEndian.Uint32(r[6:])) != codeRetry || all > longestRetry {
			return r, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// end says whether the whole response was read.
func (r *reader) end() error {
	if r.short || len(r.b) > 0 {
		return errResponse
	}
	return nil
}

// authorised does a command for one key, by its secret, or without one if it is nil.
func (c Chip) authorised(ctx context.Context, o ordinal, key Handle, params []byte, handlesOut int, a *Auth) (*reader, error) {
	var sessions []session
	if a != nil {
		s, err := c.oiap(ctx, *a)
		if err != nil {
			return nil, err
		}
		sessions = []session{s}
	}
	return c.run(ctx, o, binary.BigEndian.AppendUint32(nil, uint32(key)), params, handlesOut, sessions...)
}

// Load loads a key under its parent, which wants its secret a, or none if that is nil. The
// caller flushes it. A key of another parent fails with CodeDecrypt.
func (c Chip) Load(ctx context.Context, parent Handle, a *Auth, k Key) (Handle, error) {
	r, err := c.authorised(ctx, ordLoadKey2, parent, k.Print(), 4, a)
	if err != nil {
		return 0, err
	}
	h := Handle(r.u32())
	return h, r.end()
}

// Flush forgets a key that is loaded.
func (c Chip) Flush(ctx context.Context, key Handle) error {
	return c.flush(ctx, uint32(key), resourceKey)
}

func (c Chip) flush(ctx context.Context, handle, resource uint32) error {
	b := binary.BigEndian.AppendUint32(nil, handle)
	r, err := c.plain(ctx, ordFlushSpecific, binary.BigEndian.AppendUint32(b, resource))
	if err != nil {
		return err
	}
	return r.end()
}

// bytesOf does a command that takes bytes and gives some, of at most a modulus.
func (c Chip) bytesOf(ctx context.Context, o ordinal, key Handle, a *Auth, in []byte) ([]byte, error) {
	r, err := c.authorised(ctx, o, key, sized(nil, in), 0, a)
	if err != nil {
		return nil, err
	}
	return r.sized(maxModulus), r.end()
}

// Sign signs data, of at most 11 bytes less than the modulus, with PKCS#1 v1.5 padding, by
// a key whose signature scheme is SignDER. What DigestInfo data is is the caller's.
func (c Chip) Sign(ctx context.Context, key Handle, a *Auth, data []byte) ([]byte, error) {
	return c.bytesOf(ctx, ordSign, key, a, data)
}

// UnBind decrypts by a key: what Bind made, and what was encrypted in the scheme of a
// Legacy key. The caller wipes it.
func (c Chip) UnBind(ctx context.Context, key Handle, a *Auth, data []byte) ([]byte, error) {
	return c.bytesOf(ctx, ordUnBind, key, a, data)
}

// Create makes a key in the TPM, of a template, with secrets, under a parent whose secret
// a is; of zeros if it wants none.
func (c Chip) Create(ctx context.Context, parent Handle, a Auth, template Key, usage, migration Auth) (Key, error) {
	s, err := c.osap(ctx, parent, a)
	if err != nil {
		return Key{}, err
	}
	var odd Auth
	_, _ = rand.Read(odd[:])
	one, other := s.hidden(usage, s.even[:]), s.hidden(migration, odd[:])
	params := slices.Concat(one[:], other[:], template.Print())
	r, err := c.runWith(ctx, ordCreateWrapKey, binary.BigEndian.AppendUint32(nil, uint32(parent)), params, 0, []session{s}, []Auth{odd})
	if err != nil {
		return Key{}, err
	}
	k, err := ParseKey(r.b)
	if err != nil || len(k.Modulus) == 0 || !bytes.Equal(k.like(template).Print(), template.Print()) {
		return Key{}, errResponse
	}
	return k, nil
}

// like is k with the numbers of a template.
func (k Key) like(template Key) Key {
	k.Modulus, k.Private = template.Modulus, template.Private
	return k
}

// ChangeAuth gives a key another secret. The old one goes on opening the key as it was.
func (c Chip) ChangeAuth(ctx context.Context, parent Handle, a Auth, k Key, old, now Auth) (Key, error) {
	s, err := c.osap(ctx, parent, a)
	if err != nil {
		return k, err
	}
	of, err := c.oiap(ctx, old)
	if err != nil {
		c.end(ctx, []session{s})
		return k, err
	}
	hidden := s.hidden(now, s.even[:])
	b := binary.BigEndian.AppendUint16(nil, protocolADCP)
	b = append(b, hidden[:]...)
	b = sized(binary.BigEndian.AppendUint16(b, entityBlob), k.Private)
	r, err := c.run(ctx, ordChangeAuth, binary.BigEndian.AppendUint32(nil, uint32(parent)), b, 0, s, of)
	if err != nil {
		return k, err
	}
	k.Private = r.sized(maxModulus)
	return k, r.end()
}

// Slots is how many keys can be loaded yet.
func (c Chip) Slots(ctx context.Context) (int, error) {
	b := binary.BigEndian.AppendUint32(nil, capProperty)
	b = sized(b, binary.BigEndian.AppendUint32(nil, propSlots))
	r, err := c.plain(ctx, ordGetCapability, b)
	if err != nil {
		return 0, err
	}
	value := reader{b: r.sized(4)}
	n := value.u32()
	if value.short || n > 1<<16 {
		return 0, errResponse
	}
	return int(n), r.end()
}

// Random fills b with random bytes of the TPM, which gives some at a time.
func (c Chip) Random(ctx context.Context, b []byte) error {
	for len(b) > 0 {
		r, err := c.plain(ctx, ordGetRandom, binary.BigEndian.AppendUint32(nil, uint32(min(len(b), maxModulus))))
		if err != nil {
			return err
		}
		some := r.sized(min(len(b), maxModulus))
		if err := r.end(); err != nil || len(some) == 0 {
			return errResponse
		}
		b = b[copy(b, some):]
		secret.Wipe(some)
	}
	return nil
}

// Public is the public half of a loaded key, whose secret a is. Of the storage root key a
// TPM tells it only if its owner lets it.
func (c Chip) Public(ctx context.Context, key Handle, a *Auth) (*rsa.PublicKey, error) {
	r, err := c.authorised(ctx, ordGetPubKey, key, nil, 0, a)
	if err != nil {
		return nil, err
	}
	var k Key
	algorithm := r.u32()
	r.take(4) // its schemes
	parms := reader{b: r.sized(12 + 4)}
	k.Bits, _, k.Exponent = parms.u32(), parms.u32(), parms.sized(4)
	k.Modulus = r.sized(maxModulus)
	if err := errors.Join(r.end(), parms.end()); err != nil || algorithm != algRSA {
		return nil, errResponse
	}
	return k.RSA()
}
