package soft

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/card"
	"p11fs/tokens/card/ep11"
	"p11fs/tokens/swtok"
)

func sign(t *testing.T, b bench, target card.Target, key ep11.Blob) error {
	t.Helper()
	_, err := ep11.SignSingle(t.Context(), b.via, target, key, p11.Mechanism{Type: p11.CKM_SHA256_HMAC}, []byte("x"))
	return err
}

func wants(t *testing.T, what string, err error, rv p11.RV) {
	t.Helper()
	if rv == p11.CKR_OK && err != nil || rv != p11.CKR_OK && !errors.Is(err, rv) {
		t.Errorf("%s: %v, not %v", what, err, rv)
	}
}

const macKey = "key-type=generic-secret value-len=32 sign=true"

// TestWrappingKeys is of two domains with different keys, and of a key that changes.
func TestWrappingKeys(t *testing.T) {
	b := newBench(t, swtok.GoProvider())
	first, second := card.APQN{Adapter: 0, Domain: 1}, card.APQN{Adapter: 2, Domain: 3}
	key := b.secretKey(t, "generic-secret-key-gen", macKey)
	wants(t, "one key for both domains", sign(t, b, card.Target{second}, key), p11.CKR_OK)
	if err := b.set.Change(&second, WK, ChangeSeparate); err != nil {
		t.Fatal(err)
	}
	wants(t, "a key of the other domain", sign(t, b, card.Target{second}, key), ep11.WKIDMismatch)
	wants(t, "a key of this domain", sign(t, b, card.Target{first}, key), p11.CKR_OK)
	wants(t, "no such domain", sign(t, b, card.Target{{Adapter: 9, Domain: 9}}, key), ep11.TargetInvalid)

	state := must[[]byte](t)(ep11.SignInit(t.Context(), b.via, nil, p11.Mechanism{Type: p11.CKM_SHA256_HMAC}, key))
	_, err := ep11.SignFinal(t.Context(), b.via, card.Target{second}, state)
	wants(t, "the state of the other domain", err, ep11.WKIDMismatch)

	info := must[ep11.DomainInfo](t)(ep11.Domain(t.Context(), b.via, nil))
	if !bytes.Equal(info.WK[:ep11.WKIDLen], key.WKID()) || info.Flags&ep11.DomainNext != 0 || info.Flags&ep11.DomainWK == 0 {
		t.Errorf("the domain says %+v of key %x", info, key.WKID())
	}
	_, err = ep11.Reencrypt(t.Context(), b.via, nil, key)
	wants(t, "no next key", err, ep11.WKNotInitialised)
	change := func(what string) {
		t.Helper()
		if err := b.set.Change(&first, WK, what); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	if err := b.set.Change(&first, WK, ChangeActivate); !errors.Is(err, p11.CKR_ACTION_PROHIBITED) {
		t.Errorf("nothing to activate: %v", err)
	}
	change(ChangeNew)
	_, err = ep11.Reencrypt(t.Context(), b.via, nil, key)
	wants(t, "not committed", err, ep11.WKNotInitialised)
	change(ChangeCommit)
	next := must[ep11.Blob](t)(ep11.Reencrypt(t.Context(), b.via, nil, key))
	info = must[ep11.DomainInfo](t)(ep11.Domain(t.Context(), b.via, nil))
	if len(next) != len(key) || !bytes.Equal(next.WKID(), info.Next[:ep11.WKIDLen]) || info.Flags&ep11.DomainNextCommitted == 0 {
		t.Errorf("a blob of %d bytes became one of %d, WKID %x; the domain says %+v", len(key), len(next), next.WKID(), info)
	}
	wants(t, "before the change", sign(t, b, nil, next), ep11.WKIDMismatch)
	change(ChangeActivate)
	wants(t, "the new blob", sign(t, b, nil, next), p11.CKR_OK)
	wants(t, "the old blob", sign(t, b, nil, key), ep11.WKIDMismatch)
	_, err = ep11.SignFinal(t.Context(), b.via, nil, state)
	wants(t, "an operation that was begun before", err, ep11.WKIDMismatch)
	change(ChangeZeroise)
	wants(t, "after the end", sign(t, b, nil, next), ep11.WKNotInitialised)
	_, err = ep11.DigestInit(t.Context(), b.via, nil, p11.Mechanism{Type: p11.CKM_SHA256})
	wants(t, "a digest without a key", err, ep11.WKNotInitialised)
}

func TestOffline(t *testing.T) {
	b := newBench(t, swtok.GoProvider())
	key := b.secretKey(t, "generic-secret-key-gen", macKey)
	all := b.set.APQNs()
	off := func(on bool, a card.APQN) {
		t.Helper()
		if err := b.set.SetOnline(a, on); err != nil {
			t.Fatal(err)
		}
	}
	off(false, all[0])
	wants(t, "one of two", sign(t, b, nil, key), p11.CKR_OK)
	wants(t, "that one", sign(t, b, card.Target{all[0]}, key), ep11.TransportError)
	off(false, all[1])
	wants(t, "both", sign(t, b, nil, key), ep11.TransportError)
	off(true, all[1])
	off(true, all[0])
	wants(t, "both back", sign(t, b, card.Target{all[0]}, key), p11.CKR_OK)
	if err := b.set.SetOnline(card.APQN{Adapter: 7}, true); err == nil {
		t.Error("a domain that is not there came online")
	}
}

// TestAttributes is of what a card enforces.
func TestAttributes(t *testing.T) {
	b := newBench(t, swtok.GoProvider())
	kek := b.secretKey(t, "aes-key-gen", "value-len=16 wrap=true")
	pad := mech(t, "aes-cbc-pad iv=0x00000000000000000000000000000000")
	wrap := func(key ep11.Blob) error {
		_, err := ep11.WrapKey(t.Context(), b.via, nil, key, kek, nil, pad)
		return err
	}
	key := b.secretKey(t, "generic-secret-key-gen", macKey+" extractable=true")
	closed := b.secretKey(t, "generic-secret-key-gen", macKey+" extractable=false")
	wants(t, "wrap", wrap(key), p11.CKR_OK)
	wants(t, "wrap what stays", wrap(closed), p11.CKR_KEY_UNEXTRACTABLE)
	wants(t, "wrap under what may not", func() error {
		_, err := ep11.WrapKey(t.Context(), b.via, nil, key, key, nil, pad)
		return err
	}(), p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
	wants(t, "verify with a key that only signs", ep11.VerifySingle(t.Context(), b.via, nil, key, p11.Mechanism{Type: p11.CKM_SHA256_HMAC}, nil, make([]byte, 32)), p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
	_, err := ep11.EncryptSingle(t.Context(), b.via, nil, kek, pad, nil)
	wants(t, "encrypt with a key that wraps", err, p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
	_, err = ep11.SignSingle(t.Context(), b.via, nil, key, p11.Mechanism{Type: p11.CKM_ECDSA}, nil)
	wants(t, "a key of another type", err, p11.CKR_KEY_TYPE_INCONSISTENT)
	_, err = ep11.SignSingle(t.Context(), b.via, nil, key, p11.Mechanism{Type: p11.CKM_MD5_HMAC}, nil)
	wants(t, "a mechanism that is not here", err, p11.CKR_MECHANISM_INVALID)

	values := must[p11.Attributes](t)(ep11.GetAttributeValue(t.Context(), b.via, nil, key, []p11.AttributeType{
		p11.CKA_SIGN, p11.CKA_VERIFY, p11.CKA_LOCAL, p11.CKA_CLASS, p11.CKA_VALUE_LEN, p11.CKA_VALUE, p11.CKA_LABEL, p11.CKA_IBM_STD_COMPLIANCE1,
	}))
	if values.Text() != "sign=true verify=false local=true class=secret-key value-len=32 ibm-std-compliance1=0" || values.Has(p11.CKA_VALUE) {
		t.Errorf("attributes %v", values)
	}
	set := func(key ep11.Blob, text string) (ep11.Blob, error) {
		return ep11.SetAttributeValue(t.Context(), b.via, nil, key, template(t, text))
	}
	less := must[[]byte](t)(set(key, "extractable=false verify=true"))
	if len(less) != len(key) {
		t.Errorf("a blob of %d bytes became one of %d", len(key), len(less))
	}
	wants(t, "wrap what stays now", wrap(less), p11.CKR_KEY_UNEXTRACTABLE)
	_, err = set(less, "extractable=true")
	wants(t, "make it extractable", err, ep11.ReadOnly)
	_, err = set(must[[]byte](t)(set(less, "modifiable=false")), "sign=false")
	wants(t, "change what is fixed", err, ep11.ReadOnly)

	rsaKey, pub := b.pair(t, "rsa-pkcs-key-pair-gen", "modulus-bits=1024 verify=true", "sign=true")
	_, err = ep11.EncryptSingle(t.Context(), b.via, nil, pub, mech(t, "rsa-pkcs"), []byte("x"))
	wants(t, "encrypt with a public key that verifies", err, p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
	_, err = ep11.EncryptSingle(t.Context(), b.via, nil, pub.SPKI(), mech(t, "rsa-pkcs"), []byte("x"))
	wants(t, "without the card's part", err, p11.CKR_OK)
	again, _, err := ep11.UnwrapKey(t.Context(), b.via, nil, pub.SPKI(), kek, nil, nil, p11.Mechanism{Type: ep11.TransportKey}, template(t, "class=public-key key-type=rsa encrypt=true"))
	if err != nil || !bytes.Equal(ep11.Blob(again).WKID(), rsaKey.WKID()) {
		t.Errorf("a transport key of wrapping key %x, %v", ep11.Blob(again).WKID(), err)
	}
	_, _, err = ep11.GenerateKeyPair(t.Context(), b.via, nil, mech(t, "rsa-pkcs-key-pair-gen"), template(t, "modulus-bits=512"), nil, nil)
	wants(t, "a short RSA key", err, p11.CKR_KEY_SIZE_RANGE)
}

// TestTrust: whoever has a blob cannot make a key leave the card under another than one that
// administrators trust.
func TestTrust(t *testing.T) {
	b := newBench(t, swtok.GoProvider())
	pad := mech(t, "aes-cbc-pad iv=0x00000000000000000000000000000000")
	key := ep11.Blob(b.secretKey(t, "generic-secret-key-gen", macKey+" extractable=true wrap-with-trusted=true"))
	kek := b.secretKey(t, "aes-key-gen", "value-len=16 wrap=true")
	wrap := func(key, kek []byte) error {
		_, err := ep11.WrapKey(t.Context(), b.via, nil, key, kek, nil, pad)
		return err
	}
	set := func(key ep11.Blob, text string) (ep11.Blob, error) {
		return ep11.SetAttributeValue(t.Context(), b.via, nil, key, template(t, text))
	}
	wants(t, "wrap under a key that nobody trusts", wrap(key, kek), p11.CKR_KEY_NOT_WRAPPABLE)
	_, err := set(key, "wrap-with-trusted=false")
	wants(t, "let it leave under any", err, ep11.ReadOnly)
	_, err = set(kek, "trusted=true")
	wants(t, "say that one is trusted", err, ep11.ReadOnly)
	_, _, err = ep11.GenerateKey(t.Context(), b.via, nil, mech(t, "aes-key-gen"), template(t, "value-len=16 wrap=true trusted=true"), nil)
	wants(t, "make one that is trusted", err, p11.CKR_ATTRIBUTE_READ_ONLY)
	_, _, err = ep11.GenerateKeyPair(t.Context(), b.via, nil, mech(t, "ec-key-pair-gen"), template(t, "ec-params=secp256r1 trusted=true"), nil, nil)
	wants(t, "make a public one that is trusted", err, p11.CKR_ATTRIBUTE_READ_ONLY)
	b.switchPoint(t, pointTrust, true)
	trusted, err := set(kek, "trusted=true")
	wants(t, "say so where anybody may", err, p11.CKR_OK)
	wants(t, "wrap under it", wrap(key, trusted), p11.CKR_OK)
}

// TestKeySizes brings keys in that are shorter than the card's mechanisms take.
func TestKeySizes(t *testing.T) {
	b := newBench(t, swtok.GoProvider())
	crypto := swtok.NewCrypto(swtok.GoProvider(), nil)
	pub, _, err := crypto.GenerateKeyPair(t.Context(), mech(t, "rsa-pkcs-key-pair-gen"), template(t, "modulus-bits=512"), nil)
	if err == nil {
		pub, err = crypto.Adopt(t.Context(), pub)
	}
	if err != nil {
		t.Fatal(err)
	}
	spki, _ := pub.Get(p11.CKA_PUBLIC_KEY_INFO)
	_, err = ep11.EncryptSingle(t.Context(), b.via, nil, spki, mech(t, "rsa-pkcs"), []byte("x"))
	wants(t, "encrypt with a short public key", err, p11.CKR_KEY_SIZE_RANGE)

	kek := b.secretKey(t, "aes-key-gen", "value-len=16 encrypt=true unwrap=true")
	pad := mech(t, "aes-cbc-pad iv=0x00000000000000000000000000000000")
	short, err := rsa.GenerateKey(rand.Reader, 512)
	if err != nil {
		t.Fatal(err)
	}
	info, err := x509.MarshalPKCS8PrivateKey(short)
	if err != nil {
		t.Fatal(err)
	}
	bring := func(value []byte, what string) ([]byte, error) {
		wrapped := must[[]byte](t)(ep11.EncryptSingle(t.Context(), b.via, nil, kek, pad, value))
		blob, _, err := ep11.UnwrapKey(t.Context(), b.via, nil, wrapped, kek, nil, nil, pad, template(t, what))
		return blob, err
	}
	_, err = bring(info, "class=private-key key-type=rsa sign=true")
	wants(t, "bring in a short RSA key", err, p11.CKR_KEY_SIZE_RANGE)
	mac := must[[]byte](t)(bring([]byte("Jefe"), "class=secret-key key-type=generic-secret sign=true"))
	wants(t, "a short HMAC key", sign(t, b, nil, mac), p11.CKR_OK)
	b.switchPoint(t, pointAnyHMAC, false)
	wants(t, "a short HMAC key where they have a least length", sign(t, b, nil, mac), p11.CKR_KEY_SIZE_RANGE)
}

// TestLoginsAtOnce: domains that are asked for the first login at once give the same session.
func TestLoginsAtOnce(t *testing.T) {
	b := newBench(t, swtok.GoProvider())
	const many = 16
	ids := make(chan string, many)
	for range many {
		go func() {
			blob, err := ep11.Login(t.Context(), b.via, nil, []byte("12345678"), []byte("nonce"))
			if err != nil || len(blob) < ep11.SessionLen {
				ids <- fmt.Sprint(err)
				return
			}
			ids <- string(blob[:ep11.SessionLen])
		}()
	}
	first := <-ids
	for range many - 1 {
		if id := <-ids; id != first {
			t.Fatalf("sessions %x and %x", first, id)
		}
	}
}

// TestControlPoints switches one off.
func TestControlPoints(t *testing.T) {
	b := newBench(t, swtok.GoProvider())
	key := b.secretKey(t, "generic-secret-key-gen", macKey)
	b.switchPoint(t, pointSignSymmetric, false)
	wants(t, "sign", sign(t, b, nil, key), ep11.StaticPolicy)
	points, err := ep11.ControlPoints(t.Context(), b.via, nil)
	if err != nil || ep11.HasPoint(points[:], pointSignSymmetric) || !ep11.HasPoint(points[:], pointSign) {
		t.Errorf("control points %x, %v", points, err)
	}
}

// TestSessions makes a key of a login, which ends.
func TestSessions(t *testing.T) {
	b := newBench(t, swtok.GoProvider())
	pin, nonce := []byte("12345678"), bytes.Repeat([]byte{1}, 32)
	login := func(target card.Target) []byte {
		return must[[]byte](t)(ep11.Login(t.Context(), b.via, target, pin, nonce))
	}
	blob, other := login(nil), login(card.Target{b.set.APQNs()[1]})
	if len(blob) != 80 || !bytes.Equal(blob[:32], other[:32]) || blob[0] == 0x30 {
		t.Errorf("logins %x and %x", blob, other)
	}
	k, _, err := ep11.GenerateKey(t.Context(), b.via, nil, mech(t, "generic-secret-key-gen"), template(t, macKey), blob)
	if err != nil || !bytes.Equal(ep11.Blob(k).Session(), blob[:32]) {
		t.Fatalf("a key of session %x, %v", ep11.Blob(k).Session(), err)
	}
	wants(t, "a key of a login", sign(t, b, nil, k), p11.CKR_OK)
	wants(t, "a wrong blob", ep11.Logout(t.Context(), b.via, nil, append([]byte{9}, blob[1:]...)), p11.CKR_PIN_INCORRECT)
	wants(t, "logout", ep11.Logout(t.Context(), b.via, nil, blob), p11.CKR_OK)
	wants(t, "again", ep11.Logout(t.Context(), b.via, nil, blob), p11.CKR_SESSION_CLOSED)
	wants(t, "a key of no login", sign(t, b, nil, k), p11.CKR_SESSION_CLOSED)
	_, _, err = ep11.GenerateKey(t.Context(), b.via, nil, mech(t, "generic-secret-key-gen"), template(t, macKey), blob)
	wants(t, "a new key of no login", err, p11.CKR_SESSION_CLOSED)
	login(nil)
	wants(t, "logged in with the same values", sign(t, b, nil, k), p11.CKR_OK)
	second := card.Target{b.set.APQNs()[1]}
	wants(t, "logout at one domain of two", ep11.Logout(t.Context(), b.via, second, blob), p11.CKR_OK)
	wants(t, "where it is logged out", sign(t, b, second, k), p11.CKR_SESSION_CLOSED)
	wants(t, "where it is not", sign(t, b, nil, k), p11.CKR_OK)
	_, err = ep11.Login(t.Context(), b.via, nil, []byte("short"), nonce)
	wants(t, "a short PIN", err, p11.CKR_PIN_LEN_RANGE)
}

// TestOrder has a program of each byte order, and each uses the other's key.
func TestOrder(t *testing.T) {
	b := newBench(t, swtok.GoProvider())
	for _, o := range []binary.ByteOrder{binary.BigEndian, binary.LittleEndian} {
		via := ordered{b.via, o}
		k, _, err := ep11.GenerateKey(t.Context(), via, nil, mech(t, "generic-secret-key-gen"), template(t, macKey), nil)
		if err != nil {
			t.Fatal(err)
		}
		if o.Uint16(k[ep11.BlobVersion:]) != ep11.Version || ep11.Blob(k).BitsOf(o)&ep11.BitSign == 0 {
			t.Errorf("%v: header %x", o, k[:ep11.BlobSealed])
		}
		wants(t, "the other's key", sign(t, b, nil, k), p11.CKR_OK)
		info := must[[]byte](t)(ep11.GetXcpInfo(t.Context(), via, nil, ep11.QueryDomain, 0))
		if len(info) != 88 || o.Uint64(info) != 1 {
			t.Errorf("%v: domain %x", o, info)
		}
	}
}

// ordered makes calls of a program of that byte order.
type ordered struct {
	card.Transport
	order binary.ByteOrder
}

func (t ordered) Call(ctx context.Context, c *card.Call) error {
	c.Order = t.order
	return t.Transport.Call(ctx, c)
}

// TestCutBlob cuts a key at each length, and changes each byte of it.
func TestCutBlob(t *testing.T) {
	b := newBench(t, swtok.GoProvider())
	key := b.secretKey(t, "generic-secret-key-gen", macKey)
	_, pub := b.pair(t, "ec-key-pair-gen", "ec-params=secp256r1 verify=true", "sign=true")
	use := func(k ep11.Blob) error {
		if k.IsSPKI() {
			return ep11.VerifySingle(t.Context(), b.via, nil, k, p11.Mechanism{Type: p11.CKM_ECDSA}, make([]byte, 32), make([]byte, 64))
		}
		return sign(t, b, nil, k)
	}
	for _, k := range []ep11.Blob{key, pub} {
		for n := range len(k) {
			if n == len(k.SPKI()) && n > 0 {
				continue // which is a good key
			}
			if err := use(k[:n]); !errors.Is(err, ep11.BlobError) {
				t.Errorf("%d of %d bytes: %v", n, len(k), err)
			}
			changed := bytes.Clone(k)
			if changed[n] ^= 1; use(changed) == nil {
				t.Errorf("byte %d changed, and the key is good", n)
			}
		}
	}
}

// TestHeld is of data that an operation has to see whole.
func TestHeld(t *testing.T) {
	b := newBench(t, swtok.GoProvider())
	key, _ := b.pair(t, "rsa-pkcs-key-pair-gen", "modulus-bits=1024 verify=true", "sign=true")
	state := must[[]byte](t)(ep11.SignInit(t.Context(), b.via, nil, mech(t, "rsa-pkcs"), key))
	if len(state) > 8192 {
		t.Errorf("a state of %d bytes", len(state))
	}
	state = must[[]byte](t)(ep11.SignUpdate(t.Context(), b.via, nil, state, make([]byte, maxHeld)))
	_, err := ep11.SignUpdate(t.Context(), b.via, nil, state, []byte{0})
	wants(t, "too much", err, ep11.TransportLimit)
	_, err = ep11.SignFinal(t.Context(), b.via, nil, state)
	wants(t, "more than the key signs", err, p11.CKR_DATA_LEN_RANGE)
	_, err = ep11.EncryptFinal(t.Context(), b.via, nil, state)
	wants(t, "a state of another use", err, p11.CKR_OPERATION_NOT_INITIALIZED)
}

// TestSizes makes calls without room, with too little and with just enough of it.
func TestSizes(t *testing.T) {
	b := newBench(t, swtok.GoProvider())
	key := b.secretKey(t, "generic-secret-key-gen", macKey)
	m := p11.Mechanism{Type: p11.CKM_SHA256_HMAC}
	state := must[[]byte](t)(ep11.SignInit(t.Context(), b.via, nil, m, key))
	for name, args := range map[string][]card.Arg{
		"m_SignInit":         {{}, {Mechanism: &m}, {Bytes: key}},
		"m_SignFinal":        {{Bytes: state}, {}},
		"m_Sign":             {{Bytes: state}, {Bytes: []byte("data")}, {}},
		"m_SignSingle":       {{Bytes: key}, {Mechanism: &m}, {Bytes: []byte("data")}, {}},
		"m_DigestSingle":     {{Mechanism: &p11.Mechanism{Type: p11.CKM_SHA256}}, {Bytes: []byte("data")}, {}},
		"m_GetMechanismList": {{}, {}},
		"m_Login":            {{Bytes: []byte("12345678")}, {Bytes: []byte("nonce")}, {}},
		"m_get_xcp_info":     {{}, {Number: ep11.QueryModule}, {}},
	} {
		f := named(t, name)
		call := func(room uint64, query bool) (*card.Call, *card.Arg) {
			c := &card.Call{Function: f, Args: append([]card.Arg{}, args...)}
			var out *card.Arg
			for i, k := range f.Args {
				if k == card.Output || k == card.Numbers {
					out = &c.Args[i]
				}
			}
			out.Room, out.Query = room, query
			if err := b.via.Call(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			return c, out
		}
		c, out := call(0, true)
		n := out.Length
		if c.Return != 0 || n == 0 || out.Out != nil {
			t.Errorf("%s without room: %v, %d bytes", name, p11.RV(c.Return), n)
		}
		if c, out = call(n-1, false); p11.RV(c.Return) != p11.CKR_BUFFER_TOO_SMALL || out.Length != n || out.Out != nil {
			t.Errorf("%s with too little room: %v, %d bytes of %d", name, p11.RV(c.Return), out.Length, n)
		}
		if c, out = call(n, false); c.Return != 0 || out.Length != n || len(out.Out)+len(out.Numbers) != int(n) {
			t.Errorf("%s with enough room: %v, %d bytes of %d", name, p11.RV(c.Return), out.Length, n)
		}
	}

	// An update that gives something leaves its state where there is no room for that.
	aesKey := b.secretKey(t, "aes-key-gen", "value-len=16 encrypt=true")
	state = must[[]byte](t)(ep11.EncryptInit(t.Context(), b.via, nil, mech(t, "aes-ecb"), aesKey))
	for _, query := range []bool{true, false} {
		c := &card.Call{Function: named(t, "m_EncryptUpdate"), Args: []card.Arg{{Bytes: state, Room: uint64(len(state))}, {Bytes: make([]byte, 16)}, {Query: query}}}
		if err := b.via.Call(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if out := c.Args[0].Out; out != nil && !bytes.Equal(out, state) || c.Args[2].Length != 16 {
			t.Errorf("query %v: the state changed, or %d bytes are needed", query, c.Args[2].Length)
		}
	}
}

func named(t *testing.T, name string) *card.Function {
	t.Helper()
	for _, f := range card.Functions(card.EP11) {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("no function %s", name)
	return nil
}

// TestStockImport is of the template with which stock brings a key in: all attributes of the
// object, its value in the clear among them. The card takes the value that is wrapped, and
// says of the key what it does itself.
func TestStockImport(t *testing.T) {
	b := newBench(t, swtok.GoProvider())
	kek := b.secretKey(t, "aes-key-gen", "value-len=16 encrypt=true unwrap=true")
	pad := mech(t, "aes-cbc-pad iv=0x31323334353637383132333435363738")
	value := bytes.Repeat([]byte{7}, 32)
	wrapped := must[[]byte](t)(ep11.EncryptSingle(t.Context(), b.via, nil, kek, pad, value))
	all := template(t, "class=secret-key key-type=generic-secret sign=true verify=true value-len=0 label=x token=true private=true sensitive=false always-sensitive=false local=true never-extractable=true")
	all.Set(p11.CKA_VALUE, make([]byte, 32))
	all.Set(p11.CKA_START_DATE, []byte{})
	key, checksum, err := ep11.UnwrapKey(t.Context(), b.via, nil, wrapped, kek, nil, nil, pad, all)
	if err != nil {
		t.Fatal(err)
	}
	if binary.BigEndian.Uint32(checksum[len(checksum)-4:]) != 8*32 {
		t.Errorf("the checksum is %x", checksum)
	}
	h := hmac.New(sha256.New, value)
	h.Write([]byte("x"))
	mac := must[[]byte](t)(ep11.SignSingle(t.Context(), b.via, nil, key, p11.Mechanism{Type: p11.CKM_SHA256_HMAC}, []byte("x")))
	if !bytes.Equal(mac, h.Sum(nil)) {
		t.Errorf("the MAC is %x", mac)
	}
	if bits := ep11.Blob(key).BitsOf(card.NativeOrder()); bits&(ep11.BitLocal|ep11.BitNeverExtractable) != 0 {
		t.Errorf("a key that was brought in has the bits %#x", bits)
	}
}
