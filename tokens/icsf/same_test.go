package icsf

import (
	"bytes"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/icsf/icsffile"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest"
)

// A maker is what the two sides of these tests have.
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
	z, sizes := op.(tokens.Sizer)
	for len(message) > 0 {
		part := message[:min(n, len(message))]
		message = message[len(part):]
		said := 0
		if sizes {
			said = z.UpdateSize(len(part))
		}
		some, err := op.Update(t.Context(), part)
		noError(t, err)
		if len(some) != said {
			t.Errorf("%s gives %d bytes and said %d", mech.Type.Short(), len(some), said)
		}
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

// sides are the two, with one secret in both.
type sides struct {
	tok  *token
	soft *swtok.Crypto
}

func newSides(t *testing.T) sides {
	t.Helper()
	return sides{newToken(t, newSite(t, icsffile.SASL), t.TempDir()), swtok.NewCrypto(swtok.GoProvider(), nil)}
}

// sslSecret is a premaster secret, whose version is that of SSL 3.
const sslSecret = "\x03\x00 a secret of 48 bytes, with a version first..."

// TestSameCiphers has a software token encrypt what the server does, with the same keys.
func TestSameCiphers(t *testing.T) {
	t.Parallel()
	s := newSides(t)
	for _, m := range s.tok.Mechanisms() {
		rule, ok := cipherOf(m.Type)
		facts, _ := p11.MechanismFacts(m.Type)
		for _, kt := range facts.KeyTypes {
			if ok {
				s.cipher(t, p11.Mechanism{Type: m.Type, Param: p11.SampleParam(m.Type)}, rule, kt)
			}
		}
	}
}

func (s sides) cipher(t *testing.T, m p11.Mechanism, rule cipherRule, kt p11.KeyType) {
	t.Helper()
	value := []byte(sslSecret)[:p11.KeyLengths(kt)[0]]
	a, b := secretOf(t, s.tok, kt, value), secretOf(t, s.soft, kt, value)
	text := bytes.Repeat([]byte("0123456789abcdef"), 2500) // more than one call takes
	if rule.pad {
		text = text[:len(text)-5]
	}
	for n, in := range map[int][]byte{1001: text, 16: text[:160], len(text): text} {
		want := use(t, s.soft, p11.CKF_ENCRYPT, m, b, in, len(in))
		if got := use(t, s.tok, p11.CKF_ENCRYPT, m, a, in, n); !bytes.Equal(got, want) {
			t.Errorf("%s with %s in parts of %d bytes encrypts otherwise", m.Type.Short(), kt.Short(), n)
		}
		if got := use(t, s.tok, p11.CKF_DECRYPT, m, a, want, n); !bytes.Equal(got, in) {
			t.Errorf("%s with %s in parts of %d bytes decrypts otherwise", m.Type.Short(), kt.Short(), n)
		}
	}
}

// TestSameMACs is that of MACs.
func TestSameMACs(t *testing.T) {
	t.Parallel()
	s := newSides(t)
	a, b := secretOf(t, s.tok, p11.CKK_GENERIC_SECRET, []byte(sslSecret)), secretOf(t, s.soft, p11.CKK_GENERIC_SECRET, []byte(sslSecret))
	for _, m := range s.tok.Mechanisms() {
		if _, ok := macOf(m.Type); !ok {
			continue
		}
		mech := p11.Mechanism{Type: m.Type, Param: p11.SampleParam(m.Type)}
		for _, n := range []int{100, 3 * maxKept} {
			long := bytes.Repeat([]byte("m"), n)
			if got, want := use(t, s.tok, p11.CKF_SIGN, mech, a, long, 1000), use(t, s.soft, p11.CKF_SIGN, mech, b, long, n); !bytes.Equal(got, want) {
				t.Errorf("%s of %d bytes is %x, want %x", m.Type.Short(), n, got, want)
			}
		}
	}
}

// signs tells a secret by what it signs.
func signs(t *testing.T, m maker, a p11.Attributes) string {
	t.Helper()
	return fmt.Sprintf("%x", use(t, m, p11.CKF_SIGN, p11.Mechanism{Type: p11.CKM_SHA256_HMAC}, have(t, m, a), []byte("message"), 100))
}

func derivedTemplate(kt p11.KeyType) p11.Attributes {
	return p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_SECRET_KEY)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(kt)},
		{Type: p11.CKA_TOKEN, Value: p11.Bool(false)}, {Type: p11.CKA_PRIVATE, Value: p11.Bool(false)},
	}
}

// TestSameSSL is that of what SSL and TLS derive.
func TestSameSSL(t *testing.T) {
	t.Parallel()
	s := newSides(t)
	random := p11.TLSRandom{Client: bytes.Repeat([]byte("c"), 32), Server: bytes.Repeat([]byte("s"), 32)}
	said := make(map[maker]string)
	for _, m := range []maker{s.tok, s.soft} {
		key := secretOf(t, m, p11.CKK_GENERIC_SECRET, []byte(sslSecret))
		made, version, err := m.JoinKeys(t.Context(), p11.Mechanism{Type: p11.CKM_SSL3_MASTER_KEY_DERIVE, Param: &p11.SSL3MasterParams{Random: random, Version: true}},
			[]*tokens.Object{key}, []p11.Attributes{derivedTemplate(p11.CKK_GENERIC_SECRET)})
		noError(t, err)
		said[m] = fmt.Sprintf("master %s, version %x", signs(t, m, made[0]), version)
		for _, p := range []*p11.SSL3KeyMatParams{{MACBits: 160, KeyBits: 128, IVBits: 128}, {KeyBits: 128}, {MACBits: 128, IVBits: 64}} {
			p.Random = random
			said[m] += material(t, m, key, p11.Mechanism{Type: p11.CKM_SSL3_KEY_AND_MAC_DERIVE, Param: p}) + material(t, m, key, p11.Mechanism{Type: p11.CKM_TLS_KEY_AND_MAC_DERIVE, Param: p})
		}
	}
	if said[s.tok] != said[s.soft] {
		t.Errorf("the server derives\n%s\nand software\n%s", said[s.tok], said[s.soft])
	}
	if version := "version 0300"; !strings.Contains(said[s.tok], version) {
		t.Errorf("there is no %s in\n%s", version, said[s.tok])
	}
}

// material tells what the keys of a connection do.
func material(t *testing.T, m maker, key *tokens.Object, mech p11.Mechanism) string {
	t.Helper()
	templates, _ := mech.Param.(p11.KeyMaker).Makes(derivedTemplate(p11.CKK_AES))
	made, ivs, err := m.JoinKeys(t.Context(), mech, []*tokens.Object{key}, templates)
	noError(t, err)
	said := "\n" + mech.Type.Short()
	for i, one := range made {
		switch {
		case (one == nil) != (templates[i] == nil):
			t.Errorf("%s makes %v of %v", mech.Type.Short(), made, templates)
		case one == nil:
			said += " none"
		case i < 2:
			said += " MAC " + signs(t, m, one)
		default:
			said += fmt.Sprintf(" key %x", use(t, m, p11.CKF_ENCRYPT, p11.Mechanism{Type: p11.CKM_AES_ECB}, have(t, m, one), []byte("sixteen bytes of"), 16))
		}
	}
	return said + fmt.Sprintf(" ivs %x", ivs)
}

// TestSameAgreement is that of Diffie-Hellman.
func TestSameAgreement(t *testing.T) {
	t.Parallel()
	s := newSides(t)
	g := tokentest.Group(p11.CKK_DH)
	y := new(big.Int).Exp(g.G, big.NewInt(0x7654321), g.P)
	private := p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_PRIVATE_KEY)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(p11.CKK_DH)},
		{Type: p11.CKA_VALUE, Value: big.NewInt(0x1234567).Bytes()},
	}
	g.Put(&private)
	agreed := make(map[maker]string)
	for _, m := range []maker{s.tok, s.soft} {
		key := have(t, m, private.Clone())
		agree := func(y *big.Int, n uint64) (p11.Attributes, error) {
			a := derivedTemplate(p11.CKK_GENERIC_SECRET)
			a.SetUlong(p11.CKA_VALUE_LEN, n)
			made, _, err := m.JoinKeys(t.Context(), p11.Mechanism{Type: p11.CKM_DH_PKCS_DERIVE, Param: p11.RawParam(y.Bytes())}, []*tokens.Object{key}, []p11.Attributes{a})
			if err != nil {
				return nil, err
			}
			return made[0], nil
		}
		for _, n := range []uint64{20, 192} {
			made, err := agree(y, n)
			noError(t, err)
			agreed[m] += signs(t, m, made)
		}
		for _, bad := range []*big.Int{big.NewInt(1), g.P} {
			if _, err := agree(bad, 20); p11.RVOf(err) != p11.CKR_MECHANISM_PARAM_INVALID {
				t.Errorf("agreed with %v: %v", bad, err)
			}
		}
	}
	if agreed[s.tok] != agreed[s.soft] {
		t.Errorf("the server agrees on %s, and software on %s", agreed[s.tok], agreed[s.soft])
	}
}
