package swtok

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/p11/pqc"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

// pqcPair makes a pair of the set.
func pqcPair(t *testing.T, c *Crypto, name string) (pub, priv *tokens.Object) {
	t.Helper()
	s, ok := pqc.SetNamed(name)
	if !ok {
		t.Fatal(name)
	}
	makers := map[p11.KeyType]p11.MechanismType{
		p11.CKK_ML_DSA: p11.CKM_ML_DSA_KEY_PAIR_GEN, p11.CKK_SLH_DSA: p11.CKM_SLH_DSA_KEY_PAIR_GEN, p11.CKK_ML_KEM: p11.CKM_ML_KEM_KEY_PAIR_GEN,
	}
	return generatedPair(t, c, makers[s.KeyType], p11.Attributes{{Type: p11.CKA_PARAMETER_SET, Value: p11.Ulong(s.Number)}})
}

// Each set makes keys that can be stored, and tells their seed where there is one.
func TestPQCGenerate(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	for _, s := range pqc.Sets() {
		if testing.Short() && s.Slow() && s.Name[len(s.Name)-1] == 's' {
			continue // takes seconds
		}
		_, priv := pqcPair(t, c, s.Name)
		a, err := priv.Acquire()
		if err != nil {
			t.Fatal(err)
		}
		seed, has := a.Get(p11.CKA_SEED)
		if has != (s.SeedSize > 0) || len(seed) != s.SeedSize {
			t.Errorf("%s: a seed of %d bytes", s.Name, len(seed))
		}
		if n, _ := a.Ulong(p11.CKA_PARAMETER_SET); n != s.Number {
			t.Errorf("%s: the private key is of set %d", s.Name, n)
		}
		if _, err := c.Adopt(t.Context(), a.Clone()); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
		priv.Release()
	}
	m := p11.Mechanism{Type: p11.CKM_ML_DSA_KEY_PAIR_GEN}
	for name, test := range map[string]struct {
		public p11.Attributes
		want   p11.RV
	}{
		"no set":             {nil, p11.CKR_TEMPLATE_INCOMPLETE},
		"a set that is none": {p11.Attributes{{Type: p11.CKA_PARAMETER_SET, Value: p11.Ulong(uint64(4))}}, p11.CKR_PARAMETER_SET_NOT_SUPPORTED},
	} {
		if _, _, err := c.GenerateKeyPair(t.Context(), m, test.public, nil); p11.RVOf(err) != test.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A context, and whether a message is hashed before, are part of what is signed.
func TestPQCContext(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	data := []byte("a message of 32 bytes, a digest.")
	hash := func(context string) p11.Param {
		return &p11.HashSignContext{Context: []byte(context), Hash: p11.CKM_SHA256}
	}
	context := func(context string) p11.Param { return &p11.SignContext{Context: []byte(context)} }
	for name, types := range map[string][3]p11.MechanismType{
		"ml-dsa-65":          {p11.CKM_ML_DSA, p11.CKM_HASH_ML_DSA, p11.CKM_HASH_ML_DSA_SHA256},
		"slh-dsa-shake-128f": {p11.CKM_SLH_DSA, p11.CKM_HASH_SLH_DSA, p11.CKM_HASH_SLH_DSA_SHA256},
	} {
		t.Run(name, func(t *testing.T) {
			pub, priv := pqcPair(t, c, name)
			ways := []p11.Mechanism{
				{Type: types[0]},
				{Type: types[0], Param: context("one")},
				{Type: types[0], Param: context("two")},
				{Type: types[1], Param: hash("")},
				{Type: types[1], Param: hash("one")},
				{Type: types[2]},
				{Type: types[2], Param: context("one")},
			}
			for i, m := range ways {
				sig, err := signAll(c, m, priv, data)
				if err != nil {
					t.Fatalf("%v: %v", m, err)
				}
				for j, other := range ways {
					want := p11.CKR_SIGNATURE_INVALID
					if i == j {
						want = p11.CKR_OK
					}
					if err := verifyAll(c, other, pub, data, sig); p11.RVOf(err) != want {
						t.Errorf("way %d checked as %d: %v, want %v", i, j, err, want)
					}
				}
			}
			// What hashes a message, and what takes its digest, are one.
			for _, h := range p11.Hashes() {
				if h.MLDSA == 0 || h.Go == 0 || testing.Short() && types[0] == p11.CKM_SLH_DSA && h.Type != p11.CKM_SHA512 {
					continue
				}
				d := h.Go.New()
				d.Write(data)
				hashing := h.MLDSA
				if types[0] == p11.CKM_SLH_DSA {
					hashing = h.SLHDSA
				}
				sig, err := signAll(c, p11.Mechanism{Type: hashing}, priv, data)
				if err != nil {
					t.Fatal(err)
				}
				if err := verifyAll(c, p11.Mechanism{Type: types[1], Param: &p11.HashSignContext{Hash: h.Type}}, pub, d.Sum(nil), sig); err != nil {
					t.Errorf("%s: %v", h.Type.Short(), err)
				}
			}
		})
	}
}

func TestPQCHedge(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	for name, mt := range map[string]p11.MechanismType{"ml-dsa-44": p11.CKM_ML_DSA, "slh-dsa-sha2-128f": p11.CKM_SLH_DSA} {
		pub, priv := pqcPair(t, c, name)
		for hedge, same := range map[p11.Hedge]bool{
			p11.CKH_HEDGE_PREFERRED: false, p11.CKH_HEDGE_REQUIRED: false, p11.CKH_DETERMINISTIC_REQUIRED: true,
		} {
			m := p11.Mechanism{Type: mt, Param: &p11.SignContext{Hedge: hedge}}
			one, err := signAll(c, m, priv, []byte("data"))
			if err != nil {
				t.Fatal(err)
			}
			two, err := signAll(c, m, priv, []byte("data"))
			if err != nil || bytes.Equal(one, two) != same {
				t.Errorf("%s, %s: equal is %v, %v", name, hedge.Short(), !same, err)
			}
			// To check one, it is ignored.
			if err := verifyAll(c, p11.Mechanism{Type: mt}, pub, []byte("data"), one); err != nil {
				t.Errorf("%s, %s: %v", name, hedge.Short(), err)
			}
		}
	}
}

func TestPQCRules(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		_, dsa := pqcPair(t, c, "ml-dsa-44")
		dsaPub, slh := pqcPair(t, c, "slh-dsa-sha2-128f")
		kemPub, kem := pqcPair(t, c, "ml-kem-512")
		long := bytes.Repeat([]byte{1}, 256)
		for name, test := range map[string]struct {
			m    p11.Mechanism
			key  *tokens.Object
			data int
			want p11.RV
		}{
			"nothing":                     {p11.Mechanism{Type: p11.CKM_ML_DSA}, dsa, 0, p11.CKR_OK},
			"longest context":             {p11.Mechanism{Type: p11.CKM_ML_DSA, Param: &p11.SignContext{Context: long[1:]}}, dsa, 1, p11.CKR_OK},
			"context too long":            {p11.Mechanism{Type: p11.CKM_ML_DSA, Param: &p11.SignContext{Context: long}}, dsa, 1, p11.CKR_MECHANISM_PARAM_INVALID},
			"no such hedge":               {p11.Mechanism{Type: p11.CKM_ML_DSA, Param: &p11.SignContext{Hedge: 3}}, dsa, 1, p11.CKR_MECHANISM_PARAM_INVALID},
			"parameter of another":        {p11.Mechanism{Type: p11.CKM_ML_DSA, Param: &p11.HashSignContext{Hash: p11.CKM_SHA256}}, dsa, 1, p11.CKR_MECHANISM_PARAM_INVALID},
			"bytes":                       {p11.Mechanism{Type: p11.CKM_ML_DSA, Param: p11.RawParam{1}}, dsa, 1, p11.CKR_MECHANISM_PARAM_INVALID},
			"digest without hash":         {p11.Mechanism{Type: p11.CKM_HASH_ML_DSA}, dsa, 32, p11.CKR_MECHANISM_PARAM_INVALID},
			"digest of a hash of old":     {p11.Mechanism{Type: p11.CKM_HASH_ML_DSA, Param: &p11.HashSignContext{Hash: p11.CKM_SHA_1}}, dsa, 20, p11.CKR_MECHANISM_PARAM_INVALID},
			"digest of what is no hash":   {p11.Mechanism{Type: p11.CKM_HASH_ML_DSA, Param: &p11.HashSignContext{Hash: p11.CKM_AES_CBC}}, dsa, 20, p11.CKR_MECHANISM_PARAM_INVALID},
			"short digest":                {p11.Mechanism{Type: p11.CKM_HASH_ML_DSA, Param: &p11.HashSignContext{Hash: p11.CKM_SHA256}}, dsa, 31, p11.CKR_DATA_LEN_RANGE},
			"long digest":                 {p11.Mechanism{Type: p11.CKM_HASH_ML_DSA, Param: &p11.HashSignContext{Hash: p11.CKM_SHA256}}, dsa, 33, p11.CKR_DATA_LEN_RANGE},
			"a key of another signature":  {p11.Mechanism{Type: p11.CKM_ML_DSA}, slh, 1, p11.CKR_KEY_TYPE_INCONSISTENT},
			"likewise":                    {p11.Mechanism{Type: p11.CKM_HASH_SLH_DSA_SHA512}, dsa, 1, p11.CKR_KEY_TYPE_INCONSISTENT},
			"a key that encapsulates":     {p11.Mechanism{Type: p11.CKM_ML_DSA}, kem, 1, p11.CKR_KEY_TYPE_INCONSISTENT},
			"a public key":                {p11.Mechanism{Type: p11.CKM_SLH_DSA}, dsaPub, 1, p11.CKR_KEY_TYPE_INCONSISTENT},
			"a mechanism that signs none": {p11.Mechanism{Type: p11.CKM_ML_KEM}, kem, 1, p11.CKR_MECHANISM_INVALID},
		} {
			if err := test.m.Validate(); err == nil || test.want != p11.CKR_MECHANISM_PARAM_INVALID {
				_, err = signAll(c, test.m, test.key, make([]byte, test.data))
				if got := p11.RVOf(err); got != test.want {
					t.Errorf("%s: %v, want %v", name, err, test.want)
				}
			}
		}
		m := p11.Mechanism{Type: p11.CKM_ML_KEM}
		template := secretTemplate(p11.CKK_GENERIC_SECRET, 32)
		ciphertext, _, err := c.EncapsulateKey(t.Context(), m, kemPub, template)
		if err != nil {
			t.Fatal(err)
		}
		for name, test := range map[string]struct {
			key        *tokens.Object
			ciphertext []byte
			length     uint64
			want       p11.RV
		}{
			"good":                     {kem, ciphertext, 32, p11.CKR_OK},
			"short":                    {kem, ciphertext[1:], 32, p11.CKR_WRAPPED_KEY_LEN_RANGE},
			"nothing":                  {kem, nil, 32, p11.CKR_WRAPPED_KEY_LEN_RANGE},
			"more than there is":       {kem, ciphertext, 33, p11.CKR_KEY_SIZE_RANGE},
			"the leading bytes":        {kem, ciphertext, 16, p11.CKR_OK},
			"with a key that signs":    {dsa, ciphertext, 32, p11.CKR_KEY_TYPE_INCONSISTENT},
			"with the other key":       {kemPub, ciphertext, 32, p11.CKR_KEY_TYPE_INCONSISTENT},
			"with one for signatures":  {dsaPub, ciphertext, 32, p11.CKR_KEY_TYPE_INCONSISTENT},
			"with one made for hashes": {slh, ciphertext, 32, p11.CKR_KEY_TYPE_INCONSISTENT},
		} {
			_, err := c.DecapsulateKey(t.Context(), m, test.key, test.ciphertext, secretTemplate(p11.CKK_GENERIC_SECRET, test.length))
			if got := p11.RVOf(err); got != test.want {
				t.Errorf("%s: %v, want %v", name, err, test.want)
			}
		}
	})
}

// Whoever is interrupted does not wait for a signature, and gives up key and data
// although it is still being made.
func TestInterruptedSignature(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	_, priv := pqcPair(t, c, "slh-dsa-shake-256f") // half a second
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	o, err := c.Begin(t.Context(), p11.CKF_SIGN, p11.Mechanism{Type: p11.CKM_SLH_DSA}, priv)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Update(ctx, []byte("data")); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Final(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an interrupted signature: %v", err)
	}
	o.Close()
	// Turns are taken until it is done.
	for range cap(c.busy) {
		c.busy <- struct{}{}
	}
}

// No more work is begun than there are turns for.
func TestAwaitTurns(t *testing.T) {
	busy := make(turns, 1)
	busy <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := await(ctx, busy, func() (int, error) { t.Error("it is done out of turn"); return 0, nil }, func(int) {})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-busy
	if n, err := await(t.Context(), busy, func() (int, error) { return 7, nil }, func(int) {}); n != 7 || err != nil || len(busy) != 0 {
		t.Errorf("%d, %v, %d turns taken", n, err, len(busy))
	}
}

// A wrapped key comes back with its seed, and does what it did.
func TestPQCWrap(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	under := tokentest.Secret(t, p11.CKK_AES, bytes.Repeat([]byte{7}, 32))
	for _, name := range []string{"ml-dsa-87", "slh-dsa-sha2-128f", "ml-kem-1024"} {
		pub, priv := pqcPair(t, c, name)
		s, _ := pqc.SetNamed(name)
		for _, m := range []p11.Mechanism{{Type: p11.CKM_AES_KEY_WRAP_KWP}, {Type: p11.CKM_AES_CBC_PAD, Param: wrapIV()}} {
			wrapped, err := c.WrapKey(t.Context(), m, under, priv)
			if err != nil {
				t.Fatal(err)
			}
			a, err := c.UnwrapKey(t.Context(), m, under, wrapped, privateTemplate(s.KeyType))
			if err != nil {
				t.Fatal(err)
			}
			if a, err = c.Adopt(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			if a.Has(p11.CKA_SEED) != (s.SeedSize > 0) {
				t.Errorf("%s: the seed is there: %v", name, a.Has(p11.CKA_SEED))
			}
			back := tokentest.Object(t, a)
			if s.CiphertextSize > 0 {
				kem, template := p11.Mechanism{Type: p11.CKM_ML_KEM}, secretTemplate(p11.CKK_AES, 32)
				ciphertext, one, err := c.EncapsulateKey(t.Context(), kem, pub, template)
				if err != nil {
					t.Fatal(err)
				}
				two, err := c.DecapsulateKey(t.Context(), kem, back, ciphertext, template)
				if err != nil || !bytes.Equal(value(t, one, p11.CKA_VALUE), value(t, two, p11.CKA_VALUE)) {
					t.Errorf("%s: another secret, %v", name, err)
				}
				continue
			}
			sign := p11.Mechanism{Type: map[p11.KeyType]p11.MechanismType{p11.CKK_ML_DSA: p11.CKM_ML_DSA, p11.CKK_SLH_DSA: p11.CKM_SLH_DSA}[s.KeyType]}
			sig, err := signAll(c, sign, back, []byte("data"))
			if err != nil {
				t.Fatal(err)
			}
			if err := verifyAll(c, sign, pub, []byte("data"), sig); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := c.UnwrapKey(t.Context(), p11.Mechanism{Type: p11.CKM_AES_KEY_WRAP_KWP}, under, make([]byte, 24), privateTemplate(s.KeyType)); err == nil {
			t.Errorf("%s: zeros are a wrapped key", name)
		}
	}
}

// A private key tells its public half.
func TestPQCPublicHalf(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	for _, name := range []string{"ml-dsa-65", "slh-dsa-sha2-128f", "ml-kem-768"} {
		pub, priv := pqcPair(t, c, name)
		half, err := c.DeriveKey(t.Context(), p11.Mechanism{Type: p11.CKM_PUB_KEY_FROM_PRIV_KEY}, priv, p11.Attributes{
			{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_PUBLIC_KEY)},
		})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		whole, err := pub.Acquire()
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []p11.AttributeType{p11.CKA_KEY_TYPE, p11.CKA_PARAMETER_SET, p11.CKA_VALUE} {
			if !bytes.Equal(value(t, half, at), value(t, whole, at)) {
				t.Errorf("%s: another %s", name, at.Short())
			}
		}
		if half.Has(p11.CKA_SEED) {
			t.Errorf("%s: the half has a seed", name)
		}
		pub.Release()
	}
}
