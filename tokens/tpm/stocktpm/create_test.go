package stocktpm

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"math/big"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tpm/tpm12"
)

// template is that of an RSA key.
func template(class p11.ObjectClass, label string, private bool) p11.Attributes {
	a := p11.Attributes{{Type: p11.CKA_LABEL, Value: []byte(label)}}
	a.SetUlong(p11.CKA_CLASS, uint64(class))
	a.SetUlong(p11.CKA_KEY_TYPE, uint64(p11.CKK_RSA))
	a.SetBool(p11.CKA_TOKEN, true)
	a.SetBool(p11.CKA_PRIVATE, private)
	return a
}

// create adopts and stores attributes, as the engine does.
func create(t testing.TB, tok *token, a p11.Attributes) *tokens.Object {
	t.Helper()
	a, err := tok.Adopt(t.Context(), a)
	noError(t, err)
	o, err := tok.Create(t.Context(), a)
	noError(t, err)
	return o
}

// attribute is a copy of an attribute of an object.
func attribute(t testing.TB, o *tokens.Object, at p11.AttributeType) []byte {
	t.Helper()
	a, err := o.Acquire()
	noError(t, err)
	defer o.Release()
	v, _ := a.Get(at)
	return bytes.Clone(v)
}

// works signs and decrypts with a key, as its public half has it.
func works(t testing.TB, tok *token, key *tokens.Object, n *rsa.PublicKey) {
	t.Helper()
	sig, err := do(t, tok, p11.CKF_SIGN, p11.CKM_SHA1_RSA_PKCS, key, []byte("hello"), nil)
	digest := sha1.Sum([]byte("hello"))
	if err != nil || rsa.VerifyPKCS1v15(n, crypto.SHA1, digest[:], sig) != nil {
		t.Errorf("it signs %x, %v", sig, err)
	}
	ct, err := rsa.EncryptPKCS1v15(rand.Reader, n, []byte("message")) //nolint:staticcheck // what the key's scheme is
	noError(t, err)
	if got, err := do(t, tok, p11.CKF_DECRYPT, p11.CKM_RSA_PKCS, key, ct, nil); err != nil || string(got) != "message" {
		t.Errorf("it decrypts %q, %v", got, err)
	}
}

// public is the public half of a key's object.
func public(t testing.TB, o *tokens.Object) *rsa.PublicKey {
	t.Helper()
	return &rsa.PublicKey{N: new(big.Int).SetBytes(attribute(t, o, p11.CKA_MODULUS)), E: exponent}
}

// TestGenerate makes keys with and without a login. Each has in its objects what stock
// looks for, lies where stock looks for it, and works here after a restart.
func TestGenerate(t *testing.T) {
	t.Parallel()
	g := readGolden(t)
	tok := g.open(t)
	make := func(label string, bits uint64, private bool) {
		t.Helper()
		pub := template(p11.CKO_PUBLIC_KEY, label, false)
		pub.SetUlong(p11.CKA_MODULUS_BITS, bits)
		a, b, err := tok.GenerateKeyPair(t.Context(), p11.Mechanism{Type: p11.CKM_RSA_PKCS_KEY_PAIR_GEN}, pub, template(p11.CKO_PRIVATE_KEY, label, private))
		noError(t, err)
		create(t, tok, a)
		create(t, tok, b)
	}
	_, _, err := tok.GenerateKeyPair(t.Context(), p11.Mechanism{Type: p11.CKM_RSA_PKCS_KEY_PAIR_GEN},
		p11.Attributes{{Type: p11.CKA_MODULUS_BITS, Value: p11.Ulong(uint64(1024))}}, template(p11.CKO_PRIVATE_KEY, "", true))
	wantRV(t, "a private key without a login", err, p11.CKR_USER_NOT_LOGGED_IN)
	make("no login", 512, false)
	l := login(t, tok, p11.CKU_USER, g.UserPIN)
	make("private", 2048, true)
	make("public", 1024, false)
	for bits, want := range map[uint64]p11.RV{1536: p11.CKR_KEY_SIZE_RANGE, 4096: p11.CKR_KEY_SIZE_RANGE, 0: p11.CKR_KEY_SIZE_RANGE} {
		_, _, err := tok.GenerateKeyPair(t.Context(), p11.Mechanism{Type: p11.CKM_RSA_PKCS_KEY_PAIR_GEN},
			p11.Attributes{{Type: p11.CKA_MODULUS_BITS, Value: p11.Ulong(bits)}}, nil)
		wantRV(t, "a key of another size", err, want)
	}
	_, _, err = tok.GenerateKeyPair(t.Context(), p11.Mechanism{Type: p11.CKM_RSA_PKCS_KEY_PAIR_GEN},
		p11.Attributes{{Type: p11.CKA_MODULUS_BITS, Value: p11.Ulong(uint64(1024))}, {Type: p11.CKA_PUBLIC_EXPONENT, Value: []byte{3}}}, nil)
	wantRV(t, "another exponent", err, p11.CKR_ATTRIBUTE_VALUE_INVALID)
	noError(t, l.Close())

	again := g.open(t)
	works(t, again, find(t, again, p11.CKO_PRIVATE_KEY, "no login"), public(t, find(t, again, p11.CKO_PUBLIC_KEY, "no login")))
	login(t, again, p11.CKU_USER, g.UserPIN)
	under := map[string]p11.UserType{"no login": p11.CKU_SO, "private": p11.CKU_USER, "public": p11.CKU_USER}
	for label, u := range under {
		key, half := find(t, again, p11.CKO_PRIVATE_KEY, label), find(t, again, p11.CKO_PUBLIC_KEY, label)
		works(t, again, key, public(t, half))
		blob, err := tpm12.ParseKey(attribute(t, key, p11.CKA_IBM_OPAQUE))
		noError(t, err)
		tree, err := again.tree(t.Context(), u)
		noError(t, err)
		noError(t, again.tpm.Opens(t.Context(), tree.to(blob)))
		bound := attribute(t, key, p11.CKA_ENC_AUTHDATA)
		if (blob.Auth == 1) != (label == "private") || (len(bound) > 0) != (label == "private") || blob.Usage != tpm12.Legacy || blob.Encryption != tpm12.EncryptPKCS1 || blob.Signature != tpm12.SignDER {
			t.Errorf("%s: %+v, its secret has %d bytes", label, blob, len(bound))
		}
		if !bytes.Equal(attribute(t, half, p11.CKA_IBM_OPAQUE), attribute(t, key, p11.CKA_IBM_OPAQUE)) || !bytes.Equal(attribute(t, half, p11.CKA_ENC_AUTHDATA), bound) {
			t.Errorf("%s: the public half has another blob", label)
		}
		a, err := key.Acquire()
		noError(t, err)
		for _, at := range []p11.AttributeType{p11.CKA_IBM_OPAQUE, p11.CKA_ENC_AUTHDATA} {
			if again.Visibility(a, at) != tokens.Hidden {
				t.Errorf("%s can be read", at)
			}
		}
		if again.Visibility(a, p11.CKA_PRIVATE_EXPONENT) != tokens.Withheld || again.Visibility(a, p11.CKA_MODULUS) != tokens.Readable {
			t.Error("the private exponent can be read, or the modulus cannot")
		}
		key.Release()
	}
}

// numbers are a private key's.
func numbers(k *rsa.PrivateKey) p11.Attributes {
	return p11.Attributes{
		{Type: p11.CKA_MODULUS, Value: k.N.Bytes()}, {Type: p11.CKA_PUBLIC_EXPONENT, Value: big.NewInt(int64(k.E)).Bytes()},
		{Type: p11.CKA_PRIVATE_EXPONENT, Value: k.D.Bytes()}, {Type: p11.CKA_PRIME_1, Value: k.Primes[0].Bytes()},
		{Type: p11.CKA_PRIME_2, Value: k.Primes[1].Bytes()},
	}
}

// TestImport has keys with their numbers go into the TPM: the numbers are gone.
func TestImport(t *testing.T) {
	t.Parallel()
	g := readGolden(t)
	tok := g.open(t)
	key := rootKeys()[0]
	_, err := tok.Adopt(t.Context(), append(template(p11.CKO_PRIVATE_KEY, "x", true), numbers(key)...))
	wantRV(t, "a private key without a login", err, p11.CKR_USER_NOT_LOGGED_IN)
	create(t, tok, append(template(p11.CKO_PRIVATE_KEY, "open", false), numbers(key)...))
	login(t, tok, p11.CKU_USER, g.UserPIN)
	create(t, tok, append(template(p11.CKO_PRIVATE_KEY, "mine", true), numbers(key)...))
	for _, label := range []string{"mine", "open"} {
		o := find(t, tok, p11.CKO_PRIVATE_KEY, label)
		works(t, tok, o, &key.PublicKey)
		for _, at := range []p11.AttributeType{p11.CKA_PRIVATE_EXPONENT, p11.CKA_PRIME_1, p11.CKA_PRIME_2, p11.CKA_EXPONENT_1, p11.CKA_COEFFICIENT} {
			if len(attribute(t, o, at)) > 0 {
				t.Errorf("%s: %s is still there", label, at)
			}
		}
	}
	long, err := rsa.GenerateKey(rand.Reader, 1536)
	noError(t, err)
	for name, a := range map[string]p11.Attributes{
		"1536 bits":        append(template(p11.CKO_PRIVATE_KEY, "x", true), numbers(long)...),
		"a hidden object":  append(template(p11.CKO_DATA, "x", false), p11.Attribute{Type: p11.CKA_HIDDEN, Value: p11.Bool(true)}),
		"a secret of ours": append(append(template(p11.CKO_PRIVATE_KEY, "x", true), numbers(key)...), p11.Attribute{Type: p11.CKA_ENC_AUTHDATA, Value: []byte("x")}),
		"another's blob": append(template(p11.CKO_PRIVATE_KEY, "x", true),
			p11.Attribute{Type: p11.CKA_MODULUS, Value: key.N.Bytes()}, p11.Attribute{Type: p11.CKA_IBM_OPAQUE, Value: attribute(t, find(t, tok, p11.CKO_PRIVATE_KEY, "gen-priv"), p11.CKA_IBM_OPAQUE)}),
		"a key on a curve": {
			{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_PRIVATE_KEY)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(p11.CKK_EC)},
		},
	} {
		if _, err := tok.Adopt(t.Context(), a); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	// What stock imported and has not used yet has numbers, and no blob.
	o := find(t, tok, p11.CKO_PRIVATE_KEY, "ext-priv")
	_, err = tok.Update(t.Context(), o.Handle, func(a p11.Attributes) (p11.Attributes, error) {
		b := a.Clone()
		b.Delete(p11.CKA_IBM_OPAQUE)
		return b, nil
	})
	noError(t, err)
	g.signs(t, tok, "ext-priv")
	// Destroying one of two that share a key leaves the other.
	noError(t, tok.Destroy(t.Context(), find(t, tok, p11.CKO_PRIVATE_KEY, "mine").Handle, func(p11.Attributes) error { return nil }))
	works(t, tok, find(t, tok, p11.CKO_PRIVATE_KEY, "open"), &key.PublicKey)
}

// TestWithoutPINs: before the SO has set a PIN there is nothing that keys could lie under.
func TestWithoutPINs(t *testing.T) {
	t.Parallel()
	tok := open(t, t.TempDir(), "/nonexistent")
	_, _, err := tok.GenerateKeyPair(t.Context(), p11.Mechanism{Type: p11.CKM_RSA_PKCS_KEY_PAIR_GEN},
		p11.Attributes{{Type: p11.CKA_MODULUS_BITS, Value: p11.Ulong(uint64(1024))}}, nil)
	wantRV(t, "a key", err, p11.CKR_FUNCTION_FAILED)
	info, err := tok.Info(t.Context())
	if noError(t, err); info.Flags != 0x880045 || info.Model != "TPM v1.1 Token" || info.MinPINLen != 6 || info.MaxPINLen != 127 {
		t.Errorf("%+v", info)
	}
}
