package icsf

import (
	"bytes"
	"fmt"
	"math/big"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/icsf/icsffile"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest"
)

// A maker is what the two sides of TestSame have.
type maker interface {
	tokens.Crypto
	tokens.Adopter
	tokens.KeyJoiner
}

// have is a session object of a side.
func have(t *testing.T, m maker, a p11.Attributes) *tokens.Object {
	t.Helper()
	a, err := m.Adopt(t.Context(), a)
	noError(t, err)
	var forget func(p11.Attributes)
	if tok, ok := m.(*token); ok {
		forget = tok.Forget
	}
	o := tokens.NewSessionObject(tokens.NewHandle(), a, forget)
	t.Cleanup(o.Drop)
	return o
}

// use is one whole use of a key, with the message in parts of n bytes.
func use(t *testing.T, m maker, flag p11.Flags, mech p11.Mechanism, key *tokens.Object, message []byte, n int) []byte {
	t.Helper()
	op, err := m.Begin(t.Context(), flag, mech, key)
	noError(t, err)
	defer op.Close()
	var out []byte
	for len(message) > 0 {
		part := message[:min(n, len(message))]
		message = message[len(part):]
		if z, ok := op.(tokens.Sizer); ok {
			n := z.UpdateSize(len(part))
			some, err := op.Update(t.Context(), part)
			noError(t, err)
			if len(some) != n {
				t.Errorf("%s gives %d bytes and said %d", mech.Type.Short(), len(some), n)
			}
			out = append(out, some...)
			continue
		}
		some, err := op.Update(t.Context(), part)
		noError(t, err)
		out = append(out, some...)
	}
	last, err := op.Final(t.Context(), nil)
	noError(t, err)
	return append(out, last...)
}

// secretOf is a secret key of a value.
func secretOf(t *testing.T, m maker, kt p11.KeyType, value []byte) *tokens.Object {
	t.Helper()
	return have(t, m, p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_SECRET_KEY)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(kt)}, {Type: p11.CKA_VALUE, Value: bytes.Clone(value)},
		{Type: p11.CKA_EXTRACTABLE, Value: p11.Bool(true)}, {Type: p11.CKA_SENSITIVE, Value: p11.Bool(false)},
	})
}

// TestSame has a software token do what the server does, with the same keys.
func TestSame(t *testing.T) {
	t.Parallel()
	tok := newToken(t, newSite(t, icsffile.SASL), t.TempDir())
	soft := swtok.NewCrypto(swtok.GoProvider(), nil)
	both := func(kt p11.KeyType, value []byte) (a, b *tokens.Object) {
		t.Helper()
		return secretOf(t, tok, kt, value), secretOf(t, soft, kt, value)
	}
	value := []byte("\x03\x00 a secret of 48 bytes, with a version before it")[:48]
	text := bytes.Repeat([]byte("0123456789abcdef"), 2500) // more than one call takes
	for _, m := range tok.Mechanisms() {
		mech := p11.Mechanism{Type: m.Type, Param: p11.SampleParam(m.Type)}
		facts, _ := p11.MechanismFacts(m.Type)
		if rule, ok := cipherOf(m.Type); ok {
			for _, kt := range facts.KeyTypes {
				a, b := both(kt, value[:p11.KeyLengths(kt)[0]])
				for _, n := range []int{1001, 16, len(text)} {
					in := text
					if n == 16 {
						in = text[:160]
					}
					if rule.pad {
						in = in[:len(in)-5]
					}
					want := use(t, soft, p11.CKF_ENCRYPT, mech, b, in, len(in))
					if got := use(t, tok, p11.CKF_ENCRYPT, mech, a, in, n); !bytes.Equal(got, want) {
						t.Errorf("%s with %s in parts of %d bytes encrypts otherwise", m.Type.Short(), kt.Short(), n)
					}
					if got := use(t, tok, p11.CKF_DECRYPT, mech, a, want, n); !bytes.Equal(got, in) {
						t.Errorf("%s with %s in parts of %d bytes decrypts otherwise", m.Type.Short(), kt.Short(), n)
					}
				}
			}
		}
		if _, ok := macOf(m.Type); ok {
			a, b := both(p11.CKK_GENERIC_SECRET, value)
			for _, n := range []int{100, 3 * maxKept} {
				long := bytes.Repeat([]byte("m"), n)
				if got, want := use(t, tok, p11.CKF_SIGN, mech, a, long, 1000), use(t, soft, p11.CKF_SIGN, mech, b, long, n); !bytes.Equal(got, want) {
					t.Errorf("%s of %d bytes is %x, want %x", m.Type.Short(), n, got, want)
				}
			}
		}
	}

	// Keys that are derived are the same if they sign the same.
	signs := func(m maker, a p11.Attributes) string {
		t.Helper()
		return fmt.Sprintf("%x", use(t, m, p11.CKF_SIGN, p11.Mechanism{Type: p11.CKM_SHA256_HMAC}, have(t, m, a), []byte("message"), 100))
	}
	template := func(m maker, kt p11.KeyType) p11.Attributes {
		return p11.Attributes{
			{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_SECRET_KEY)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(kt)},
			{Type: p11.CKA_TOKEN, Value: p11.Bool(false)}, {Type: p11.CKA_PRIVATE, Value: p11.Bool(false)},
		}
	}
	a, b := both(p11.CKK_GENERIC_SECRET, value)
	random := p11.TLSRandom{Client: bytes.Repeat([]byte("c"), 32), Server: bytes.Repeat([]byte("s"), 32)}
	said := make(map[maker]string)
	for m, key := range map[maker]*tokens.Object{tok: a, soft: b} {
		made, version, err := m.JoinKeys(t.Context(), p11.Mechanism{Type: p11.CKM_SSL3_MASTER_KEY_DERIVE, Param: &p11.SSL3MasterParams{Random: random, Version: true}}, []*tokens.Object{key}, []p11.Attributes{template(m, p11.CKK_GENERIC_SECRET)})
		noError(t, err)
		said[m] = fmt.Sprintf("master %s, version %x", signs(m, made[0]), version)
		for _, mt := range []p11.MechanismType{p11.CKM_SSL3_KEY_AND_MAC_DERIVE, p11.CKM_TLS_KEY_AND_MAC_DERIVE} {
			for _, p := range []*p11.SSL3KeyMatParams{{MACBits: 160, KeyBits: 128, IVBits: 128}, {KeyBits: 128}, {MACBits: 128, IVBits: 64}} {
				p.Random = random
				templates, _ := p.Makes(template(m, p11.CKK_AES))
				made, ivs, err := m.JoinKeys(t.Context(), p11.Mechanism{Type: mt, Param: p}, []*tokens.Object{key}, templates)
				noError(t, err)
				for i, one := range made {
					switch {
					case (one == nil) != (templates[i] == nil):
						t.Errorf("%s of %+v makes %v", mt.Short(), p, made)
					case one == nil:
					case i < 2:
						said[m] += "\n" + mt.Short() + " MAC " + signs(m, one)
					default:
						said[m] += fmt.Sprintf("\n%s key %x", mt.Short(), use(t, m, p11.CKF_ENCRYPT, p11.Mechanism{Type: p11.CKM_AES_ECB}, have(t, m, one), text[:16], 16))
					}
				}
				said[m] += fmt.Sprintf("\nivs %x", ivs)
			}
		}
	}
	if said[tok] != said[soft] {
		t.Errorf("the server derives\n%s\nand software\n%s", said[tok], said[soft])
	}

	g := tokentest.Group(p11.CKK_DH)
	x, y := big.NewInt(0x1234567), new(big.Int).Exp(g.G, big.NewInt(0x7654321), g.P)
	private := p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_PRIVATE_KEY)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(p11.CKK_DH)}, {Type: p11.CKA_VALUE, Value: x.Bytes()},
	}
	g.Put(&private)
	agreed := make(map[maker]string)
	for _, m := range []maker{tok, soft} {
		key := have(t, m, private.Clone())
		for _, n := range []uint64{20, 192} {
			a := template(m, p11.CKK_GENERIC_SECRET)
			a.SetUlong(p11.CKA_VALUE_LEN, n)
			made, _, err := m.JoinKeys(t.Context(), p11.Mechanism{Type: p11.CKM_DH_PKCS_DERIVE, Param: p11.RawParam(y.Bytes())}, []*tokens.Object{key}, []p11.Attributes{a})
			noError(t, err)
			agreed[m] += signs(m, made[0])
		}
		bad := []*big.Int{big.NewInt(1), g.P}
		for _, y := range bad {
			_, _, err := m.JoinKeys(t.Context(), p11.Mechanism{Type: p11.CKM_DH_PKCS_DERIVE, Param: p11.RawParam(y.Bytes())}, []*tokens.Object{key}, []p11.Attributes{template(m, p11.CKK_GENERIC_SECRET)})
			if p11.RVOf(err) != p11.CKR_MECHANISM_PARAM_INVALID {
				t.Errorf("agreed with %v: %v", y, err)
			}
		}
	}
	if agreed[tok] != agreed[soft] {
		t.Errorf("the server agrees on %s, and software on %s", agreed[tok], agreed[soft])
	}
}
