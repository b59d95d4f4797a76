package swtok

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"p11fs/p11"
	p11pkix "p11fs/p11/pkix"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

var signatures = flag.Int("signatures", 0, "have TestSignatures make this many with each kind of key; 2000 are enough for it to look for short ones")

// A signer is a kind of key whose signatures openssl(1) judges, in certificates.
type signer struct {
	name      string
	pair      func(*testing.T, *Crypto) (pub, priv *tokens.Object)
	m         p11.MechanismType // signs the certificate whole
	algorithm pkix.AlgorithmIdentifier
	dsa       bool // X.509 has r and s as DER
	halves    int  // numbers of one length in the signature
	little    bool // they end in their highest byte
}

func signersOf(c *Crypto) []signer {
	oid := func(text string, null bool) pkix.AlgorithmIdentifier {
		a := pkix.AlgorithmIdentifier{Algorithm: p11pkix.ParseOID(text)}
		if null {
			a.Parameters = asn1.NullRawValue
		}
		return a
	}
	var list []signer
	for _, curve := range curvesOf(c) {
		list = append(list, signer{
			name: curve.Name, m: p11.CKM_ECDSA_SHA256, algorithm: oid("1.2.840.10045.4.3.2", false), dsa: true, halves: 2,
			pair: func(t *testing.T, c *Crypto) (pub, priv *tokens.Object) { return generatedEC(t, c, curve) },
		})
	}
	for name, id := range map[string]string{"edwards25519": "1.3.101.112", "edwards448": "1.3.101.113"} {
		list = append(list, signer{
			name: name, m: p11.CKM_EDDSA, algorithm: oid(id, false), halves: 2, little: true,
			pair: func(t *testing.T, c *Crypto) (pub, priv *tokens.Object) {
				return generatedPair(t, c, p11.CKM_EC_EDWARDS_KEY_PAIR_GEN, p11.Attributes{{Type: p11.CKA_EC_PARAMS, Value: curveNamed(t, name).Params()}})
			},
		})
	}
	for _, bits := range []int{1024, 1030, 2048, 3072, 4096} { // 1030 is no whole number of bytes
		if bits > 2048 && testing.Short() { // primes take seconds to be found
			continue
		}
		list = append(list, signer{
			name: fmt.Sprintf("rsa%d", bits), m: p11.CKM_SHA256_RSA_PKCS, algorithm: oid("1.2.840.113549.1.1.11", true), halves: 1,
			pair: func(t *testing.T, c *Crypto) (pub, priv *tokens.Object) { return generatedRSA(t, c, bits) },
		})
	}
	lengths := [][2]uint64{{0, 0}} // a group that is known
	if *signatures > 0 {           // primes take seconds to be found
		lengths = [][2]uint64{{1024, 160}, {2048, 224}, {2048, 256}, {3072, 256}}
	}
	for _, bits := range lengths {
		list = append(list, signer{
			name: fmt.Sprintf("dsa%d-%d", bits[0], bits[1]), m: p11.CKM_DSA_SHA256, algorithm: oid("2.16.840.1.101.3.4.3.2", false), dsa: true, halves: 2,
			pair: func(t *testing.T, c *Crypto) (pub, priv *tokens.Object) {
				return generatedPair(t, c, p11.CKM_DSA_KEY_PAIR_GEN, dsaGroup(t, bits[0], bits[1]))
			},
		})
	}
	return list
}

// dsaGroup is a group of these lengths; libcrypto is the faster one to find its primes.
func dsaGroup(t *testing.T, prime, subprime uint64) (group p11.Attributes) {
	t.Helper()
	if prime == 0 {
		tokentest.Group(p11.CKK_DSA).Put(&group)
		return group
	}
	all := providers(t)
	params, err := NewCrypto(all[len(all)-1], nil).GenerateKey(t.Context(), p11.Mechanism{Type: p11.CKM_DSA_PARAMETER_GEN}, p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_DOMAIN_PARAMETERS)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(p11.CKK_DSA)},
		{Type: p11.CKA_PRIME_BITS, Value: p11.Ulong(prime)}, {Type: p11.CKA_SUBPRIME_BITS, Value: p11.Ulong(subprime)},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []p11.AttributeType{p11.CKA_PRIME, p11.CKA_SUBPRIME, p11.CKA_BASE} {
		group.Set(at, value(t, params, at))
	}
	return group
}

// TestSignatures makes certificates with every kind of key, which openssl(1) verifies: all
// of a key in one call. There are a few with each key, or as many as -signatures says; of
// 2,000, each half of some is a number that is shorter than it could be.
func TestSignatures(t *testing.T) {
	program, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl")
	}
	eachProvider(t, func(t *testing.T, c *Crypto) {
		for _, s := range signersOf(c) {
			t.Run(s.name, func(t *testing.T) {
				s.certify(t, c, program)
			})
		}
	})
}

// certificate is a TBSCertificate of version 1.
type certificate struct {
	Serial    *big.Int
	Algorithm pkix.AlgorithmIdentifier
	Issuer    pkix.RDNSequence
	Validity  struct{ From, To time.Time }
	Subject   pkix.RDNSequence
	Public    asn1.RawValue
}

func (s *signer) certify(t *testing.T, c *Crypto, program string) {
	pub, priv := s.pair(t, c)
	a, err := pub.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	public, err := p11pkix.PublicPEM(a)
	pub.Release()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(public)
	n := fewSignatures
	if *signatures > 0 {
		n = *signatures
	}
	dir, issuer := t.TempDir(), pkix.Name{CommonName: s.name}.ToRDNSequence()
	tbs := certificate{Algorithm: s.algorithm, Issuer: issuer, Public: asn1.RawValue{FullBytes: block.Bytes}}
	tbs.Validity.From, tbs.Validity.To = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2049, 1, 1, 0, 0, 0, 0, time.UTC)
	short := make([]int, s.halves)
	args := []string{"verify", "-auth_level", "0", "-no-CApath", "-no-CAstore", "-CAfile", "0"}
	// Of 2,000 signatures none may have one half that is short: then some more are made.
	for i := 0; i <= n || n >= 2000 && slices.Min(short) == 0 && i < 10*n; i++ {
		tbs.Serial, tbs.Subject = big.NewInt(int64(i)), issuer
		if i > 0 {
			tbs.Subject = pkix.Name{CommonName: fmt.Sprint(i)}.ToRDNSequence()
			args = append(args, fmt.Sprint(i))
		}
		b := s.certificate(t, c, priv, tbs, short)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if good := strings.Count(string(out), ": OK\n"); err != nil || good < n || good != strings.Count(string(out), "\n") {
		t.Errorf("openssl takes %d of %d signatures: %v\n%.2000s", good, n, err, out)
	}
	if n >= 2000 && slices.Min(short) == 0 {
		t.Errorf("numbers began with a zero %d times", short)
	}
	t.Logf("%d signatures, short ones: %d", strings.Count(string(out), ": OK\n"), short)
}

// certificate signs one, and counts the numbers of the signature that are short.
func (s *signer) certificate(t *testing.T, c *Crypto, priv *tokens.Object, tbs certificate, short []int) []byte {
	t.Helper()
	data, err := asn1.Marshal(tbs)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := signAll(c, p11.Mechanism{Type: s.m}, priv, data)
	if err != nil {
		t.Fatal(err)
	}
	size := len(sig) / s.halves
	for i := range short {
		half := sig[i*size : (i+1)*size]
		if s.little && half[size-1] == 0 || !s.little && half[0] == 0 {
			short[i]++
		}
	}
	if s.dsa {
		if sig, err = p11pkix.ECDSARawToDER(sig); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: data}, s.algorithm, asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}})
	if err != nil {
		t.Fatal(err)
	}
	return whole
}
