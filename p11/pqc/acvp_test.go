package pqc

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"p11fs/p11"
)

type octets []byte

func (o *octets) UnmarshalText(text []byte) (err error) {
	*o, err = hex.DecodeString(string(text))
	return err
}

// A vector is a line of a file in testdata.
type vector struct {
	Set, Do, Hash                                      string
	TC                                                 int
	Seed, Private, Public, Message, Context, Signature octets
	Random, Ciphertext, Secret                         octets
	External, Good                                     bool
}

func vectors(t *testing.T, file string) (list []vector) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var v vector
		if err := json.Unmarshal(in.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		list = append(list, v)
	}
	if err := in.Err(); err != nil || len(list) == 0 {
		t.Fatalf("%d vectors, %v", len(list), err)
	}
	return list
}

// message is what the vector signs.
func (v vector) message(t *testing.T) Message {
	t.Helper()
	switch {
	case !v.External:
		return Message{nil, v.Message}
	case v.Hash == "":
		return Pure(v.Context, v.Message)
	case v.Hash == "shake128":
		return Prehashed(v.Context, oid(t, "2.16.840.1.101.3.4.2.11"), sha3.SumSHAKE128(v.Message, 32))
	case v.Hash == "shake256":
		return Prehashed(v.Context, oid(t, "2.16.840.1.101.3.4.2.12"), sha3.SumSHAKE256(v.Message, 64))
	}
	m, err := p11.ParseMechanismType(v.Hash)
	h, ok := p11.HashOf(m)
	if err != nil || !ok || h.Go == crypto.Hash(0) {
		t.Fatalf("no hash %s: %v", v.Hash, err)
	}
	d := h.Go.New()
	d.Write(v.Message)
	return Prehashed(v.Context, oid(t, h.OID), d.Sum(nil))
}

func oid(t *testing.T, s string) (id asn1.ObjectIdentifier) {
	for part := range strings.SplitSeq(s, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			t.Fatal(err)
		}
		id = append(id, n)
	}
	return id
}

// same says whether b is the bytes of which want is the hash.
func same(b, want []byte) bool {
	sum := sha256.Sum256(b)
	return bytes.Equal(sum[:], want)
}

func TestVectors(t *testing.T) {
	seen := make(map[string]int)
	for _, file := range []string{"testdata/acvp.jsonl", "testdata/openssl.jsonl", "testdata/gmsm.jsonl"} {
		for _, v := range vectors(t, file) {
			s, ok := SetNamed(v.Set)
			if !ok {
				t.Fatalf("no set %s", v.Set)
			}
			t.Run(file+"/"+v.Set+"/"+v.Do+"/"+strconv.Itoa(v.TC), func(t *testing.T) {
				t.Parallel()
				v.run(t, s)
			})
			seen[v.Set]++
		}
	}
	for _, s := range Sets() {
		if seen[s.Name] < 1 {
			t.Errorf("%d vectors for %s", seen[s.Name], s.Name)
		}
	}
}

func (v vector) run(t *testing.T, s Set) {
	switch v.Do {
	case "keygen":
		p, err := s.Generate(bytes.NewReader(v.Seed))
		if err != nil || !same(p.Public, v.Public) || !same(p.Private, v.Private) {
			t.Errorf("another key pair, or %v", err)
		}
	case "sign":
		v.sign(t, s)
	case "verify":
		k, err := s.NewPublicKey(v.Public)
		if err != nil {
			t.Fatal(err)
		}
		if got := k.Verify(v.message(t), v.Signature); got != v.Good {
			t.Errorf("the verdict is %v", got)
		}
	case "decapsulate":
		if v.Private == nil {
			p, err := s.Expand(v.Seed)
			if err != nil {
				t.Fatal(err)
			}
			v.Private = p.Private
		}
		k, err := s.NewPrivateKey(v.Private)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := k.Decapsulate(v.Ciphertext); err != nil || !bytes.Equal(got, v.Secret) {
			t.Errorf("another secret, or %v", err)
		}
	default:
		t.Fatal("what is it to do?")
	}
}

func (v vector) sign(t *testing.T, s Set) {
	if testing.Short() && s.Slow() && strings.HasSuffix(s.Name, "s") {
		t.Skip("takes seconds")
	}
	k, err := s.NewPrivateKey(v.Private)
	if err != nil {
		t.Fatal(err)
	}
	var random io.Reader
	if len(v.Random) > 0 {
		// What is read behind the vector's bytes is not used.
		random = io.MultiReader(bytes.NewReader(v.Random), bytes.NewReader(make([]byte, 32)))
	}
	sig, err := k.Sign(v.message(t), random)
	if err != nil || !same(sig, v.Signature) {
		t.Errorf("another signature, or %v", err)
	}
	public, err := s.Public(v.Private)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := s.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	if !pub.Verify(v.message(t), sig) {
		t.Error("its signature is none")
	}
	sig[len(sig)/2] ^= 1
	if pub.Verify(v.message(t), sig) || pub.Verify(v.message(t), sig[1:]) || pub.Verify(v.message(t), nil) {
		t.Error("a damaged signature is one")
	}
}
