package fs

import (
	"bytes"
	"context"
	"crypto/rand"

	"p11fs/engine"
	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
)

// signFile signs what is written, and reads the signature. Without a mechanism
// an ECDSA signature is DER, as openssl has it.
func signFile(k *keyFile) file {
	return k.stream(func(ctx context.Context, s *session) (transform, error) {
		h, err := k.handle(ctx, s)
		if err != nil {
			return nil, err
		}
		op, err := s.eng.Begin(ctx, p11.CKF_SIGN, k.mechanism, h)
		if err != nil {
			return nil, err
		}
		always, err := k.authenticate(ctx, s, op)
		if err != nil {
			op.Close()
			return nil, err
		}
		return &signing{op: op, der: k.der(), one: always}, nil
	})
}

func (k *keyFile) der() bool { return k.bare && k.keyType == p11.CKK_EC }

type signing struct {
	op  *engine.Operation
	der bool
	one bool // the PIN was given for one signature
}

func (t *signing) update(ctx context.Context, part []byte) ([]byte, error) {
	return t.op.Update(ctx, part)
}

func (t *signing) result(ctx context.Context) ([]byte, error) {
	sig, err := t.op.Result(ctx, nil)
	if err != nil || !t.der {
		return sig, err
	}
	return pkix.ECDSARawToDER(sig)
}

func (t *signing) once() bool { return t.one }

func (t *signing) close() { t.op.Close() }

// verifyFile takes a signature, then the data it is to fit: cat sig msg >
// verify. It reads ok, or the error that the close had.
func verifyFile(k *keyFile) file {
	return k.stream(func(ctx context.Context, s *session) (transform, error) {
		h, err := k.handle(ctx, s)
		if err != nil {
			return nil, err
		}
		op, err := s.eng.Begin(ctx, p11.CKF_VERIFY, k.mechanism, h)
		if err != nil {
			return nil, err
		}
		return &verifying{op: op, der: k.der(), need: op.Size()}, nil
	})
}

type verifying struct {
	op   *engine.Operation
	der  bool
	need int // the length of a signature; of a DER one once its head is known
	sig  []byte
	full bool
}

func (t *verifying) update(ctx context.Context, part []byte) ([]byte, error) {
	took := 0
	if !t.full {
		took = t.takeSignature(part)
	}
	if took == len(part) {
		return nil, ctx.Err()
	}
	_, err := t.op.Update(ctx, part[took:])
	if p11.RVOf(err) == p11.CKR_FUNCTION_CANCELED && took > 0 { // as it was
		t.sig, t.full = t.sig[:len(t.sig)-took], false
	}
	return nil, err
}

// takeSignature moves what of part belongs to the signature, and says how much
// that is.
func (t *verifying) takeSignature(part []byte) int {
	had := len(t.sig)
	if t.der {
		// A DER signature says its length in its first bytes. What cannot be
		// one is taken whole, and refused at the end.
		t.need = maxDERSignature
		head := append(append([]byte(nil), t.sig...), part[:min(len(part), maxDERSignature)]...)
		if n, ok := pkix.DERSignatureLen(head); ok {
			t.need = n
		}
	}
	n := min(len(part), t.need-had)
	if n < 0 {
		n = 0
	}
	t.sig = append(t.sig, part[:n]...)
	t.full = len(t.sig) == t.need
	return n
}

// maxDERSignature is longer than any ECDSA signature of a known curve.
const maxDERSignature = 160

func (t *verifying) result(ctx context.Context) ([]byte, error) {
	if !t.full {
		return nil, p11.Errorf(p11.CKR_SIGNATURE_LEN_RANGE, "there are %d bytes, which is no whole signature", len(t.sig))
	}
	sig := t.sig
	if t.der {
		raw, err := pkix.ECDSADERToRaw(sig, t.op.Size())
		if err != nil {
			return nil, p11.Errorf(p11.CKR_SIGNATURE_INVALID, "the signature is not in DER: %v", err)
		}
		sig = raw
	}
	if _, err := t.op.Result(ctx, sig); err != nil {
		return nil, err
	}
	return []byte("ok\n"), nil
}

func (t *verifying) once() bool { return false }

func (t *verifying) close() { t.op.Close() }

// gcmIVLen and gcmTagBits are those of AES-GCM without a mechanism: a fresh IV
// stands in front of the ciphertext, and the tag behind it.
const (
	gcmIVLen   = 12
	gcmTagBits = 128
)

// withIV is the key's mechanism with that IV, for the bare AES-GCM.
func (k *keyFile) withIV(iv []byte) p11.Mechanism {
	m := k.mechanism
	m.Param = &p11.GCMParams{IV: iv, TagBits: gcmTagBits}
	return m
}

func (k *keyFile) ownIV() bool { return k.bare && k.mechanism.Type == p11.CKM_AES_GCM }

// oneTag says that a message of m may have one tag only: two of them under one
// nonce, over a message and its beginning, tell GCM's authentication key (NIST SP
// 800-38D, appendix A), with which anybody makes tags for any ciphertext.
func oneTag(m p11.MechanismType) bool { return m == p11.CKM_AES_GCM }

// encryptFile encrypts what is written.
func encryptFile(k *keyFile) file {
	return k.stream(func(ctx context.Context, s *session) (transform, error) {
		h, err := k.handle(ctx, s)
		if err != nil {
			return nil, err
		}
		m, t := k.mechanism, &ciphering{one: oneTag(k.mechanism.Type)}
		if k.ownIV() {
			t.head = make([]byte, gcmIVLen)
			if _, err := rand.Read(t.head); err != nil {
				return nil, p11.Errorf(p11.CKR_GENERAL_ERROR, "random numbers: %v", err)
			}
			m = k.withIV(bytes.Clone(t.head))
		}
		if t.op, err = s.eng.Begin(ctx, p11.CKF_ENCRYPT, m, h); err != nil {
			return nil, err
		}
		return t, nil
	})
}

// decryptFile decrypts what is written.
func decryptFile(k *keyFile) file {
	return k.stream(func(ctx context.Context, s *session) (transform, error) {
		h, err := k.handle(ctx, s)
		if err != nil {
			return nil, err
		}
		if k.ownIV() {
			return &openingGCM{begin: func(ctx context.Context, iv []byte) (*engine.Operation, error) {
				return s.eng.Begin(ctx, p11.CKF_DECRYPT, k.withIV(iv), h)
			}}, nil
		}
		op, err := s.eng.Begin(ctx, p11.CKF_DECRYPT, k.mechanism, h)
		if err != nil {
			return nil, err
		}
		always, err := k.authenticate(ctx, s, op)
		if err != nil {
			op.Close()
			return nil, err
		}
		return &ciphering{op: op, one: always}, nil
	})
}

// ciphering is an encryption or a decryption. head goes in front of the output.
type ciphering struct {
	op   *engine.Operation
	head []byte // until it is given
	one  bool   // one result, for its tag or its PIN
}

func (t *ciphering) update(ctx context.Context, part []byte) ([]byte, error) {
	b, err := t.op.Update(ctx, part)
	if err != nil || t.head == nil {
		return b, err
	}
	b = append(t.head, b...)
	t.head = nil
	return b, nil
}

// result comes after an update, which has given the head.
func (t *ciphering) result(ctx context.Context) ([]byte, error) { return t.op.Result(ctx, nil) }

func (t *ciphering) once() bool { return t.one }

func (t *ciphering) close() { t.op.Close() }

// openingGCM is a decryption whose IV stands in front of the data.
type openingGCM struct {
	begin func(ctx context.Context, iv []byte) (*engine.Operation, error)
	iv    []byte
	op    *engine.Operation
}

func (t *openingGCM) update(ctx context.Context, part []byte) ([]byte, error) {
	if t.op == nil {
		n := min(gcmIVLen-len(t.iv), len(part))
		iv := append(append([]byte(nil), t.iv...), part[:n]...)
		if len(iv) < gcmIVLen {
			t.iv = iv
			return nil, nil
		}
		op, err := t.begin(ctx, iv)
		if err != nil {
			return nil, err
		}
		out, err := op.Update(ctx, part[n:])
		if err != nil {
			op.Close()
			return nil, err
		}
		t.iv, t.op = iv, op
		return out, nil
	}
	return t.op.Update(ctx, part)
}

func (t *openingGCM) result(ctx context.Context) ([]byte, error) {
	if t.op == nil {
		return nil, p11.Errorf(p11.CKR_ENCRYPTED_DATA_INVALID, "the message is shorter than its IV of %d bytes", gcmIVLen)
	}
	return t.op.Result(ctx, nil)
}

func (t *openingGCM) once() bool { return false }

func (t *openingGCM) close() {
	if t.op != nil {
		t.op.Close()
	}
}

// gather is a transform that takes its input whole.
type gather struct {
	s     *session
	limit int
	data  []byte
	do    func(ctx context.Context, data []byte) ([]byte, error)
}

func (t *gather) update(_ context.Context, part []byte) ([]byte, error) {
	if len(t.data)+len(part) > t.limit {
		return nil, errTooLong
	}
	if err := t.s.reserve(len(part)); err != nil {
		return nil, err
	}
	t.data = secret.Append(t.data, part)
	return nil, nil
}

func (t *gather) result(ctx context.Context) ([]byte, error) { return t.do(ctx, t.data) }

func (t *gather) once() bool { return false }

func (t *gather) close() {
	t.s.unreserve(len(t.data))
	secret.Wipe(t.data)
	t.data = t.data[:0]
}
