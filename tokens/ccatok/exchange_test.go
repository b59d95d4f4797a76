package ccatok

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"math/big"
	"os"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
)

// pair is a pair of keys that the card makes.
func pair(t *testing.T, tok *token, m p11.MechanismType, public p11.Attributes) (pub, priv *tokens.Object) {
	t.Helper()
	a, b, err := tok.GenerateKeyPair(t.Context(), p11.Mechanism{Type: m}, public, nil)
	if err != nil {
		t.Fatal(err)
	}
	return adopted(t, tok, a), adopted(t, tok, b)
}

// attribute is a value of an object.
func attribute(t *testing.T, o *tokens.Object, at p11.AttributeType) []byte {
	t.Helper()
	a, err := o.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer o.Release()
	v, _ := a.Get(at)
	return bytes.Clone(v)
}

// ecb is what a key of AES makes of a block of zeros.
func ecb(t *testing.T, tok *token, a p11.Attributes) []byte {
	t.Helper()
	out, err := do(t, tok, p11.CKF_ENCRYPT, p11.Mechanism{Type: p11.CKM_AES_ECB}, adopted(t, tok, a), make([]byte, 16), 16, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// goECB is that of a key whose value is known.
func goECB(t *testing.T, value []byte) []byte {
	t.Helper()
	b, err := aes.NewCipher(value)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, b.BlockSize())
	b.Encrypt(out, out)
	return out
}

// TestGCM compares AES-GCM with Go's library, in parts of all sorts, and refuses what the
// card does not do.
func TestGCM(t *testing.T) {
	t.Parallel()
	tok, _ := newToken(t)
	value, iv, text := bytes.Repeat([]byte{7}, 32), []byte("twelve bytes"), bytes.Repeat([]byte("some text "), 9000)
	key := adopted(t, tok, template(p11.CKO_SECRET_KEY, p11.CKK_AES, p11.Attribute{Type: p11.CKA_VALUE, Value: bytes.Clone(value)}))
	block, err := aes.NewCipher(value)
	if err != nil {
		t.Fatal(err)
	}
	g, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	want := g.Seal(nil, iv, text, []byte("beside"))
	m := func(bits uint64, iv []byte) p11.Mechanism {
		return p11.Mechanism{Type: p11.CKM_AES_GCM, Param: &p11.GCMParams{IV: iv, AAD: []byte("beside"), TagBits: bits}}
	}
	for _, n := range []int{1000, 7777, len(want)} {
		sealed, err := do(t, tok, p11.CKF_ENCRYPT, m(128, iv), key, text, n, nil)
		if err != nil || !bytes.Equal(sealed, want) {
			t.Errorf("parts of %d: wrong, %v", n, err)
		}
		if back, err := do(t, tok, p11.CKF_DECRYPT, m(128, iv), key, want, n, nil); err != nil || !bytes.Equal(back, text) {
			t.Errorf("back, parts of %d: wrong, %v", n, err)
		}
	}
	want[5] ^= 1
	if back, err := do(t, tok, p11.CKF_DECRYPT, m(128, iv), key, want, 5000, nil); p11.RVOf(err) != p11.CKR_ENCRYPTED_DATA_INVALID || len(back) > 0 {
		t.Errorf("changed on the way: %d bytes, %v", len(back), err)
	}
	if _, err := do(t, tok, p11.CKF_DECRYPT, m(128, iv), key, want[:15], 15, nil); p11.RVOf(err) != p11.CKR_ENCRYPTED_DATA_LEN_RANGE {
		t.Errorf("shorter than the tag: %v", err)
	}
	for what, bad := range map[string]p11.Mechanism{"a tag of 88 bits": m(88, iv), "of 12": m(12, iv), "no vector": m(128, nil), "bytes": {Type: p11.CKM_AES_GCM, Param: p11.RawParam{1}}} {
		if _, err := do(t, tok, p11.CKF_ENCRYPT, bad, key, text, 1000, nil); p11.RVOf(err) != p11.CKR_MECHANISM_PARAM_INVALID {
			t.Errorf("%s: %v", what, err)
		}
	}
	op, err := tok.Begin(t.Context(), p11.CKF_ENCRYPT, m(128, iv), key)
	if err != nil {
		t.Fatal(err)
	}
	defer op.Close()
	if _, err := op.Update(t.Context(), make([]byte, maxWhole)); err != nil {
		t.Error(err)
	}
	if _, err := op.Update(t.Context(), []byte{1}); p11.RVOf(err) != p11.CKR_DATA_LEN_RANGE {
		t.Errorf("one byte too many: %v", err)
	}
}

// TestEdDSA signs with a pair that the card makes and with one that is brought in. Nothing of
// its private value is left.
func TestEdDSA(t *testing.T) {
	t.Parallel()
	tok, _ := newToken(t)
	curve, _ := p11.CurveNamed("ed25519")
	params := p11.Attribute{Type: p11.CKA_EC_PARAMS, Value: curve.Params()}
	pub, priv := pair(t, tok, p11.CKM_EC_EDWARDS_KEY_PAIR_GEN, p11.Attributes{params})
	m, message := p11.Mechanism{Type: p11.CKM_EDDSA}, bytes.Repeat([]byte("a message "), 100)
	sig, err := do(t, tok, p11.CKF_SIGN, m, priv, message, 333, nil)
	if err != nil {
		t.Fatal(err)
	}
	point, err := pkix.OctetPoint(curve, attribute(t, pub, p11.CKA_EC_POINT))
	if err != nil || !ed25519.Verify(point, message, sig) {
		t.Errorf("Go's library refuses the signature: %v", err)
	}
	if _, err := do(t, tok, p11.CKF_VERIFY, m, pub, message, 1000, sig); err != nil {
		t.Error(err)
	}
	if _, err := do(t, tok, p11.CKF_VERIFY, m, pub, message[1:], 1000, sig); p11.RVOf(err) != p11.CKR_SIGNATURE_INVALID {
		t.Errorf("another message: %v", err)
	}
	seed := bytes.Repeat([]byte{9}, ed25519.SeedSize)
	brought := adopted(t, tok, template(p11.CKO_PRIVATE_KEY, p11.CKK_EC_EDWARDS, params, p11.Attribute{Type: p11.CKA_VALUE, Value: bytes.Clone(seed)}))
	if sig, err := do(t, tok, p11.CKF_SIGN, m, brought, message, 1000, nil); err != nil || !bytes.Equal(sig, ed25519.Sign(ed25519.NewKeyFromSeed(seed), message)) {
		t.Errorf("another signature than Go's: %x, %v", sig, err)
	}
	if blob := attribute(t, brought, p11.CKA_IBM_OPAQUE); len(attribute(t, brought, p11.CKA_VALUE)) > 0 || bytes.Contains(blob, seed) || len(blob) == 0 {
		t.Error("the private value is left")
	}
	for _, p := range []*p11.EdDSAParams{{Prehash: true}, {Context: []byte("x")}} {
		if _, err := do(t, tok, p11.CKF_SIGN, p11.Mechanism{Type: p11.CKM_EDDSA, Param: p}, priv, message, 1000, nil); p11.RVOf(err) != p11.CKR_MECHANISM_PARAM_INVALID {
			t.Errorf("%+v: %v", p, err)
		}
	}
	x25519, _ := p11.CurveNamed("x25519")
	if _, _, err := tok.GenerateKeyPair(t.Context(), p11.Mechanism{Type: p11.CKM_EC_EDWARDS_KEY_PAIR_GEN}, p11.Attributes{{Type: p11.CKA_EC_PARAMS, Value: x25519.Params()}}, nil); err == nil {
		t.Error("a key for agreement is made to sign")
	}
}

// TestUnderRSA puts keys of the card under one of RSA for Go's library, and takes in what that
// has wrapped.
func TestUnderRSA(t *testing.T) {
	t.Parallel()
	tok, _ := newToken(t)
	ctx := t.Context()
	pub, priv := pair(t, tok, p11.CKM_RSA_PKCS_KEY_PAIR_GEN, p11.Attributes{{Type: p11.CKA_MODULUS_BITS, Value: p11.Ulong(uint64(1024))}})
	public := &rsa.PublicKey{N: new(big.Int).SetBytes(attribute(t, pub, p11.CKA_MODULUS)), E: 65537}
	value := bytes.Repeat([]byte{8}, 24)
	aesKey := adopted(t, tok, template(p11.CKO_SECRET_KEY, p11.CKK_AES, p11.Attribute{Type: p11.CKA_VALUE, Value: bytes.Clone(value)}))
	pkcs1 := p11.Mechanism{Type: p11.CKM_RSA_PKCS}
	oaep := p11.Mechanism{Type: p11.CKM_RSA_PKCS_OAEP, Param: &p11.OAEPParams{Hash: p11.CKM_SHA256, MGF: p11.CKG_MGF1_SHA256}}
	byGo := map[p11.MechanismType]func([]byte) ([]byte, error){
		p11.CKM_RSA_PKCS:      func(b []byte) ([]byte, error) { return rsa.EncryptPKCS1v15(rand.Reader, public, b) }, //nolint:staticcheck // what CCA has
		p11.CKM_RSA_PKCS_OAEP: func(b []byte) ([]byte, error) { return rsa.EncryptOAEP(sha256.New(), rand.Reader, public, b, nil) },
	}
	unwrap := func(m p11.Mechanism, wrapped []byte, more ...p11.Attribute) (p11.Attributes, error) {
		return tok.UnwrapKey(ctx, m, priv, wrapped, template(p11.CKO_SECRET_KEY, p11.CKK_AES, more...))
	}
	length := func(n uint64) p11.Attribute { return p11.Attribute{Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(n)} }
	for _, m := range []p11.Mechanism{pkcs1, oaep} {
		wrapped, err := tok.WrapKey(ctx, m, pub, aesKey)
		if err != nil {
			t.Fatal(err)
		}
		sent, err := byGo[m.Type](value)
		if err != nil {
			t.Fatal(err)
		}
		for _, from := range [][]byte{wrapped, sent} {
			a, err := unwrap(m, from, length(24))
			if err != nil {
				t.Fatal(err)
			}
			if n, _ := a.Ulong(p11.CKA_VALUE_LEN); n != 24 || a.Has(p11.CKA_VALUE) || !bytes.Equal(ecb(t, tok, a), goECB(t, value)) {
				t.Errorf("%v: it comes back as another key: %v", m.Type, a)
			}
		}
		if _, err := unwrap(m, sent, length(17)); p11.RVOf(err) != p11.CKR_TEMPLATE_INCONSISTENT {
			t.Errorf("%v: a length of none: %v", m.Type, err)
		}
	}
	// Neither a key of another length nor what is no key tells so under PKCS #1 v1.5.
	other, err := byGo[p11.CKM_RSA_PKCS]([]byte("no key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range [][]byte{must(byGo[p11.CKM_RSA_PKCS](value)), other} {
		a, err := unwrap(pkcs1, from, length(32))
		if n, _ := a.Ulong(p11.CKA_VALUE_LEN); err != nil || n != 32 {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
	if _, err := unwrap(oaep, must(byGo[p11.CKM_RSA_PKCS_OAEP](value)), length(32)); p11.RVOf(err) != p11.CKR_TEMPLATE_INCONSISTENT {
		t.Errorf("another length under OAEP: %v", err)
	}
	secret := adopted(t, tok, template(p11.CKO_SECRET_KEY, p11.CKK_GENERIC_SECRET, p11.Attribute{Type: p11.CKA_VALUE, Value: make([]byte, 20)}))
	sha512 := p11.Mechanism{Type: p11.CKM_RSA_PKCS_OAEP, Param: &p11.OAEPParams{Hash: p11.CKM_SHA512, MGF: p11.CKG_MGF1_SHA512}}
	for what, c := range map[string]struct {
		m    p11.Mechanism
		with *tokens.Object
		key  *tokens.Object
		want p11.RV
	}{
		"a key for HMAC":  {pkcs1, pub, secret, p11.CKR_KEY_NOT_WRAPPABLE},
		"a private key":   {pkcs1, pub, priv, p11.CKR_KEY_NOT_WRAPPABLE},
		"another hash":    {sha512, pub, aesKey, p11.CKR_MECHANISM_PARAM_INVALID},
		"a secret key":    {pkcs1, aesKey, aesKey, p11.CKR_WRAPPING_KEY_TYPE_INCONSISTENT},
		"the private one": {pkcs1, priv, aesKey, p11.CKR_WRAPPING_KEY_TYPE_INCONSISTENT},
		"AES":             {p11.Mechanism{Type: p11.CKM_AES_ECB}, aesKey, aesKey, p11.CKR_MECHANISM_INVALID},
	} {
		if got, err := tok.WrapKey(ctx, c.m, c.with, c.key); p11.RVOf(err) != c.want {
			t.Errorf("%s: %x, %v", what, got, err)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestDerive agrees on a key with Go's library.
func TestDerive(t *testing.T) {
	t.Parallel()
	tok, _ := newToken(t)
	curve, _ := p11.CurveNamed("secp256r1")
	pub, priv := pair(t, tok, p11.CKM_EC_KEY_PAIR_GEN, p11.Attributes{{Type: p11.CKA_EC_PARAMS, Value: curve.Params()}})
	peer := must(ecdh.P256().GenerateKey(rand.Reader))
	point := must(pkix.ECPublic(tok.Arithmetic(), curve, attribute(t, pub, p11.CKA_EC_POINT)))
	z := must(peer.ECDH(must(ecdh.P256().NewPublicKey(point))))
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint32(z, 1))
	h.Write([]byte("both"))
	m := func(kdf p11.KDF, public []byte) p11.Mechanism {
		return p11.Mechanism{Type: p11.CKM_ECDH1_DERIVE, Param: &p11.ECDH1Params{KDF: kdf, SharedData: []byte("both"), PublicData: public}}
	}
	length := p11.Attribute{Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(uint64(32))}
	bare := peer.PublicKey().Bytes()
	for _, public := range [][]byte{bare, pkix.DERPoint(bare)} {
		a, err := tok.DeriveKey(t.Context(), m(p11.CKD_SHA256_KDF, public), priv, p11.Attributes{length})
		if err != nil {
			t.Fatal(err)
		}
		if a.Has(p11.CKA_VALUE) || !bytes.Equal(ecb(t, tok, a), goECB(t, h.Sum(nil))) {
			t.Errorf("another key than Go's: %v", a)
		}
	}
	for what, c := range map[string]struct {
		m    p11.Mechanism
		a    p11.Attributes
		want p11.RV
	}{
		"no function":    {m(p11.CKD_NULL, bare), p11.Attributes{length}, p11.CKR_MECHANISM_PARAM_INVALID},
		"no point":       {m(p11.CKD_SHA256_KDF, bare[1:]), p11.Attributes{length}, p11.CKR_MECHANISM_PARAM_INVALID},
		"off the curve":  {m(p11.CKD_SHA256_KDF, append(bytes.Clone(bare[:64]), bare[64]^1)), p11.Attributes{length}, p11.CKR_MECHANISM_PARAM_INVALID},
		"no length":      {m(p11.CKD_SHA256_KDF, bare), nil, p11.CKR_TEMPLATE_INCOMPLETE},
		"another type":   {m(p11.CKD_SHA256_KDF, bare), template(p11.CKO_SECRET_KEY, p11.CKK_GENERIC_SECRET, length), p11.CKR_TEMPLATE_INCONSISTENT},
		"another method": {p11.Mechanism{Type: p11.CKM_DH_PKCS_DERIVE}, p11.Attributes{length}, p11.CKR_MECHANISM_INVALID},
	} {
		if a, err := tok.DeriveKey(t.Context(), c.m, priv, c.a); p11.RVOf(err) != c.want {
			t.Errorf("%s: %v, %v", what, a, err)
		}
	}
}

// TestLater is of what stock has listed since 3.24: signatures over SHA-3, and keys of the
// types for one HMAC.
func TestLater(t *testing.T) {
	t.Parallel()
	tok, _ := newToken(t)
	pub, priv := pair(t, tok, p11.CKM_RSA_PKCS_KEY_PAIR_GEN, p11.Attributes{{Type: p11.CKA_MODULUS_BITS, Value: p11.Ulong(uint64(1024))}})
	m := p11.Mechanism{Type: p11.CKM_SHA3_256_RSA_PKCS}
	sig, err := do(t, tok, p11.CKF_SIGN, m, priv, []byte("message"), 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha3.Sum256([]byte("message"))
	h, _ := p11.HashOf(p11.CKM_SHA3_256)
	info := append(bytes.Clone(pkix.DigestInfoPrefix(h)), digest[:]...)
	n, e := new(big.Int).SetBytes(attribute(t, pub, p11.CKA_MODULUS)), big.NewInt(65537)
	if em := new(big.Int).Exp(new(big.Int).SetBytes(sig), e, n).Bytes(); !bytes.HasSuffix(em, info) {
		t.Errorf("the signature has %x", em)
	}
	if _, err := do(t, tok, p11.CKF_VERIFY, m, pub, []byte("message"), 3, sig); err != nil {
		t.Error(err)
	}
	a, err := tok.GenerateKey(t.Context(), p11.Mechanism{Type: p11.CKM_SHA256_KEY_GEN}, p11.Attributes{{Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(uint64(32))}})
	if err != nil {
		t.Fatal(err)
	}
	if kt, _ := a.KeyType(); kt != p11.CKK_SHA256_HMAC {
		t.Errorf("a key of type %v", kt)
	}
	key := adopted(t, tok, a)
	mac, err := do(t, tok, p11.CKF_SIGN, p11.Mechanism{Type: p11.CKM_SHA256_HMAC}, key, []byte("message"), 3, nil)
	if err == nil {
		_, err = do(t, tok, p11.CKF_VERIFY, p11.Mechanism{Type: p11.CKM_SHA256_HMAC}, key, []byte("message"), 7, mac)
	}
	if err != nil {
		t.Error(err)
	}
	if got, err := tok.Adopt(t.Context(), template(p11.CKO_SECRET_KEY, p11.CKK_SHA256_HMAC, p11.Attribute{Type: p11.CKA_VALUE, Value: []byte("short")})); err == nil {
		t.Errorf("a short key becomes %v", got)
	}
}

// TestLongRSA brings the longest key in, whose numbers the calls must have room for.
func TestLongRSA(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	t.Parallel()
	tok, _ := newToken(t)
	text, err := os.ReadFile("testdata/rsa8192.pkcs8.base64")
	if err != nil {
		t.Fatal(err)
	}
	own := must(x509.ParsePKCS8PrivateKey(must(base64.StdEncoding.DecodeString(string(text))))).(*rsa.PrivateKey)
	private := must(pkix.DecodePrivateKey(must(x509.MarshalPKCS8PrivateKey(own))))
	private.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_PRIVATE_KEY))
	priv := adopted(t, tok, private)
	pub := adopted(t, tok, template(p11.CKO_PUBLIC_KEY, p11.CKK_RSA, p11.Attribute{Type: p11.CKA_MODULUS, Value: own.N.Bytes()}, p11.Attribute{Type: p11.CKA_PUBLIC_EXPONENT, Value: []byte{1, 0, 1}}))
	digest := sha256.Sum256([]byte("message"))
	sig, err := do(t, tok, p11.CKF_SIGN, p11.Mechanism{Type: p11.CKM_SHA256_RSA_PKCS}, priv, []byte("message"), 7, nil)
	if err != nil || rsa.VerifyPKCS1v15(&own.PublicKey, crypto.SHA256, digest[:], sig) != nil {
		t.Errorf("a signature of %d bytes: %v", len(sig), err)
	}
	key := adopted(t, tok, template(p11.CKO_SECRET_KEY, p11.CKK_AES, p11.Attribute{Type: p11.CKA_VALUE, Value: make([]byte, 32)}))
	oaep := p11.Mechanism{Type: p11.CKM_RSA_PKCS_OAEP, Param: &p11.OAEPParams{Hash: p11.CKM_SHA_1, MGF: p11.CKG_MGF1_SHA1}}
	wrapped, err := tok.WrapKey(t.Context(), oaep, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	a, err := tok.UnwrapKey(t.Context(), oaep, priv, wrapped, template(p11.CKO_SECRET_KEY, p11.CKK_AES))
	if err != nil || !bytes.Equal(ecb(t, tok, a), goECB(t, make([]byte, 32))) {
		t.Errorf("it comes back as another key: %v", err)
	}
}
