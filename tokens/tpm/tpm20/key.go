package tpm20

import (
	"context"
	"crypto"
	"fmt"
	"math/big"
	"time"

	"github.com/google/go-tpm/tpm2"

	"p11fs/p11"
	"p11fs/secret"
)

// A Blob is a key as it is outside of the TPM, encrypted under its storage key: a
// TPM2B_PUBLIC and a TPM2B_PRIVATE without the sizes in front.
type Blob struct{ Public, Private []byte }

// maxBlob bounds each half of a blob: RSA of 4096 bits has less than 700 bytes.
const maxBlob = 2048

// template is the public area of a key; made says that the TPM makes it.
func template(made bool, t tpm2.TPMAlgID, parameters tpm2.TPMUPublicParms) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: t, NameAlg: tpm2.TPMAlgSHA256, Parameters: parameters,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: made, FixedParent: made, SensitiveDataOrigin: made,
			UserWithAuth: true, NoDA: true, SignEncrypt: true, Decrypt: true,
		},
	}
}

func rsaTemplate(made bool, bits int) tpm2.TPMTPublic {
	return template(made, tpm2.TPMAlgRSA, tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{KeyBits: tpm2.TPMKeyBits(bits)}))
}

func ecTemplate(made bool, curve tpm2.TPMECCCurve) tpm2.TPMTPublic {
	return template(made, tpm2.TPMAlgECC, tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: curve}))
}

// create makes an object below a storage key: a new key, or data that is sealed.
func (w *worker) create(s *storage, public tpm2.TPMTPublic, auth, data []byte) (Blob, error) {
	in := tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: auth}}
	if data != nil {
		in.Data = tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: data})
	}
	r, err := tpm2.Create{
		ParentHandle: s.with(s.encrypting(nil)), InPublic: tpm2.New2B(public),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &in},
	}.Execute(w)
	if err != nil {
		return Blob{}, err
	}
	return Blob{r.OutPublic.Bytes(), r.OutPrivate.Buffer}, nil
}

// withAuth gives f an authorisation, which it does not keep.
func withAuth[T any](auth *secret.Bytes, f func(auth []byte) (T, error)) (result T, err error) {
	auth.Use(func(b []byte) { result, err = f(b) })
	return result, err
}

// CreateRSA makes a key pair with the public exponent 65537. It takes seconds.
func (c *Chip) CreateRSA(ctx context.Context, p Parent, bits int, auth *secret.Bytes) (Blob, error) {
	return c.createKey(ctx, p, rsaTemplate(true, bits), auth)
}

// CreateEC makes a key pair on a curve of Facts.Curves.
func (c *Chip) CreateEC(ctx context.Context, p Parent, curve p11.Curve, auth *secret.Bytes) (Blob, error) {
	id, ok := curveID(curve)
	if !ok {
		return Blob{}, p11.Errorf(p11.CKR_CURVE_NOT_SUPPORTED, "no TPM has the curve %s", curve.Name)
	}
	return c.createKey(ctx, p, ecTemplate(true, id), auth)
}

func (c *Chip) createKey(ctx context.Context, p Parent, public tpm2.TPMTPublic, auth *secret.Bytes) (Blob, error) {
	return do(ctx, c, func(w *worker) (Blob, error) {
		s, err := w.parent(p)
		if err != nil {
			return Blob{}, err
		}
		return withAuth(auth, func(auth []byte) (Blob, error) { return w.create(s, public, auth, nil) })
	})
}

// ImportRSA brings a key with the public exponent 65537 in, by its modulus and one prime.
func (c *Chip) ImportRSA(ctx context.Context, p Parent, n, prime *big.Int, auth *secret.Bytes) (Blob, error) {
	// libtpms takes any number for a prime, and signs nonsense with it.
	if 2*prime.BitLen() != n.BitLen() || new(big.Int).Mod(n, prime).Sign() != 0 {
		return Blob{}, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the prime is not one of two of the same length that make the modulus")
	}
	public := rsaTemplate(false, n.BitLen())
	public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: n.Bytes()})
	return c.importKey(ctx, p, public, auth, nil, func() (tpm2.TPMUSensitiveComposite, []byte) {
		b := prime.FillBytes(make([]byte, (n.BitLen()+15)/16))
		return tpm2.NewTPMUSensitiveComposite(tpm2.TPMAlgRSA, &tpm2.TPM2BPrivateKeyRSA{Buffer: b}), b
	})
}

// ImportEC brings a key in by its scalar and uncompressed point.
func (c *Chip) ImportEC(ctx context.Context, p Parent, curve p11.Curve, scalar, point []byte, auth *secret.Bytes) (Blob, error) {
	id, ok := curveID(curve)
	if !ok || len(point) != 1+2*curve.Size() {
		return Blob{}, p11.Errorf(p11.CKR_CURVE_NOT_SUPPORTED, "the TPM has no curve %s", curve.Name)
	}
	public := ecTemplate(false, id)
	public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, pointOf(curve, point))
	return c.importKey(ctx, p, public, auth, nil, func() (tpm2.TPMUSensitiveComposite, []byte) {
		b := append([]byte(nil), scalar...)
		return tpm2.NewTPMUSensitiveComposite(tpm2.TPMAlgECC, &tpm2.TPM2BECCParameter{Buffer: b}), b
	})
}

// pointOf takes an uncompressed point apart.
func pointOf(curve p11.Curve, point []byte) *tpm2.TPMSECCPoint {
	n := curve.Size()
	return &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: point[1 : 1+n]}, Y: tpm2.TPM2BECCParameter{Buffer: point[1+n:]}}
}

// importKey wraps a key for the storage key, and has the TPM take it in (TPM 2.0 Library,
// Part 1, §23.3.2.2; Part 3, TPM2_Import). numbers gives the private one, in memory that
// is wiped; hidden is what hides it in the public half, or nil.
func (c *Chip) importKey(ctx context.Context, p Parent, public tpm2.TPMTPublic, auth *secret.Bytes, hidden []byte, numbers func() (tpm2.TPMUSensitiveComposite, []byte)) (Blob, error) {
	name, err := tpm2.ObjectName(&public)
	if err != nil {
		return Blob{}, p11.Errorf(p11.CKR_GENERAL_ERROR, "the name of a key: %w", err)
	}
	return do(ctx, c, func(w *worker) (Blob, error) {
		s, err := w.parent(p)
		if err != nil {
			return Blob{}, err
		}
		to, err := tpm2.ImportEncapsulationKey(&s.public)
		if err != nil {
			return Blob{}, err
		}
		private, memory := numbers()
		defer secret.Wipe(memory)
		duplicate, seed, err := withAuth2(auth, func(auth []byte) ([]byte, []byte, error) {
			sensitive := tpm2.Marshal(tpm2.TPMTSensitive{SensitiveType: public.Type, AuthValue: tpm2.TPM2BAuth{Buffer: auth}, SeedValue: tpm2.TPM2BDigest{Buffer: hidden}, Sensitive: private})
			defer secret.Wipe(sensitive)
			return tpm2.CreateDuplicate(random{}, to, name.Buffer, sensitive)
		})
		if err != nil {
			return Blob{}, err
		}
		r, err := tpm2.Import{
			ParentHandle: s.with(tpm2.PasswordAuth(nil)), ObjectPublic: tpm2.New2B(public),
			Duplicate: tpm2.TPM2BPrivate{Buffer: duplicate}, InSymSeed: tpm2.TPM2BEncryptedSecret{Buffer: seed},
			Symmetric: tpm2.TPMTSymDef{Algorithm: tpm2.TPMAlgNull},
		}.Execute(w)
		if err != nil {
			return Blob{}, meaning(err, map[tpm2.TPMRC]error{
				rcValue:   p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "the TPM takes no keys of this size"),
				rcRange:   p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the TPM does not take this key"),
				rcKey:     p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the TPM says that the numbers make no key"),
				rcBinding: p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the TPM says that the private number is not that of the public key"),
			})
		}
		return Blob{tpm2.Marshal(public), r.OutPrivate.Buffer}, nil
	})
}

func withAuth2[A, B any](auth *secret.Bytes, f func(auth []byte) (A, B, error)) (a A, b B, err error) {
	auth.Use(func(x []byte) { a, b, err = f(x) })
	return a, b, err
}

// A Key is a blob that is to be used.
type Key struct {
	Chip   *Chip
	Parent Parent
	Blob   Blob
	Auth   *secret.Bytes // stays the caller's
}

// PublicOf is what the public half of a blob says: the modulus of an RSA key, or the
// curve and the uncompressed point of an EC key.
func PublicOf(b Blob) (modulus *big.Int, curve p11.Curve, point []byte, err error) {
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](b.Public)
	if err != nil || len(b.Public) > maxBlob {
		return nil, curve, nil, fmt.Errorf("no public area: %w", err)
	}
	switch public.Type {
	case tpm2.TPMAlgRSA:
		unique, err := public.Unique.RSA()
		if err != nil {
			return nil, curve, nil, err
		}
		return new(big.Int).SetBytes(unique.Buffer), curve, nil, nil
	case tpm2.TPMAlgECC:
		unique, err := public.Unique.ECC()
		if err != nil {
			return nil, curve, nil, err
		}
		parms, err := public.Parameters.ECCDetail()
		if err != nil {
			return nil, curve, nil, err
		}
		for _, c := range p11.Curves() {
			if id, ok := curveID(c); !ok || id != parms.CurveID {
				continue
			}
			n := c.Size()
			if len(unique.X.Buffer) > n || len(unique.Y.Buffer) > n {
				break
			}
			point = make([]byte, 1+2*n)
			point[0] = 4
			copy(point[1+n-len(unique.X.Buffer):], unique.X.Buffer)
			copy(point[1+2*n-len(unique.Y.Buffer):], unique.Y.Buffer)
			return nil, c, point, nil
		}
	}
	return nil, curve, nil, fmt.Errorf("no key of a type that is known")
}

// A loaded is a key in the TPM.
type loaded struct {
	id      string
	handle  tpm2.TPMHandle
	name    tpm2.TPM2BName
	session *session
}

// A session is one for a key, which is used again in a burst of calls.
type session struct {
	tpm2.Session
	both  bool // encrypts the response too
	auth  []byte
	began time.Time
}

// end forgets the session.
func (k *loaded) end() {
	if k.session != nil {
		secret.Wipe(k.session.auth)
		k.session = nil
	}
}

// endSession ends it in the TPM too.
func (k *loaded) endSession(w *worker) {
	if k.session != nil {
		w.flushHandle(k.session.Handle())
		k.end()
	}
}

// load has a key in the TPM, and makes it the one that was used last.
func (w *worker) load(s *storage, b Blob) (*loaded, error) {
	id := string(b.Public) + string(b.Private)
	for i, k := range w.keys {
		if k.id == id {
			w.keys = append(append(w.keys[:i], w.keys[i+1:]...), k)
			return k, nil
		}
	}
	for len(w.keys) >= w.room {
		w.evict(0)
	}
	k, err := w.loadOnce(s, b)
	if err != nil {
		return nil, err
	}
	k.id = id
	w.keys = append(w.keys, k)
	return k, nil
}

// loadOnce loads what the caller flushes.
func (w *worker) loadOnce(s *storage, b Blob) (*loaded, error) {
	w.lost.coming = nameOf(b)
	defer func() { w.lost.coming = nil }()
	r, err := tpm2.Load{
		ParentHandle: s.with(tpm2.PasswordAuth(nil)), InPrivate: tpm2.TPM2BPrivate{Buffer: b.Private},
		InPublic: tpm2.BytesAs2B[tpm2.TPMTPublic](b.Public),
	}.Execute(w)
	if err != nil {
		return nil, meaning(err, map[tpm2.TPMRC]error{
			rcIntegrity: p11.Errorf(p11.CKR_DEVICE_ERROR, "the key is damaged, or that of another TPM"),
			rcSize:      p11.Errorf(p11.CKR_DEVICE_ERROR, "the key is damaged"),
		})
	}
	return &loaded{handle: r.ObjectHandle, name: r.Name}, nil
}

// use does something with the key, in a session that encrypts what goes in, and if both,
// what comes out.
func use[T any](ctx context.Context, k *Key, both bool, f func(w *worker, key tpm2.AuthHandle) (T, error)) (T, error) {
	return do(ctx, k.Chip, func(w *worker) (result T, err error) {
		s, err := w.parent(k.Parent)
		if err != nil {
			return result, err
		}
		l, err := w.load(s, k.Blob)
		if err != nil {
			return result, err
		}
		if err := w.authorize(s, l, k.Auth, both); err != nil {
			return result, err
		}
		result, err = f(w, tpm2.AuthHandle{Handle: l.handle, Name: l.name, Auth: l.session})
		if err != nil {
			l.endSession(w) // whose nonces may be others now
		}
		return result, err
	})
}

// authorize has a session for a key.
func (w *worker) authorize(s *storage, l *loaded, auth *secret.Bytes, both bool) error {
	if old := l.session; old != nil {
		if old.both == both && time.Since(old.began) < longest {
			return nil
		}
		l.endSession(w)
	}
	var own []byte
	auth.Use(func(b []byte) { own = append(own, b...) })
	encrypt := tpm2.AESEncryption(128, tpm2.EncryptIn)
	if both {
		encrypt = tpm2.AESEncryption(128, tpm2.EncryptInOut)
	}
	hmac, _, err := tpm2.HMACSession(w, tpm2.TPMAlgSHA256, nonceSize, s.salted(own, encrypt)...)
	if err != nil {
		secret.Wipe(own)
		return err
	}
	l.session = &session{hmac, both, own, time.Now()}
	return nil
}

// hashID is the TPM's number of a hash.
func hashID(h crypto.Hash) (tpm2.TPMAlgID, bool) {
	id, ok := map[crypto.Hash]tpm2.TPMAlgID{
		crypto.SHA1: tpm2.TPMAlgSHA1, crypto.SHA256: tpm2.TPMAlgSHA256, crypto.SHA384: tpm2.TPMAlgSHA384, crypto.SHA512: tpm2.TPMAlgSHA512,
		crypto.SHA3_256: tpm2.TPMAlgSHA3256, crypto.SHA3_384: tpm2.TPMAlgSHA3384, crypto.SHA3_512: tpm2.TPMAlgSHA3512,
	}[h]
	return id, ok
}

// has says whether the TPM has a hash.
func (f *Facts) has(h crypto.Hash) (tpm2.TPMAlgID, bool) {
	id, ok := hashID(h)
	for _, one := range f.Hashes {
		if ok && one == id {
			return id, true
		}
	}
	return 0, false
}

// MadeThere says whether the key of a blob was made in the TPM, and so was never
// elsewhere.
func MadeThere(b Blob) bool {
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](b.Public)
	return err == nil && public.ObjectAttributes.SensitiveDataOrigin && public.ObjectAttributes.FixedTPM
}
