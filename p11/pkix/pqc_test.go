package pkix_test

import (
	"bytes"
	"crypto/rand"
	"encoding/asn1"
	"slices"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/p11/pqc"
)

// What OpenSSL 3.5 writes is read: a private key that is a seed makes both keys, and the
// public one is that of its own file.
func TestPQCOfOpenSSL(t *testing.T) {
	for _, name := range []string{"ml-dsa-65", "ml-kem-768", "slh-dsa-sha2-128f"} {
		t.Run(name, func(t *testing.T) {
			s, _ := pqc.SetNamed(name)
			both, err := pkix.Parse(pkix.Auto, readFile(t, name+".pem"), options(t, ""))
			if err != nil || len(both) != 2 {
				t.Fatalf("%d objects, %v", len(both), err)
			}
			alone, err := pkix.Parse(pkix.Auto, readFile(t, name+".pub.pem"), options(t, ""))
			if err != nil || len(alone) != 1 {
				t.Fatalf("%d objects, %v", len(alone), err)
			}
			for _, a := range slices.Concat(both, alone) {
				kt, _ := a.KeyType()
				n, _ := a.Ulong(p11.CKA_PARAMETER_SET)
				if kt != s.KeyType || n != s.Number {
					t.Errorf("type %s, set %d", kt, n)
				}
				if err := pkix.Complete(&a); err != nil {
					t.Fatal(err)
				}
				out, err := pkix.PublicPEM(a)
				if err != nil || !bytes.Equal(out, readFile(t, name+".pub.pem")) {
					t.Errorf("the public key prints as %s, %v", out, err)
				}
				if _, err := pkix.PublicSSH(a, "x"); p11.RVOf(err) != p11.CKR_KEY_TYPE_INCONSISTENT {
					t.Errorf("SSH: %v", err)
				}
			}
			id, _ := both[0].Get(p11.CKA_ID)
			if other, _ := alone[0].Get(p11.CKA_ID); !bytes.Equal(id, other) || len(id) == 0 {
				t.Errorf("ids %x and %x", id, other)
			}
		})
	}
}

// pqcKeys are a private key of each type.
func pqcKeys(t *testing.T) map[string]p11.Attributes {
	t.Helper()
	keys := make(map[string]p11.Attributes)
	for _, name := range []string{"ml-dsa-44", "slh-dsa-shake-128f", "ml-kem-512"} {
		s, _ := pqc.SetNamed(name)
		p, err := s.Generate(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		a := p11.Attributes{
			{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_PRIVATE_KEY)},
			{Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(s.KeyType)},
			{Type: p11.CKA_PARAMETER_SET, Value: p11.Ulong(s.Number)},
			{Type: p11.CKA_VALUE, Value: p.Private},
		}
		if p.Seed != nil {
			a.Set(p11.CKA_SEED, p.Seed)
		}
		keys[name] = a
	}
	return keys
}

// The three forms of a private key are one key, and it comes back as it was written.
func TestPQCForms(t *testing.T) {
	for name, a := range pqcKeys(t) {
		t.Run(name, func(t *testing.T) {
			value, _ := a.Get(p11.CKA_VALUE)
			seed, hasSeed := a.Get(p11.CKA_SEED)
			der, err := pkix.EncodePrivateKey(a)
			if err != nil {
				t.Fatal(err)
			}
			back, err := pkix.DecodePrivateKey(der)
			if err != nil {
				t.Fatal(err)
			}
			if v, _ := back.Get(p11.CKA_VALUE); !bytes.Equal(v, value) {
				t.Error("another value comes back")
			}
			if v, _ := back.Get(p11.CKA_SEED); !bytes.Equal(v, seed) {
				t.Error("another seed comes back")
			}
			if !hasSeed {
				return
			}
			alone := a.Clone()
			alone.Delete(p11.CKA_SEED)
			der, err = pkix.EncodePrivateKey(alone)
			if err != nil {
				t.Fatal(err)
			}
			back, err = pkix.DecodePrivateKey(der)
			if v, _ := back.Get(p11.CKA_VALUE); err != nil || !bytes.Equal(v, value) || back.Has(p11.CKA_SEED) {
				t.Errorf("the expanded form is not read: %v", err)
			}
		})
	}
}

// Complete makes of a seed what is not given, and refuses what does not belong together.
func TestPQCComplete(t *testing.T) {
	for name, a := range pqcKeys(t) {
		t.Run(name, func(t *testing.T) {
			value, _ := a.Get(p11.CKA_VALUE)
			full := a.Clone()
			if err := pkix.Complete(&full); err != nil {
				t.Fatal(err)
			}
			info, _ := full.Get(p11.CKA_PUBLIC_KEY_INFO)
			_, hasSeed := a.Get(p11.CKA_SEED)
			if hasSeed {
				seed := a.Clone()
				seed.Delete(p11.CKA_VALUE)
				if err := pkix.Complete(&seed); err != nil {
					t.Fatal(err)
				}
				if v, _ := seed.Get(p11.CKA_VALUE); !bytes.Equal(v, value) {
					t.Error("the seed makes another key")
				}
				if v, _ := seed.Get(p11.CKA_PUBLIC_KEY_INFO); !bytes.Equal(v, info) {
					t.Error("the seed makes another public key")
				}
			}
			damaged := bytes.Clone(value)
			damaged[len(damaged)-1] ^= 1
			for what, test := range map[string]struct {
				change func(*p11.Attributes)
				want   p11.RV
			}{
				"no set":             {func(a *p11.Attributes) { a.Delete(p11.CKA_PARAMETER_SET) }, p11.CKR_TEMPLATE_INCOMPLETE},
				"a set that is none": {func(a *p11.Attributes) { a.SetUlong(p11.CKA_PARAMETER_SET, 77) }, p11.CKR_PARAMETER_SET_NOT_SUPPORTED},
				"another set":        {func(a *p11.Attributes) { a.SetUlong(p11.CKA_PARAMETER_SET, 2) }, p11.CKR_ATTRIBUTE_VALUE_INVALID},
				"no value": {func(a *p11.Attributes) {
					a.Delete(p11.CKA_VALUE)
					a.Delete(p11.CKA_SEED)
				}, p11.CKR_TEMPLATE_INCOMPLETE},
				"another value": {func(a *p11.Attributes) { a.Set(p11.CKA_VALUE, damaged) }, p11.CKR_ATTRIBUTE_VALUE_INVALID},
				"a short value": {func(a *p11.Attributes) { a.Set(p11.CKA_VALUE, value[1:]) }, p11.CKR_ATTRIBUTE_VALUE_INVALID},
				"another info":  {func(a *p11.Attributes) { a.Set(p11.CKA_PUBLIC_KEY_INFO, info[1:]) }, p11.CKR_ATTRIBUTE_VALUE_INVALID},
			} {
				wrong := a.Clone()
				test.change(&wrong)
				if err := pkix.Complete(&wrong); p11.RVOf(err) != test.want {
					t.Errorf("%s: %v, want %v", what, err, test.want)
				}
			}
		})
	}
}

// What is not quite a PrivateKeyInfo of RFC 9881, RFC 9909 or RFC 9935 is none.
func TestPQCHostile(t *testing.T) {
	type info struct {
		Version int
		Alg     alg
		Key     []byte
	}
	s, _ := pqc.SetNamed("ml-dsa-44")
	p, err := s.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	octets := func(b []byte) []byte { return marshal(t, b) }
	pair := func(seed, value []byte) []byte { return marshal(t, struct{ Seed, Value []byte }{seed, value}) }
	tagged := func(b []byte) []byte {
		return marshal(t, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, Bytes: b})
	}
	null := asn1.RawValue{FullBytes: []byte{5, 0}}
	other := bytes.Clone(p.Seed)
	other[0] ^= 1
	for name, test := range map[string]struct {
		alg  alg
		key  []byte
		good bool
	}{
		"seed":                {alg{OID: oid(s.OID)}, tagged(p.Seed), true},
		"expanded":            {alg{OID: oid(s.OID)}, octets(p.Private), true},
		"both":                {alg{OID: oid(s.OID)}, pair(p.Seed, p.Private), true},
		"with parameters":     {alg{oid(s.OID), null}, tagged(p.Seed), false},
		"another set":         {alg{OID: oid("2.16.840.1.101.3.4.3.18")}, octets(p.Private), false},
		"no such set":         {alg{OID: oid("2.16.840.1.101.3.4.3.16")}, octets(p.Private), false},
		"bare":                {alg{OID: oid(s.OID)}, p.Private, false},
		"empty":               {alg{OID: oid(s.OID)}, nil, false},
		"short seed":          {alg{OID: oid(s.OID)}, tagged(p.Seed[1:]), false},
		"empty seed":          {alg{OID: oid(s.OID)}, tagged(nil), false},
		"empty value":         {alg{OID: oid(s.OID)}, octets(nil), false},
		"seed as the value":   {alg{OID: oid(s.OID)}, octets(p.Seed), false},
		"two that do not fit": {alg{OID: oid(s.OID)}, pair(other, p.Private), false},
		"one of two":          {alg{OID: oid(s.OID)}, marshal(t, struct{ Seed []byte }{p.Seed}), false},
		"more behind":         {alg{OID: oid(s.OID)}, append(tagged(p.Seed), 0), false},
	} {
		der := marshal(t, info{0, test.alg, test.key})
		a, err := pkix.DecodePrivateKey(der)
		if v, _ := a.Get(p11.CKA_VALUE); test.good != (err == nil) || test.good && !bytes.Equal(v, p.Private) {
			t.Errorf("%s: %v", name, err)
		}
		if !test.good && p11.RVOf(err) != p11.CKR_DATA_INVALID {
			t.Errorf("%s: %v", name, err)
		}
	}
}
