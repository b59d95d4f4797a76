package swtok

import (
	"context"
	"crypto"
	"crypto/subtle"
	"hash"

	"p11fs/p11"
	"p11fs/secret"
)

// A message is a use that answers once, about all of its data: from a hash that
// runs along, or, where the mechanism takes the data as given, from the data
// itself.
type message struct {
	h     hash.Hash // nil where the data is kept
	data  []byte
	least int    // bytes of data that are enough
	most  int    // bytes of data that are kept at most
	over  p11.RV // for data that is shorter or longer
	why   string
	size  int // of the digest or signature; 0 for another result
	run   func(ctx context.Context, data, signature []byte) ([]byte, error)
}

// maxHeld bounds what an operation that must see all of its input before it
// answers holds in memory.
const maxHeld = 64 << 20

// hashed is a message of any length that h runs along with.
func hashed(h crypto.Hash) message { return message{h: h.New()} }

// given is a message of least to most bytes that is signed as it is; why says what
// the mechanism takes.
func given(least, most int, why string) message {
	return message{least: least, most: most, over: p11.CKR_DATA_LEN_RANGE, why: why}
}

// collected is a use of a cipher that works on all of its input at once.
func collected(most int, over p11.RV, run func(in []byte) ([]byte, error)) part {
	return collectedSlowly(most, over, func(_ context.Context, in []byte) ([]byte, error) { return run(in) })
}

// collectedSlowly is collected for what can be interrupted.
func collectedSlowly(most int, over p11.RV, run func(ctx context.Context, in []byte) ([]byte, error)) part {
	return &message{
		most: most, over: over, why: "the data is longer than what the mechanism and key take",
		run: func(ctx context.Context, in, _ []byte) ([]byte, error) { return run(ctx, in) },
	}
}

// signing ends m with a signature of size bytes.
func (m message) signing(size int, sign func(data []byte) ([]byte, error)) (part, error) {
	return m.signingSlowly(size, func(_ context.Context, data []byte) ([]byte, error) { return sign(data) })
}

// signingSlowly is signing for what can be interrupted.
func (m message) signingSlowly(size int, sign func(ctx context.Context, data []byte) ([]byte, error)) (part, error) {
	m.size = size
	m.run = func(ctx context.Context, data, _ []byte) ([]byte, error) { return sign(ctx, data) }
	return &m, nil
}

// verifying ends m with the check of a signature of size bytes.
func (m message) verifying(size int, verify func(data, signature []byte) bool) (part, error) {
	return m.verifyingForm(size, func(signature []byte) ([]byte, bool) { return signature, len(signature) == size }, verify)
}

// verifyingForm ends m with the check of a signature that form brings to its size.
func (m message) verifyingForm(size int, form func(signature []byte) ([]byte, bool), verify func(data, signature []byte) bool) (part, error) {
	m.size = size
	m.run = func(_ context.Context, data, signature []byte) ([]byte, error) {
		whole, ok := form(signature)
		switch {
		case !ok:
			return nil, p11.Errorf(p11.CKR_SIGNATURE_LEN_RANGE, "the signature has %d bytes, not %d", len(signature), size)
		case !verify(data, whole):
			return nil, p11.CKR_SIGNATURE_INVALID
		}
		return nil, nil
	}
	return &m, nil
}

func (m *message) update(_, part []byte) ([]byte, error) {
	switch {
	case m.h != nil:
		_, err := m.h.Write(part)
		return nil, err
	case len(part) > m.most-len(m.data):
		return nil, p11.Errorf(m.over, "%s", m.why)
	}
	m.data = secret.Append(m.data, part)
	return nil, nil
}

func (m *message) kept() int {
	if m.h != nil {
		return -1
	}
	return len(m.data)
}

func (m *message) updateSize(int) int { return 0 }

func (m *message) result(signature []byte) ([]byte, error) {
	return m.resultWithin(context.Background(), signature)
}

// resultWithin is result for as long as ctx lets it.
func (m *message) resultWithin(ctx context.Context, signature []byte) ([]byte, error) {
	switch {
	case m.h != nil:
		return m.run(ctx, m.h.Sum(nil), signature)
	case len(m.data) < m.least:
		return nil, p11.Errorf(m.over, "%s", m.why)
	}
	return m.run(ctx, m.data, signature)
}

// mayDuplicate: a digest or signature can go on twice, if its hash can be copied. What
// is encrypted at once uses its IV once.
func (m *message) mayDuplicate() bool {
	if m.size == 0 || m.h == nil {
		return m.size > 0
	}
	_, err := cloneHash(m.h)
	return err == nil
}

func (m *message) duplicate() (part, error) {
	c := *m
	if m.h == nil {
		c.data = secret.Append(nil, m.data)
		return &c, nil
	}
	h, err := cloneHash(m.h)
	c.h = h
	return &c, err
}

func cloneHash(h hash.Hash) (hash.Hash, error) {
	c, ok := h.(hash.Cloner)
	if !ok {
		return nil, p11.CKR_STATE_UNSAVEABLE
	}
	return c.Clone()
}

func (m *message) close() {
	wipe(m.data)
	if m.h != nil {
		m.h.Reset()
	}
}

// equal compares in a time that does not depend on the bytes.
func equal(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

// failure is what the provider says of what it should have done.
func failure(err error) error {
	if err == nil {
		return nil
	}
	return p11.Errorf(p11.CKR_FUNCTION_FAILED, "%v", err)
}

// lenRange is the answer to data of a wrong length.
func lenRange(decrypt bool) p11.RV {
	if decrypt {
		return p11.CKR_ENCRYPTED_DATA_LEN_RANGE
	}
	return p11.CKR_DATA_LEN_RANGE
}
