package tokentest

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
)

// testMechanisms has every mechanism of the list do all that it says it does, and
// undo it.
func (b Backend) testMechanisms(t *testing.T) {
	tok := b.forKeys(t)
	r := newRing(t, tok)
	if b.Exchanged != 0 {
		r.exchanged, r.kdf = b.Exchanged, b.KDF
	}
	done := 0
	for _, m := range tok.Mechanisms() {
		facts, ok := p11.MechanismFacts(m.Type)
		if !ok {
			t.Errorf("%s is not known", m.Type)
			continue
		}
		if passedOver(m.Type, facts) {
			continue
		}
		for _, test := range []struct {
			flag p11.Flags
			name string
			run  func(*testing.T, p11.Mechanism, p11.Facts)
		}{
			{p11.CKF_DIGEST, "digest", r.digest},
			{p11.CKF_SIGN, "sign", r.sign},
			{p11.CKF_SIGN_RECOVER, "sign-recover", r.recover},
			{p11.CKF_ENCRYPT, "encrypt", r.encrypt},
			{p11.CKF_WRAP, "wrap", r.wrap},
			{p11.CKF_DERIVE, "derive", r.derive},
			{p11.CKF_ENCAPSULATE, "encapsulate", r.encapsulate},
		} {
			if m.Flags&test.flag == 0 {
				continue
			}
			done++
			t.Run(m.Type.Short()+"/"+test.name, func(t *testing.T) {
				test.run(t, p11.Mechanism{Type: m.Type, Param: p11.SampleParam(m.Type)}, facts)
			})
		}
	}
	if done == 0 {
		t.Error("the token does nothing")
	}
}

// passedOver says that -short does without a mechanism: SLH-DSA takes its time, seconds on
// an emulated processor, and what is hashed before is signed as with another hash.
func passedOver(m p11.MechanismType, facts p11.Facts) bool {
	return testing.Short() && slices.Contains(facts.KeyTypes, p11.CKK_SLH_DSA) &&
		m != p11.CKM_SLH_DSA && m != p11.CKM_HASH_SLH_DSA_SHA256 && m != p11.CKM_SLH_DSA_KEY_PAIR_GEN
}

func (r *ring) digest(t *testing.T, m p11.Mechanism, _ p11.Facts) {
	whole := r.sum(t, m, "some data")
	if parts := r.sum(t, m, "some", "", " data"); !bytes.Equal(parts, whole) || len(whole) == 0 {
		t.Errorf("%x in parts, %x as a whole", parts, whole)
	}
	if other := r.sum(t, m, "some datb"); bytes.Equal(other, whole) {
		t.Errorf("other data has the same digest")
	}
	d, err := r.Digest(t.Context(), m)
	noError(t, err)
	defer d.Close()
	if !goesOn(d.Operation) {
		return
	}
	for i := range message {
		for range 2 {
			got, err := d.Final()
			noError(t, err)
			if !bytes.Equal(got, r.sum(t, m, message[:i])) {
				t.Errorf("the digest of %d bytes is wrong when more follow", i)
			}
		}
		noError(t, d.Update([]byte(message[i:i+1])))
	}
}

func (r *ring) sum(t *testing.T, m p11.Mechanism, parts ...string) []byte {
	t.Helper()
	d, err := r.Digest(t.Context(), m)
	noError(t, err)
	defer d.Close()
	for _, p := range parts {
		noError(t, d.Update([]byte(p)))
	}
	sum, err := d.Final()
	noError(t, err)
	if len(sum) != d.Size() {
		t.Errorf("%d bytes, not %d", len(sum), d.Size())
	}
	return sum
}

// message is data that every mechanism can sign with the suite's keys: the
// length of a SHA-1 digest.
const message = "20 bytes to be sign."

// signable is the message, or another as long as a mechanism wants it that signs a
// digest of another length.
func signable(m p11.Mechanism) string {
	if p, ok := m.Param.(*p11.HashSignContext); ok {
		return (message + message + message + message)[:p11.HashSize(p.Hash)]
	}
	return message
}

func (r *ring) sign(t *testing.T, m p11.Mechanism, facts p11.Facts) {
	message := signable(m)
	pub, priv := r.keys(t, facts)
	s, err := r.Sign(t.Context(), m, priv)
	noError(t, err)
	noError(t, s.Update([]byte(message)))
	sig, err := s.Final()
	noError(t, err)
	if len(sig) > s.Size() || len(sig) == 0 {
		t.Errorf("%d bytes, not at most %d", len(sig), s.Size())
	}
	s.Close()
	verify := func(msg string, sig []byte) error {
		v, err := r.Verify(t.Context(), m, pub)
		if err != nil {
			return err
		}
		defer v.Close()
		if err := v.Update([]byte(msg[:7])); err != nil {
			return err
		}
		if err := v.Update([]byte(msg[7:])); err != nil {
			return err
		}
		return v.Final(sig)
	}
	noError(t, verify(message, sig))
	wantRV(t, "other data", verify("21"+message[2:], sig), p11.CKR_SIGNATURE_INVALID)
	wantRV(t, "part of the signature", verify(message, sig[1:]), p11.CKR_SIGNATURE_LEN_RANGE)
	r.signOn(t, m, facts, verify)
}

// signOn takes signatures, and checks them, of a message that goes on. A
// mechanism that wants data of one length refuses all but the whole.
func (r *ring) signOn(t *testing.T, m p11.Mechanism, facts p11.Facts, verify func(string, []byte) error) {
	message := signable(m)
	pub, priv := r.keys(t, facts)
	s, err := r.Sign(t.Context(), m, priv)
	noError(t, err)
	defer s.Close()
	v, err := r.Verify(t.Context(), m, pub)
	noError(t, err)
	defer v.Close()
	if !goesOn(s.Operation) || !goesOn(v.Operation) {
		return
	}
	at := 0
	for _, end := range []int{7, 12, len(message), len(message)} {
		part := []byte(message[at:end])
		at = end
		noError(t, s.Update(part))
		noError(t, v.Update(part))
		sig, err := s.Final()
		if p11.RVOf(err) == p11.CKR_DATA_LEN_RANGE && end < len(message) {
			wantRV(t, "a part", v.Final(make([]byte, v.Size())), p11.CKR_DATA_LEN_RANGE)
			continue
		}
		noError(t, err)
		noError(t, verify(message[:end], sig))
		noError(t, v.Final(sig))
		sig[0] ^= 1
		wantRV(t, "another signature", v.Final(sig), p11.CKR_SIGNATURE_INVALID)
	}
}

func (r *ring) recover(t *testing.T, m p11.Mechanism, facts p11.Facts) {
	pub, priv := r.keys(t, facts)
	sig, err := r.SignRecover(t.Context(), m, priv, []byte(message))
	noError(t, err)
	got, err := r.VerifyRecover(t.Context(), m, pub, sig)
	noError(t, err)
	if !bytes.HasSuffix(got, []byte(message)) {
		t.Errorf("recovered %q", got)
	}
}

func (r *ring) crypt(op Cipher, err error, in []byte) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer op.Close()
	var out []byte
	for _, part := range [][]byte{in[:len(in)/3], in[len(in)/3:]} {
		x, err := op.Update(part)
		if err != nil {
			return nil, err
		}
		out = append(out, x...)
	}
	x, err := op.Final()
	return append(out, x...), err
}

func (r *ring) encrypt(t *testing.T, m p11.Mechanism, facts p11.Facts) {
	pub, priv := r.keys(t, facts)
	plain := bytes.Repeat([]byte("16 bytes a block"), 3)
	op, err := r.Encrypt(t.Context(), m, pub)
	ct, err := r.crypt(op, err, plain)
	noError(t, err)
	if bytes.Contains(ct, plain[:16]) {
		t.Error("it is not encrypted")
	}
	op, err = r.Decrypt(t.Context(), m, priv)
	got, err := r.crypt(op, err, ct)
	noError(t, err)
	if !bytes.HasSuffix(got, plain) {
		t.Errorf("decrypted %q", got)
	}
	r.encryptOn(t, m, facts, plain)
	r.decryptOn(t, m, facts, ct, plain)
}

// encryptOn takes the result of a message that goes on. A mechanism that wants
// whole blocks refuses the other lengths.
func (r *ring) encryptOn(t *testing.T, m p11.Mechanism, facts p11.Facts, plain []byte) {
	pub, priv := r.keys(t, facts)
	op, err := r.Encrypt(t.Context(), m, pub)
	noError(t, err)
	defer op.Close()
	if !goesOn(op.Operation) {
		return
	}
	var out []byte
	at := 0
	for _, end := range []int{5, 16, 29, 32, len(plain), len(plain)} {
		x, err := op.Update(plain[at:end])
		noError(t, err)
		out, at = append(out, x...), end
		rest, err := op.Final()
		if p11.RVOf(err) == p11.CKR_DATA_LEN_RANGE && end < len(plain) {
			continue
		}
		noError(t, err)
		back, err := r.Decrypt(t.Context(), m, priv)
		got, err := r.crypt(back, err, append(bytes.Clone(out), rest...))
		noError(t, err)
		if !bytes.HasSuffix(got, plain[:end]) || len(got) > end && got[len(got)-end-1] != 0 {
			t.Errorf("the first %d bytes come back as %q", end, got)
		}
	}
}

// decryptOn asks for the result of parts of a ciphertext, most of which are
// none, and then of the whole.
func (r *ring) decryptOn(t *testing.T, m p11.Mechanism, facts p11.Facts, ct, plain []byte) {
	_, priv := r.keys(t, facts)
	op, err := r.Decrypt(t.Context(), m, priv)
	noError(t, err)
	defer op.Close()
	if !goesOn(op.Operation) {
		return
	}
	var out []byte
	at := 0
	for _, end := range []int{5, 16, 29, 32, len(ct) - 1} {
		x, err := op.Update(ct[at:end])
		noError(t, err)
		out, at = append(out, x...), end
		_, _ = op.Final()
	}
	x, err := op.Update(ct[at:])
	noError(t, err)
	out = append(out, x...)
	for range 2 {
		rest, err := op.Final()
		noError(t, err)
		if got := append(bytes.Clone(out), rest...); !bytes.HasSuffix(got, plain) {
			t.Errorf("the whole comes back as %q", got)
		}
	}
}

func (r *ring) wrap(t *testing.T, m p11.Mechanism, facts p11.Facts) {
	pub, priv := r.keys(t, facts)
	value := []byte("24 bytes of a secret key")
	wrapped, err := r.tok.(tokens.KeyWrapper).WrapKey(t.Context(), m, pub, secretKey(t, r.tok, r.exchanged, value))
	noError(t, err)
	template := keyTemplate(p11.CKO_SECRET_KEY, r.exchanged)
	template.SetUlong(p11.CKA_VALUE_LEN, uint64(len(value)))
	template.Set(p11.CKA_LABEL, []byte("from the template"))
	a, err := r.tok.(tokens.KeyWrapper).UnwrapKey(t.Context(), m, priv, wrapped, template)
	noError(t, err)
	if o := adopted(t, r.tok, a); !r.has(t, o, value) || string(attribute(t, o, p11.CKA_LABEL)) != "from the template" {
		t.Errorf("another key was unwrapped, label %q", a.Label())
	}
}

func (r *ring) derive(t *testing.T, m p11.Mechanism, facts p11.Facts) {
	if m.Type == p11.CKM_PUB_KEY_FROM_PRIV_KEY {
		r.publicHalves(t, m)
		return
	}
	if facts.Param == p11.ParamIBMMLKEM || facts.Param == p11.ParamIBMMLKEMECDH {
		r.deriveKEM(t, m, facts)
		return
	}
	var base *tokens.Object
	var others []*tokens.Object
	length := uint64(16) // the shortest digest
	switch p := m.Param.(type) {
	case *p11.ECDH1Params:
		var pub *tokens.Object
		pub, base = r.keys(t, facts)
		p.PublicData = attribute(t, pub, p11.CKA_EC_POINT)
		if r.kdf != 0 {
			p.KDF = r.kdf
		}
		length = 32
	case *p11.StringDataParams:
		p.Data = []byte("16 bytes of data")
	case *p11.CBCDataParams:
		p.Data = []byte("16 bytes of data")
	case p11.OtherKey:
		others = []*tokens.Object{secretKey(t, r.tok, p11.CKK_GENERIC_SECRET, []byte("another value"))}
	case *p11.HKDFParams, *p11.IKE2PRFPlusParams, *p11.IKE1ExtendedParams:
		others = []*tokens.Object{nil}
	case *p11.IKEPRFParams:
		others, length = []*tokens.Object{nil}, 32
	case *p11.IKE1PRFParams:
		others = []*tokens.Object{secretKey(t, r.tok, p11.CKK_GENERIC_SECRET, []byte("another value")), nil}
	case *p11.SSL3MasterParams, *p11.TLS12MasterParams, *p11.ExtendedMasterParams:
		length = 48
	case *p11.SSL3KeyMatParams:
		p.MACBits = 128
	case *p11.TLS12KeyMatParams:
		p.MACBits = 128
	}
	maker, _ := m.Param.(p11.KeyMaker)
	if maker != nil {
		others = []*tokens.Object{}
	}
	if name := m.Type.Short(); strings.HasPrefix(name, "ssl3") || strings.HasPrefix(name, "tls") {
		base = secretKey(t, r.tok, p11.CKK_GENERIC_SECRET, bytes.Repeat([]byte("secret"), 8))
	}
	if base == nil && len(facts.KeyTypes) > 0 {
		var pub *tokens.Object
		if pub, base = r.keys(t, facts); facts.Param == p11.ParamPublic {
			m.Param = p11.RawParam(attribute(t, pub, p11.CKA_VALUE))
		}
	} else if base == nil {
		base = secretKey(t, r.tok, p11.CKK_GENERIC_SECRET, []byte("a value to digest"))
	}
	derived := func() p11.Attributes {
		template := keyTemplate(p11.CKO_SECRET_KEY, r.exchanged)
		if facts.Data {
			template.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_DATA))
			template.Delete(p11.CKA_KEY_TYPE)
		}
		template.SetUlong(p11.CKA_VALUE_LEN, length)
		if others == nil {
			a, err := r.tok.(tokens.KeyDeriver).DeriveKey(t.Context(), m, base, template)
			noError(t, err)
			return a
		}
		templates := []p11.Attributes{template}
		if maker != nil {
			templates, _ = maker.Makes(template)
		}
		all, _, err := r.tok.(tokens.KeyJoiner).JoinKeys(t.Context(), m, append([]*tokens.Object{base}, others...), templates)
		noError(t, err)
		return all[0]
	}
	if facts.Data {
		one, _ := derived().Get(p11.CKA_VALUE)
		two, _ := derived().Get(p11.CKA_VALUE)
		if uint64(len(one)) != length || !bytes.Equal(one, two) {
			t.Errorf("derived %x and %x", one, two)
		}
		return
	}
	one, two := adopted(t, r.tok, derived()), adopted(t, r.tok, derived())
	if n, _ := p11.ToUlong(attribute(t, one, p11.CKA_VALUE_LEN)); n != length {
		t.Errorf("derived %d bytes", n)
	}
	if !bytes.Equal(r.mac(t, one), r.mac(t, two)) {
		t.Error("the same key and parameter make two secrets")
	}
}

// encapsulate makes a secret with the public key, and takes it out with the private one.
func (r *ring) encapsulate(t *testing.T, m p11.Mechanism, facts p11.Facts) {
	pub, priv := r.keys(t, facts)
	kem := r.tok.(tokens.Encapsulator)
	template := keyTemplate(p11.CKO_SECRET_KEY, p11.CKK_GENERIC_SECRET)
	template.SetUlong(p11.CKA_VALUE_LEN, 20)
	ciphertext, a, err := kem.EncapsulateKey(t.Context(), m, pub, template.Clone())
	noError(t, err)
	ours := r.mac(t, adopted(t, r.tok, a))
	theirs := func(ciphertext []byte) ([]byte, error) {
		a, err := kem.DecapsulateKey(t.Context(), m, priv, ciphertext, template.Clone())
		if err != nil {
			return nil, err
		}
		return r.mac(t, adopted(t, r.tok, a)), nil
	}
	got, err := theirs(ciphertext)
	noError(t, err)
	if !bytes.Equal(got, ours) {
		t.Error("the two sides have two secrets")
	}
	ciphertext[0] ^= 1
	if got, err := theirs(ciphertext); err == nil && bytes.Equal(got, ours) {
		t.Error("another ciphertext gives the same secret")
	}
	if _, _, err := kem.EncapsulateKey(t.Context(), m, priv, template.Clone()); p11.RVOf(err) != p11.CKR_KEY_TYPE_INCONSISTENT {
		t.Errorf("encapsulated with a private key: %v", err)
	}
}

// deriveKEM is encapsulate for a mechanism that does it by derivation.
func (r *ring) deriveKEM(t *testing.T, m p11.Mechanism, facts p11.Facts) {
	pub, priv := r.keys(t, facts)
	length := uint64(32)
	var other *tokens.Object
	if p, ok := m.Param.(*p11.IBMMLKEMECDHParams); ok {
		other = r.priv[p11.CKK_EC]
		p.PublicData = attribute(t, r.pub[p11.CKK_EC], p11.CKA_EC_POINT)
		length = 64 // of which the secret of ML-KEM is the end
	}
	derive := func(base *tokens.Object) ([]byte, []byte, error) {
		template := keyTemplate(p11.CKO_SECRET_KEY, p11.CKK_GENERIC_SECRET)
		template.SetUlong(p11.CKA_VALUE_LEN, length)
		made, out, err := r.tok.(tokens.KeyJoiner).JoinKeys(t.Context(), m, []*tokens.Object{base, other}, []p11.Attributes{template})
		if err != nil {
			return nil, nil, err
		}
		return r.mac(t, adopted(t, r.tok, made[0])), out, nil
	}
	ours, ciphertext, err := derive(pub)
	noError(t, err)
	if _, _, err := derive(priv); p11.RVOf(err) != p11.CKR_KEY_TYPE_INCONSISTENT {
		t.Errorf("encapsulated with a private key: %v", err)
	}
	take := func(ciphertext []byte) {
		switch p := m.Param.(type) {
		case *p11.IBMMLKEMParams:
			p.Mode, p.Ciphertext = p11.CK_IBM_ML_KEM_DECAPSULATE, ciphertext
		case *p11.IBMMLKEMECDHParams:
			p.Mode, p.Ciphertext = p11.CK_IBM_ML_KEM_DECAPSULATE, ciphertext
		}
	}
	take(ciphertext)
	theirs, out, err := derive(priv)
	noError(t, err)
	if !bytes.Equal(theirs, ours) || len(out) > 0 {
		t.Errorf("the two sides have two secrets, or %d bytes came out", len(out))
	}
	if _, _, err := derive(pub); p11.RVOf(err) != p11.CKR_KEY_TYPE_INCONSISTENT {
		t.Errorf("decapsulated with a public key: %v", err)
	}
	ciphertext[0] ^= 1
	if theirs, _, err := derive(priv); err != nil || bytes.Equal(theirs, ours) {
		t.Errorf("another ciphertext gives the same secret, or %v", err)
	}
	take(ciphertext[1:])
	if _, _, err := derive(priv); p11.RVOf(err) != p11.CKR_MECHANISM_PARAM_INVALID {
		t.Errorf("a short ciphertext: %v", err)
	}
}

// testAbsent asks for what is not in the list.
func (b Backend) testAbsent(t *testing.T) {
	tok := b.open(t, t.TempDir())
	flags := make(map[p11.MechanismType]p11.Flags)
	for _, m := range tok.Mechanisms() {
		flags[m.Type] = m.Flags
	}
	key := secretKey(t, tok, p11.CKK_GENERIC_SECRET, []byte("a key of ten bytes or more"))
	ctx, calls := t.Context(), Calls{tok}
	for _, mt := range []p11.MechanismType{0xffffffff, p11.CKM_SHA256, p11.CKM_SHA256_HMAC, p11.CKM_AES_CBC, p11.CKM_RSA_PKCS, p11.CKM_RSA_PKCS_KEY_PAIR_GEN, p11.CKM_SKIPJACK_CBC64} {
		m := p11.Mechanism{Type: mt}
		for _, test := range []struct {
			flag p11.Flags
			name string
			try  func() error
		}{
			{p11.CKF_DIGEST, "digest", func() error { _, err := calls.Digest(ctx, m); return err }},
			{p11.CKF_SIGN, "sign", func() error { _, err := calls.Sign(ctx, m, key); return err }},
			{p11.CKF_VERIFY, "verify", func() error { _, err := calls.Verify(ctx, m, key); return err }},
			{p11.CKF_SIGN_RECOVER, "sign-recover", func() error { _, err := calls.SignRecover(ctx, m, key, nil); return err }},
			{p11.CKF_VERIFY_RECOVER, "verify-recover", func() error { _, err := calls.VerifyRecover(ctx, m, key, nil); return err }},
			{p11.CKF_ENCRYPT, "encrypt", func() error { _, err := calls.Encrypt(ctx, m, key); return err }},
			{p11.CKF_DECRYPT, "decrypt", func() error { _, err := calls.Decrypt(ctx, m, key); return err }},
			{p11.CKF_GENERATE, "generate", func() error {
				return absent(tok, func(g tokens.KeyGenerator) error { _, err := g.GenerateKey(ctx, m, nil); return err })
			}},
			{p11.CKF_GENERATE_KEY_PAIR, "generate a pair", func() error {
				return absent(tok, func(g tokens.KeyGenerator) error { _, _, err := g.GenerateKeyPair(ctx, m, nil, nil); return err })
			}},
			{p11.CKF_WRAP, "wrap", func() error {
				return absent(tok, func(w tokens.KeyWrapper) error { _, err := w.WrapKey(ctx, m, key, key); return err })
			}},
			{p11.CKF_UNWRAP, "unwrap", func() error {
				return absent(tok, func(w tokens.KeyWrapper) error { _, err := w.UnwrapKey(ctx, m, key, nil, nil); return err })
			}},
			{p11.CKF_DERIVE, "derive", func() error {
				return absent(tok, func(d tokens.KeyDeriver) error { _, err := d.DeriveKey(ctx, m, key, nil); return err })
			}},
		} {
			if flags[mt]&test.flag != 0 {
				continue
			}
			if err := test.try(); !errors.Is(err, p11.CKR_MECHANISM_INVALID) {
				t.Errorf("%s with %s: %v", test.name, mt, err)
			}
		}
	}
}

// absent tries a function of an optional interface. A token without the interface
// has no mechanism for it.
func absent[T any](tok tokens.Token, try func(T) error) error {
	if t, ok := tok.(T); ok {
		return try(t)
	}
	return p11.CKR_MECHANISM_INVALID
}

// testStoredKeys generates keys, stores them, and uses them from another open.
func (b Backend) testStoredKeys(t *testing.T) {
	dir := t.TempDir()
	tok := b.ready(t, dir)
	ctx := t.Context()
	login(t, tok, p11.CKU_USER, userPIN)
	m := p11.Mechanism{Type: p11.CKM_RSA_PKCS_KEY_PAIR_GEN}
	public, private := keyTemplate(p11.CKO_PUBLIC_KEY, p11.CKK_RSA), keyTemplate(p11.CKO_PRIVATE_KEY, p11.CKK_RSA)
	public.SetUlong(p11.CKA_MODULUS_BITS, max(1024, least(tok, m.Type)))
	public.Set(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})
	public.SetBool(p11.CKA_TOKEN, true)
	private.SetBool(p11.CKA_TOKEN, true)
	private.SetBool(p11.CKA_PRIVATE, true)
	public, private, err := tok.(tokens.KeyGenerator).GenerateKeyPair(ctx, m, public, private)
	noError(t, err)
	o, err := tok.Create(ctx, adopt(t, tok, public))
	noError(t, err)
	p, err := tok.Create(ctx, adopt(t, tok, private))
	noError(t, err)

	again := b.open(t, dir)
	login(t, again, p11.CKU_USER, userPIN)
	priv, err := again.ByName(p.Name)
	noError(t, err)
	pub, err := again.ByName(o.Name)
	noError(t, err)
	s, err := Calls{again}.Sign(ctx, p11.Mechanism{Type: p11.CKM_RSA_PKCS}, priv)
	noError(t, err)
	defer s.Close()
	noError(t, s.Update([]byte(message)))
	// The key is destroyed in the middle; the operation still holds it.
	noError(t, again.Destroy(ctx, priv.Handle, func(p11.Attributes) error { return nil }))
	sig, err := s.Final()
	noError(t, err)
	v, err := Calls{again}.Verify(ctx, p11.Mechanism{Type: p11.CKM_RSA_PKCS}, pub)
	noError(t, err)
	defer v.Close()
	noError(t, v.Update([]byte(message)))
	noError(t, v.Final(sig))
}
