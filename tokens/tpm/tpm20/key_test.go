package tpm20

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"math/big"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/tpm/desk"
)

func curve(t testing.TB, name string) p11.Curve {
	t.Helper()
	for _, c := range p11.Curves() {
		if c.Elliptic != nil && c.Elliptic.Params().Name == name {
			return c
		}
	}
	t.Fatalf("no curve %s", name)
	return p11.Curve{}
}

func newKey(t testing.TB, c *Chip, p Parent, make func(context.Context) (Blob, error)) *Key {
	t.Helper()
	return &Key{c, p, must[Blob](t)(make(t.Context())), nil}
}

// TestRSA has a key made, and another one come in, and uses both in all ways.
func TestRSA(t *testing.T) {
	t.Parallel()
	_, c, p := fresh(t)
	ctx := t.Context()
	auth := must[*secret.Bytes](t)(NewAuth())
	own := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	made := must[Blob](t)(c.CreateRSA(ctx, p, 2048, auth))
	imported := must[Blob](t)(c.ImportRSA(ctx, p, own.N, own.Primes[1], auth))
	for name, blob := range map[string]Blob{"made": made, "imported": imported} {
		n, _, _, err := PublicOf(blob)
		noError(t, err)
		public := &rsa.PublicKey{N: n, E: 65537}
		if name == "imported" && n.Cmp(own.N) != 0 {
			t.Error("the modulus is another one")
		}
		k := &Key{c, p, blob, auth}
		for h, digest := range map[crypto.Hash][]byte{
			crypto.SHA1: sum(sha1.Sum([]byte("hello"))), crypto.SHA256: sum32(sha256.Sum256([]byte("hello"))), crypto.SHA512: sum64(sha512.Sum512([]byte("hello"))),
		} {
			sig := must[[]byte](t)(k.SignPKCS1(ctx, h, digest))
			if err := rsa.VerifyPKCS1v15(public, h, digest, sig); err != nil {
				t.Errorf("%s, %v: %v", name, h, err)
			}
		}
		_, err = k.SignPKCS1(ctx, crypto.MD5, make([]byte, 16))
		wantIs(t, "a hash that no TPM has", err, ErrNotHere)
		in := make([]byte, 256)
		in[200] = 7
		out := must[[]byte](t)(k.Raw(ctx, in))
		if back := new(big.Int).Exp(new(big.Int).SetBytes(out), big.NewInt(65537), n); !bytes.Equal(back.FillBytes(make([]byte, 256)), in) {
			t.Errorf("%s: raw gives %x", name, out)
		}
		_, err = k.Raw(ctx, bytes.Repeat([]byte{0xff}, 256))
		wantRV(t, "a number above the modulus", err, p11.CKR_ENCRYPTED_DATA_INVALID)
	}
	wrong := &Key{c, p, made, must[*secret.Bytes](t)(NewAuth())}
	_, err := wrong.Raw(ctx, make([]byte, 256))
	wantRV(t, "a wrong authorisation", err, p11.CKR_FUNCTION_FAILED)
	if n := counted(t, c); n != 0 {
		t.Errorf("the machine has counted %d failures", n)
	}
	short := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 1536))
	_, err = c.ImportRSA(ctx, p, short.N, short.Primes[0], auth)
	wantRV(t, "a key of 1536 bits", err, p11.CKR_KEY_SIZE_RANGE)
	_, err = c.ImportRSA(ctx, p, own.N, new(big.Int).Add(own.Primes[0], big.NewInt(2)), auth)
	wantRV(t, "a prime of another key", err, p11.CKR_ATTRIBUTE_VALUE_INVALID)
	damaged := Blob{made.Public, bytes.Clone(made.Private)}
	damaged.Private[40] ^= 1
	_, err = (&Key{c, p, damaged, auth}).Raw(ctx, make([]byte, 256))
	wantRV(t, "a damaged key", err, p11.CKR_DEVICE_ERROR)
}

func sum(b [20]byte) []byte   { return b[:] }
func sum32(b [32]byte) []byte { return b[:] }
func sum64(b [64]byte) []byte { return b[:] }

func TestEC(t *testing.T) {
	t.Parallel()
	_, c, p := fresh(t)
	ctx := t.Context()
	auth := must[*secret.Bytes](t)(NewAuth())
	for _, curve := range must[*Facts](t)(c.Facts(ctx)).Curves {
		e := curve.Elliptic
		own := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(e, rand.Reader))
		n := curve.Size()
		point := must[[]byte](t)(own.PublicKey.Bytes())
		scalar := must[[]byte](t)(own.Bytes())
		for name, blob := range map[string]Blob{
			"made":     must[Blob](t)(c.CreateEC(ctx, p, curve, auth)),
			"imported": must[Blob](t)(c.ImportEC(ctx, p, curve, scalar, point, auth)),
		} {
			_, got, pt, err := PublicOf(blob)
			noError(t, err)
			if got.Name != curve.Name || name == "imported" && !bytes.Equal(pt, point) {
				t.Errorf("%s on %s: %s, %x", name, curve.Name, got.Name, pt)
			}
			k := &Key{c, p, blob, auth}
			public := must[*ecdsa.PublicKey](t)(ecdsa.ParseUncompressedPublicKey(e, pt))
			for length := 1; length <= 64; length += 7 {
				digest := make([]byte, length)
				_, _ = rand.Read(digest)
				r, s, err := k.SignECDSA(ctx, curve, digest)
				noError(t, err)
				if !ecdsa.Verify(public, digest, r, s) {
					t.Errorf("%s on %s: the signature of %d bytes does not fit", name, curve.Name, length)
				}
			}
			if peer := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(e, rand.Reader)); e.Params().BitSize != 224 {
				theirs := must[*ecdh.PrivateKey](t)(peer.ECDH())
				ours := must[*ecdh.PublicKey](t)(public.ECDH())
				want := must[[]byte](t)(theirs.ECDH(ours))
				if z := must[[]byte](t)(k.ECDH(ctx, curve, theirs.PublicKey().Bytes())); !bytes.Equal(z, want) {
					t.Errorf("%s on %s: the shared secret is another one", name, curve.Name)
				}
			}
			off := bytes.Clone(pt)
			off[len(off)-1] ^= 1
			_, err = k.ECDH(ctx, curve, off)
			wantRV(t, "a point off the curve", err, p11.CKR_MECHANISM_PARAM_INVALID)
		}
		other := bytes.Clone(scalar)
		other[n-1] ^= 1
		_, err := c.ImportEC(ctx, p, curve, other, point, auth)
		wantRV(t, "a scalar of another point", err, p11.CKR_ATTRIBUTE_VALUE_INVALID)
	}
}

// TestFit: what is signed is the same number, whatever length the TPM wants.
func TestFit(t *testing.T) {
	f := &Facts{}
	for _, h := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		id, _ := hashID(h)
		f.Hashes = append(f.Hashes, id)
	}
	number := func(digest []byte, bits int) *big.Int { // FIPS 186-5 §6.4.1
		n := new(big.Int).SetBytes(digest)
		return n.Rsh(n, uint(max(0, 8*len(digest)-bits)))
	}
	for _, bits := range []int{224, 256, 384, 521} {
		for length := 1; length <= 66; length++ {
			digest := make([]byte, length)
			_, _ = rand.Read(digest)
			_, padded, ok := f.fit(digest, (bits+7)/8)
			if ok != (bits < 521 || length <= 64) {
				t.Errorf("%d bytes on a curve of %d bits: %v", length, bits, ok)
			}
			if ok && number(digest, bits).Cmp(number(padded, bits)) != 0 {
				t.Errorf("%d bytes on a curve of %d bits: %x became %x", length, bits, digest, padded)
			}
		}
	}
	if _, _, ok := (&Facts{}).fit([]byte{1}, 32); ok {
		t.Error("a TPM without hashes signs")
	}
}

// TestManyKeys uses more keys in turns than fit into the TPM, by several at once, while
// another one has things in it that are never flushed.
func TestManyKeys(t *testing.T) {
	t.Parallel()
	_, c, p := fresh(t)
	p256 := curve(t, "P-256")
	auth := must[*secret.Bytes](t)(NewAuth())
	var keys []*Key
	for range 7 {
		keys = append(keys, &Key{c, p, must[Blob](t)(c.CreateEC(t.Context(), p, p256, auth)), auth})
	}
	use := func() error {
		for i := range 3 * len(keys) {
			k := keys[i%len(keys)]
			if _, _, err := k.SignECDSA(t.Context(), p256, []byte("digest")); err != nil {
				return err
			}
			if _, err := k.ECDH(t.Context(), p256, must[[]byte](t)(pointOfBlob(keys[0].Blob))); err != nil {
				return err
			}
		}
		return nil
	}
	done := make(chan error)
	for range 4 {
		go func() { done <- use() }()
	}
	for range 4 {
		noError(t, <-done)
	}
	// Somebody loads a key and forgets it: there is room for one less.
	must[struct{}](t)(do(t.Context(), c, func(w *worker) (struct{}, error) {
		w.flush()
		s, err := w.parent(p)
		if err != nil {
			return struct{}{}, err
		}
		_, err = w.loadOnce(s, keys[0].Blob)
		w.room = 5 // more than there is
		return struct{}{}, err
	}))
	noError(t, use())
	// Somebody flushes what is ours.
	must[struct{}](t)(do(t.Context(), c, func(w *worker) (struct{}, error) {
		for _, k := range w.keys {
			w.flushHandle(k.handle)
		}
		return struct{}{}, nil
	}))
	noError(t, use())
}

func pointOfBlob(b Blob) ([]byte, error) {
	_, _, point, err := PublicOf(b)
	return point, err
}

// TestIdle: what is held of the TPM is given back soon, to whoever comes then.
func TestIdle(t *testing.T) {
	t.Parallel()
	tpm, c, p := fresh(t)
	p256 := curve(t, "P-256")
	k := newKey(t, c, p, func(ctx context.Context) (Blob, error) { return c.CreateEC(ctx, p, p256, nil) })
	_, _, err := k.SignECDSA(t.Context(), p256, []byte("digest"))
	noError(t, err)
	begun := time.Now()
	other := chip(t, tpm)
	handles := must[int](t)(do(t.Context(), other, func(w *worker) (int, error) {
		n, err := w.property(0x207) // TPM_PT_HR_TRANSIENT_AVAIL
		return int(n), err
	}))
	if took := time.Since(begun); handles != 3 || took < desk.Rest/2 {
		t.Errorf("after %v there is room for %d keys", took, handles)
	}
}

// TestSession: calls one after the other have one session, but for no longer than a second.
func TestSession(t *testing.T) {
	t.Parallel()
	_, c, p := fresh(t)
	auth := hide(t, []byte("auth"))
	blob := must[Blob](t)(c.CreateEC(t.Context(), p, curve(t, "P-256"), auth))
	must[struct{}](t)(do(t.Context(), c, func(w *worker) (none struct{}, err error) {
		s, err := w.parent(p)
		if err != nil {
			return none, err
		}
		l, err := w.load(s, blob)
		if err != nil {
			return none, err
		}
		for _, step := range []struct {
			age  time.Duration
			both bool
			same bool
		}{{longest / 4, false, true}, {longest, false, false}, {0, true, false}} {
			if err := w.authorize(s, l, auth, false); err != nil {
				return none, err
			}
			before := l.session
			before.began = time.Now().Add(-step.age)
			if err := w.authorize(s, l, auth, step.both); err != nil {
				return none, err
			}
			if (l.session == before) != step.same {
				t.Errorf("%+v: the session is the same: %v", step, l.session == before)
			}
		}
		return none, nil
	}))
}

// TestInterrupt: who is interrupted does not wait for the TPM.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	tpm, c, p := fresh(t)
	p256 := curve(t, "P-256")
	k := newKey(t, c, p, func(ctx context.Context) (Blob, error) { return c.CreateEC(ctx, p, p256, nil) })
	tpm.Signal(19) // SIGSTOP
	begun := time.Now()
	errs := make(chan error)
	for range 3 {
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, _, err := k.SignECDSA(ctx, p256, []byte("digest"))
			errs <- err
		}()
	}
	for range 3 {
		if err := <-errs; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("interrupted: %v", err)
		}
	}
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
	tpm.Signal(18) // SIGCONT
	_, _, err := k.SignECDSA(t.Context(), p256, []byte("digest"))
	noError(t, err)
}
