package fs

import (
	"bytes"
	"context"
	"crypto/rand"
	"slices"

	"p11fs/engine"
	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
)

// A use is a message that goes into one operation of the engine's: a digest, a
// signature, an encryption or a decryption.
type use struct {
	op   *engine.Operation
	head []byte // goes in front of the output; nil once it is given
	der  bool   // the result is an ECDSA signature to be given in DER

	// begin is set if the first bytes of the message are an IV. It starts the
	// operation with it, and is nil after that.
	begin func(ctx context.Context, iv []byte) (*use, error)
	iv    []byte // as far as it has come
}

// use starts an operation with the key, and gives it the PIN that was written for
// it if the key wants one each time. Without one the operation refuses its data.
func (k *keyFile) use(ctx context.Context, s *session, key engine.ObjectInfo, function p11.Flags, m p11.Mechanism) (*use, error) {
	begin := func() (*engine.Operation, error) { return s.eng.Begin(ctx, function, m, key.Handle) }
	if k.ivInFront() && function == p11.CKF_ENCRYPT {
		begin = func() (*engine.Operation, error) { return s.eng.BeginFresh(ctx, m, key.Handle) }
	}
	op, err := begin()
	if err != nil || !key.Attrs.Bool(p11.CKA_ALWAYS_AUTHENTICATE) {
		return &use{op: op}, err
	}
	if pin := s.takeSecret(contextSecret); pin != nil {
		defer pin.Close()
		if err := op.Authenticate(ctx, pin); err != nil {
			op.Close()
			return nil, err
		}
	}
	return &use{op: op}, nil
}

func (u *use) update(ctx context.Context, part []byte) ([]byte, error) {
	if u.begin != nil {
		return u.updateIV(ctx, part)
	}
	out, err := u.op.Update(ctx, part)
	if err != nil || u.head == nil {
		return out, err
	}
	out = append(u.head, out...)
	u.head = nil
	return out, nil
}

func (u *use) updateIV(ctx context.Context, part []byte) ([]byte, error) {
	n := min(gcmIVLen-len(u.iv), len(part))
	iv := slices.Concat(u.iv, part[:n])
	if len(iv) < gcmIVLen {
		u.iv = iv
		return nil, nil
	}
	begun, err := u.begin(ctx, iv)
	if err != nil {
		return nil, err
	}
	out, err := begun.update(ctx, part[n:])
	if err != nil {
		begun.close()
		return nil, err
	}
	*u = *begun
	return out, nil
}

// result comes after an update, which has given the head.
func (u *use) result(ctx context.Context) ([]byte, error) {
	if u.begin != nil {
		return nil, p11.Errorf(p11.CKR_ENCRYPTED_DATA_INVALID, "the message is shorter than its IV of %d bytes", gcmIVLen)
	}
	out, err := u.op.Result(ctx, nil)
	if err != nil || !u.der {
		return out, err
	}
	return pkix.ECDSARawToDER(out)
}

func (u *use) close() {
	if u.op != nil {
		u.op.Close()
	}
}

// stream is the data file whose messages the key takes part in. One that is of a
// private key goes with the login, and one for which a PIN was given has one result.
func (k *keyFile) stream(begin func(ctx context.Context, s *session, key engine.ObjectInfo) (transform, error)) *stream {
	return &stream{place: k.place, path: k.path, start: func(ctx context.Context, s *session) (start, error) {
		key, err := k.key(ctx, s)
		if err != nil {
			return start{}, err
		}
		t, err := begin(ctx, s, key)
		return start{transform: t, single: key.Attrs.Bool(p11.CKA_ALWAYS_AUTHENTICATE), guarded: key.Private}, err
	}}
}

// der reports whether signatures are in DER, as openssl has them.
func (k *keyFile) der() bool {
	return k.bare && (k.keyType == p11.CKK_EC || k.keyType == p11.CKK_DSA)
}

// signFile signs what is written, and reads the signature.
func signFile(k *keyFile) *file {
	data := k.stream(func(ctx context.Context, s *session, key engine.ObjectInfo) (transform, error) {
		u, err := k.use(ctx, s, key, p11.CKF_SIGN, k.mechanism)
		if err != nil {
			return nil, err
		}
		u.der = k.der()
		return u, nil
	})
	data.sameIV = k.mechanism.Type == p11.CKM_AES_GMAC
	return data.file()
}

// verifyFile takes a signature, then the data that it is to fit: cat sig msg >
// verify. It reads ok, or the error that the close had.
func verifyFile(k *keyFile) *file {
	return k.stream(func(ctx context.Context, s *session, key engine.ObjectInfo) (transform, error) {
		u, err := k.use(ctx, s, key, p11.CKF_VERIFY, k.mechanism)
		if err != nil {
			return nil, err
		}
		return &verification{use: u, der: k.der(), need: u.op.Size()}, nil
	}).file()
}

type verification struct {
	*use
	der  bool
	need int // the length of a signature; of a DER one once its head is known
	sig  []byte
	full bool
}

func (t *verification) update(ctx context.Context, part []byte) ([]byte, error) {
	taken := 0
	if !t.full {
		taken = t.takeSignature(part)
	}
	if taken == len(part) {
		return nil, ctx.Err()
	}
	_, err := t.op.Update(ctx, part[taken:])
	if p11.RVOf(err) == p11.CKR_FUNCTION_CANCELED && taken > 0 { // as it was
		t.sig, t.full = t.sig[:len(t.sig)-taken], false
	}
	return nil, err
}

// takeSignature moves what of part belongs to the signature, and returns how much
// that is.
func (t *verification) takeSignature(part []byte) int {
	if t.der {
		// A DER signature has its length in its first bytes. What cannot be one is
		// taken whole, and refused at the end.
		t.need = maxDERSignature
		head := slices.Concat(t.sig, part[:min(len(part), maxDERSignature)])
		if n, ok := pkix.DERSignatureLen(head); ok {
			t.need = n
		}
	}
	n := max(0, min(len(part), t.need-len(t.sig)))
	t.sig = append(t.sig, part[:n]...)
	t.full = len(t.sig) == t.need
	return n
}

// maxDERSignature is longer than any ECDSA signature of a known curve.
const maxDERSignature = 160

func (t *verification) result(ctx context.Context) ([]byte, error) {
	if !t.full && t.der {
		return nil, p11.Errorf(p11.CKR_SIGNATURE_LEN_RANGE, "the %d bytes do not begin with a whole signature in DER", len(t.sig))
	}
	if !t.full {
		return nil, p11.Errorf(p11.CKR_SIGNATURE_LEN_RANGE, "there are %d bytes, signature and data together, and a signature of this key alone has %d", len(t.sig), t.need)
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

// gcmIVLen and gcmTagBits are those of AES-GCM without a mechanism: a fresh IV
// is in front of the ciphertext, and the tag behind it.
const (
	gcmIVLen   = 12
	gcmTagBits = 128
)

// ivInFront reports whether the key's file is that of AES-GCM without a mechanism.
func (k *keyFile) ivInFront() bool { return k.bare && k.mechanism.Type == p11.CKM_AES_GCM }

func gcmWith(iv []byte) p11.Mechanism {
	return p11.Mechanism{Type: p11.CKM_AES_GCM, Param: &p11.GCMParams{IV: iv, TagBits: gcmTagBits}}
}

// encryptFile encrypts what is written.
func encryptFile(k *keyFile) *file {
	data := k.stream(func(ctx context.Context, s *session, key engine.ObjectInfo) (transform, error) {
		m, iv := k.mechanism, []byte(nil)
		if k.ivInFront() {
			iv = make([]byte, gcmIVLen)
			if _, err := rand.Read(iv); err != nil {
				return nil, p11.Errorf(p11.CKR_GENERAL_ERROR, "random numbers: %v", err)
			}
			m = gcmWith(bytes.Clone(iv))
		}
		u, err := k.use(ctx, s, key, p11.CKF_ENCRYPT, m)
		if err != nil {
			return nil, err
		}
		u.head = iv
		return u, nil
	})
	// Two tags under one nonce, over a message and its beginning, tell GCM's
	// authentication key (NIST SP 800-38D, appendix A), with which anybody makes tags
	// for any ciphertext. The last segment of a stream is such a message.
	data.single = slices.Contains([]p11.MechanismType{p11.CKM_AES_GCM, p11.CKM_P11FS_STREAM, p11.CKM_CHACHA20_POLY1305}, k.mechanism.Type)
	data.sameIV = k.mechanism.Param != nil && k.keyType != p11.CKK_RSA && k.mechanism.Type != p11.CKM_P11FS_STREAM
	return data.file()
}

// decryptFile decrypts what is written.
func decryptFile(k *keyFile) *file {
	return k.stream(func(ctx context.Context, s *session, key engine.ObjectInfo) (transform, error) {
		if k.ivInFront() {
			return &use{begin: func(ctx context.Context, iv []byte) (*use, error) {
				return k.use(ctx, s, key, p11.CKF_DECRYPT, gcmWith(iv))
			}}, nil
		}
		u, err := k.use(ctx, s, key, p11.CKF_DECRYPT, k.mechanism)
		if err != nil {
			return nil, err
		}
		return u, nil
	}).file()
}

// A collection is a transform that takes its input whole.
type collection struct {
	s     *session
	limit int
	data  []byte
	do    func(ctx context.Context, data []byte) ([]byte, error)
}

func (t *collection) update(_ context.Context, part []byte) ([]byte, error) {
	if len(t.data)+len(part) > t.limit {
		return nil, errTooLong
	}
	if err := t.s.reserve(len(part)); err != nil {
		return nil, err
	}
	t.data = secret.Append(t.data, part)
	return nil, nil
}

func (t *collection) result(ctx context.Context) ([]byte, error) { return t.do(ctx, t.data) }

func (t *collection) close() {
	t.s.unreserve(len(t.data))
	secret.Wipe(t.data)
	t.data = t.data[:0]
}
