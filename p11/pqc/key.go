package pqc

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"

	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"
	"github.com/cloudflare/circl/sign/slhdsa"

	"p11fs/secret"
)

// A Pair is a key pair in the encodings of the standards.
type Pair struct {
	Seed    []byte // nil where keys have none
	Private []byte
	Public  []byte
}

// Wipe wipes what is secret.
func (p *Pair) Wipe() {
	secret.Wipe(p.Seed)
	secret.Wipe(p.Private)
}

func (s Set) wrongSize(what string, n, want int) error {
	return fmt.Errorf("a %s of %s has %d bytes, not %d", what, s.Name, want, n)
}

// Generate makes a pair of random bytes: FIPS 204 algorithm 1, FIPS 205 algorithm 21,
// FIPS 203 algorithm 19.
func (s Set) Generate(random io.Reader) (Pair, error) {
	if s.Slow() {
		pub, priv, err := slhdsa.GenerateKey(random, s.slh)
		if err != nil {
			return Pair{}, err
		}
		return encoded(nil, priv, pub)
	}
	seed := make([]byte, s.SeedSize)
	if _, err := io.ReadFull(random, seed); err != nil {
		return Pair{}, err
	}
	return s.Expand(seed)
}

// Expand makes the pair of a seed of SeedSize bytes, which becomes the pair's: FIPS 204
// algorithm 6, FIPS 203 algorithm 16.
func (s Set) Expand(seed []byte) (Pair, error) {
	switch {
	case s.SeedSize == 0:
		return Pair{}, fmt.Errorf("keys of %s have no seed", s.Name)
	case len(seed) != s.SeedSize:
		return Pair{}, s.wrongSize("seed", len(seed), s.SeedSize)
	case s.kem != nil:
		pub, priv := s.kem.DeriveKeyPair(seed)
		return encoded(seed, priv, pub)
	}
	pub, priv := s.sign.DeriveKey(seed)
	defer forget(priv)
	return encoded(seed, priv, pub)
}

func encoded(seed []byte, priv, pub encoding.BinaryMarshaler) (p Pair, err error) {
	p.Seed = seed
	if p.Private, err = priv.MarshalBinary(); err == nil {
		p.Public, err = pub.MarshalBinary()
	}
	return p, err
}

// Public returns the public key of a private one of PrivateSize bytes, which it takes for
// good: see Check.
func (s Set) Public(private []byte) ([]byte, error) {
	n := len(private)
	switch {
	case n != s.PrivateSize:
		return nil, s.wrongSize("private key", n, s.PrivateSize)
	case s.Slow(): // FIPS 205 §9.1: PK.seed and PK.root are its end
		return bytes.Clone(private[n-s.PublicSize:]), nil
	case s.kem != nil: // FIPS 203 algorithm 16: behind it are its hash and z
		return bytes.Clone(private[n-64-s.PublicSize : n-64]), nil
	}
	k, err := s.sign.UnmarshalBinaryPrivateKey(private)
	if err != nil {
		return nil, err
	}
	defer forget(k)
	return k.Public().(encoding.BinaryMarshaler).MarshalBinary()
}

// forget wipes an ML-DSA key of the library's.
func forget(key any) {
	switch key := key.(type) {
	case *mldsa44.PrivateKey:
		*key = mldsa44.PrivateKey{}
	case *mldsa65.PrivateKey:
		*key = mldsa65.PrivateKey{}
	case *mldsa87.PrivateKey:
		*key = mldsa87.PrivateKey{}
	}
}

// Check says whether bytes that came from elsewhere are a private key whose parts belong
// together, and returns its public key. For SLH-DSA that takes as long as making a key.
func (s Set) Check(private []byte) (public []byte, err error) {
	if public, err = s.Public(private); err != nil {
		return nil, err
	}
	switch {
	case s.Slow():
		// The root of the tree follows from the rest.
		pub, _, err := slhdsa.GenerateKey(bytes.NewReader(private), s.slh)
		if err != nil {
			return nil, err
		}
		if own, err := pub.MarshalBinary(); err != nil || !bytes.Equal(own, public) {
			return nil, errParts
		}
		return public, nil
	case s.eta != 0 && !s.inRange(private):
		return nil, errParts
	}
	return public, s.test(private, public)
}

var errParts = errors.New("the parts of the private key do not belong together")

// The lengths in bytes of what an encoding of ML-DSA consists of (FIPS 204 §7.2): ρ, K and
// tr, and a polynomial of t0 and of t1.
const (
	head = 32 + 32 + 64
	t0   = 13 * 256 / 8
	t1   = 10 * 256 / 8
)

// rows is k of FIPS 204 §4.
func (s Set) rows() int { return (s.PublicSize - 32) / t1 }

// etaBits is the length of a coefficient of s1 and s2.
func (s Set) etaBits() int {
	if s.eta == 4 {
		return 4
	}
	return 3
}

// Parts are the lengths in bytes of s1, s2 and t0 in a private key of ML-DSA, which begins
// with ρ, K and tr of 32, 32 and 64 bytes.
func (s Set) Parts() (s1, s2, tail int) {
	s2, tail = s.rows()*32*s.etaBits(), s.rows()*t0
	return s.PrivateSize - head - s2 - tail, s2, tail
}

// inRange says whether the coefficients of s1 and s2 are in their range: FIPS 204
// algorithm 25 is for those alone.
func (s Set) inRange(private []byte) bool {
	k := s.rows()
	packed := private[head : len(private)-k*t0]
	bits := s.etaBits()
	var bad, window int
	for have := 0; len(packed) > 0 || have >= bits; {
		if have < bits {
			window |= int(packed[0]) << have
			packed, have = packed[1:], have+8
		}
		bad |= 2*s.eta - window&(1<<bits-1)
		window, have = window>>bits, have-bits
	}
	return bad >= 0
}

// test has the halves of a pair do their work on each other.
func (s Set) test(private, public []byte) error {
	priv, err := s.NewPrivateKey(private)
	if err != nil {
		return err
	}
	pub, err := s.NewPublicKey(public)
	if err != nil {
		return err
	}
	if s.kem != nil {
		ciphertext, one, err := pub.Encapsulate()
		if err != nil {
			return err
		}
		defer secret.Wipe(one)
		other, err := priv.Decapsulate(ciphertext)
		defer secret.Wipe(other)
		if err != nil || !bytes.Equal(one, other) {
			return errParts
		}
		return nil
	}
	m := Pure(nil, nil)
	signature, err := priv.Sign(m, nil)
	if err != nil || !pub.Verify(m, signature) {
		return errParts
	}
	return nil
}
