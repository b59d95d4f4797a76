package swtok

import (
	"bytes"
	"encoding/hex"
	"os"
	"slices"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

// A nistLine is a line of testdata/nist.txt.
type nistLine struct {
	source, do    string
	m             p11.Mechanism
	kt            p11.KeyType
	key, in, want []byte
}

func nistLines(t *testing.T) (list []nistLine) {
	t.Helper()
	text, err := os.ReadFile("testdata/nist.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] == "#" {
			continue
		}
		if len(f) != 7 {
			t.Fatalf("%q has %d words", line, len(f))
		}
		l := nistLine{source: f[0], do: f[1], m: parsed(t, f[2])}
		if f[3] != "-" {
			if l.kt, err = p11.ParseKeyType(f[3]); err != nil {
				t.Fatal(err)
			}
		}
		for i, at := range []*[]byte{&l.key, &l.in, &l.want} {
			if *at, err = hex.DecodeString(strings.TrimPrefix(f[4+i], "-")); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
		}
		list = append(list, l)
	}
	return list
}

// TestNIST has each provider do what NIST knows the answers of.
func TestNIST(t *testing.T) {
	for _, l := range nistLines(t) {
		t.Run(l.m.Type.Short()+" "+l.source, func(t *testing.T) {
			eachProvider(t, func(t *testing.T, c *Crypto) {
				if !lacks(c, l.m.Type) {
					l.run(t, c)
				}
			})
		})
	}
}

func (l *nistLine) run(t *testing.T, c *Crypto) {
	var key *tokens.Object
	if l.kt != 0 || l.key != nil {
		key = tokentest.Secret(t, l.kt, l.key)
	}
	var got []byte
	var err error
	switch l.do {
	case "digest":
		var d tokentest.Digest
		if d, err = c.Digest(t.Context(), l.m); err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if err = d.Update(l.in); err == nil {
			got, err = d.Final()
		}
	case "sign":
		if got, err = signAll(c, l.m, key, l.in); err == nil {
			err = verifyAll(c, l.m, key, l.in, l.want)
		}
	case "encrypt":
		if got, err = encryptAll(c, l.m, key, l.in); err == nil {
			var back []byte
			if back, err = decryptAll(c, l.m, key, l.want); !bytes.Equal(back, l.in) {
				t.Errorf("decrypts to %x", back)
			}
		}
	case "derive":
		var values [][]byte
		if values, err = derivedValues(t, c, l.m, key, uint64(len(l.want))); err == nil {
			got = values[0]
		}
	default:
		t.Fatalf("nobody knows how to %s", l.do)
	}
	if err != nil || !bytes.Equal(got, l.want) {
		t.Errorf("%x, %v, want %x", got, err, l.want)
	}
}

// TestNISTFamilies fails on a family of mechanisms of which no answer is known: in
// testdata/nist.txt, or in a file that another test reads.
func TestNISTFamilies(t *testing.T) {
	lines := nistLines(t)
	for _, family := range []struct {
		name       string
		mechanisms []p11.MechanismType // each is in nist.txt
		file       string              // or it has lines that begin so
		begins     []string
	}{
		{name: "DES3", mechanisms: []p11.MechanismType{p11.CKM_DES3_ECB}},
		{name: "CMAC", mechanisms: []p11.MechanismType{p11.CKM_AES_CMAC, p11.CKM_DES3_CMAC}},
		{name: "GMAC", mechanisms: []p11.MechanismType{p11.CKM_AES_GMAC}},
		{name: "XTS", mechanisms: []p11.MechanismType{p11.CKM_AES_XTS}},
		{name: "CCM", mechanisms: []p11.MechanismType{p11.CKM_AES_CCM}},
		{name: "KW and KWP", mechanisms: []p11.MechanismType{p11.CKM_AES_KEY_WRAP, p11.CKM_AES_KEY_WRAP_KWP}},
		{name: "HKDF", mechanisms: []p11.MechanismType{p11.CKM_HKDF_DERIVE}},
		{name: "SHA-3", mechanisms: []p11.MechanismType{p11.CKM_SHA3_224, p11.CKM_SHA3_256, p11.CKM_SHA3_384, p11.CKM_SHA3_512}},
		{name: "SHAKE", mechanisms: []p11.MechanismType{p11.CKM_SHAKE_128_KEY_DERIVATION, p11.CKM_SHAKE_256_KEY_DERIVATION}},
		{name: "SP 800-108", file: "testdata/acvp_kdf.txt", begins: []string{"counter", "feedback", "double-pipeline"}},
		{name: "EdDSA", file: "testdata/rfc8032.txt", begins: []string{"ed25519 pure", "ed25519 ph", "ed448 pure", "ed448 ph"}},
		{name: "ML-DSA", file: "../../p11/pqc/testdata/acvp.jsonl", begins: []string{`{"set":"ml-dsa-44"`, `{"set":"ml-dsa-65"`, `{"set":"ml-dsa-87"`}},
		{name: "SLH-DSA", file: "../../p11/pqc/testdata/acvp.jsonl", begins: []string{`{"set":"slh-dsa-sha2-`, `{"set":"slh-dsa-shake-`}},
		{name: "ML-KEM", file: "../../p11/pqc/testdata/acvp.jsonl", begins: []string{`{"set":"ml-kem-512"`, `{"set":"ml-kem-768"`, `{"set":"ml-kem-1024"`}},
	} {
		for _, m := range family.mechanisms {
			if !slices.ContainsFunc(lines, func(l nistLine) bool { return l.m.Type == m }) {
				t.Errorf("%s: no answer of %s", family.name, m)
			}
		}
		if family.file == "" {
			continue
		}
		text, err := os.ReadFile(family.file)
		if err != nil {
			t.Fatal(err)
		}
		for _, begin := range family.begins {
			if !strings.Contains("\n"+string(text), "\n"+begin) {
				t.Errorf("%s: %s has no %s", family.name, family.file, begin)
			}
		}
	}
}
