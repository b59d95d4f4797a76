package swtok

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"fmt"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

// An ecAgreer is a private key that agrees on secrets with another's public key, which
// comes as CKA_EC_POINT or bare. An error is about that.
type ecAgreer interface {
	agree(p Provider, public []byte) (secret []byte, err error)
	// pointSize is the length of the bare point that b begins with.
	pointSize(b []byte) int
}

// An ecPeer is a public key that secrets are agreed on with: meet makes a one-time key
// pair, and returns its point and the secret.
type ecPeer interface {
	meet(p Provider) (point, secret []byte, err error)
}

func (k *ecPrivate) agree(p Provider, public []byte) ([]byte, error) {
	point, err := pkix.ECPublic(p, k.curve, public)
	if err != nil {
		return nil, err
	}
	z, err := k.key.ECDH(point)
	switch {
	case held(err):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("no point of %s", k.curve.Name)
	}
	return z, nil
}

func (k *ecPrivate) pointSize(b []byte) int {
	if len(b) > 0 && b[0] == 4 {
		return 1 + 2*k.curve.Size()
	}
	return 1 + k.curve.Size()
}

func (k *ecPublic) meet(p Provider) (point, secret []byte, err error) {
	scalar, point, err := p.GenerateEC(k.curve)
	if err != nil {
		return nil, nil, err
	}
	defer wipe(scalar)
	once, err := p.NewECPrivateKey(k.curve, scalar, point)
	if err != nil {
		return nil, nil, err
	}
	secret, err = once.ECDH(k.point)
	return point, secret, err
}

// ecdh1 is the family of CKM_ECDH1_DERIVE (PKCS#11 v3.1 §6.3.17). With cofactor 1,
// which all curves here have, CKM_ECDH1_COFACTOR_DERIVE is the same.
//
// As encapsulation (PKCS#11 v3.2 §5.18.8) the ciphertext is the bare point of a one-time
// key, and the parameter has no public value.
func ecdh1() family {
	return family{
		derive: func(u call, base any, kt p11.KeyType, n int) ([]byte, error) {
			p, s, err := ecdh1Param(u)
			if err != nil {
				return nil, err
			}
			k, err := keyOf[ecAgreer](base)
			if err != nil {
				return nil, err
			}
			z, err := k.agree(u.provider, p.PublicData)
			switch {
			case held(err):
				return nil, err
			case err != nil:
				return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "public: %v", err)
			}
			defer wipe(z)
			return s.key(z, n, kt)
		},
		encapsulate: func(u call, public any, kt p11.KeyType, n int) (ciphertext, value []byte, err error) {
			_, s, err := ecdh1Param(u)
			if err != nil {
				return nil, nil, err
			}
			k, err := keyOf[ecPeer](public)
			if err != nil {
				return nil, nil, err
			}
			point, z, err := k.meet(u.provider)
			if err != nil {
				return nil, nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "ecdh: %v", err)
			}
			defer wipe(z)
			value, err = s.key(z, n, kt)
			return point, value, err
		},
		decapsulate: func(u call, private any, ciphertext []byte, kt p11.KeyType, n int) ([]byte, error) {
			_, s, err := ecdh1Param(u)
			if err != nil {
				return nil, err
			}
			k, err := keyOf[ecAgreer](private)
			if err != nil {
				return nil, err
			}
			if size := k.pointSize(ciphertext); len(ciphertext) != size {
				return nil, p11.Errorf(p11.CKR_WRAPPED_KEY_LEN_RANGE, "the ciphertext has %d bytes, not %d", len(ciphertext), size)
			}
			z, err := k.agree(u.provider, ciphertext)
			switch {
			case held(err):
				return nil, err
			case err != nil:
				return nil, p11.CKR_WRAPPED_KEY_INVALID
			}
			defer wipe(z)
			return s.key(z, n, kt)
		},
	}
}

func ecdh1Param(u call) (*p11.ECDH1Params, stretcher, error) {
	p, err := param[*p11.ECDH1Params](u)
	if err != nil {
		return nil, stretcher{}, err
	}
	s, err := stretcherOf(p.KDF, p.SharedData)
	return p, s, err
}

// A stretcher is a key derivation function of PKCS#11 v3.1 §6.3.16: without a hash the
// removal of bytes from the leading end, with one ANSI X9.63 (SEC 1 §3.6.1), or, with the
// counter in front, the one-step derivation of NIST SP 800-56C rev. 2 §4.
type stretcher struct {
	hash         crypto.Hash
	counterFirst bool
	shared       []byte
}

func stretcherOf(kdf p11.KDF, shared []byte) (stretcher, error) {
	kdf = plainKDF(kdf)
	h, _ := p11.HashOf(kdf.HashOf())
	switch {
	case kdf != p11.CKD_NULL && h.Go == 0:
		return stretcher{}, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "the key derivation function %s is not supported", kdf)
	case kdf == p11.CKD_NULL && len(shared) > 0:
		return stretcher{}, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "shared= needs a kdf=")
	}
	return stretcher{h.Go, kdf == h.SP800, bytes.Clone(shared)}, nil
}

// plainKDF is the key derivation function of the standard for one of openCryptoki's, which
// says that what it makes goes into a hybrid secret, and does the same.
func plainKDF(kdf p11.KDF) p11.KDF {
	switch kdf {
	case p11.CKD_IBM_HYBRID_NULL:
		return p11.CKD_NULL
	case p11.CKD_IBM_HYBRID_SHA1_KDF:
		return p11.CKD_SHA1_KDF
	case p11.CKD_IBM_HYBRID_SHA224_KDF:
		return p11.CKD_SHA224_KDF
	case p11.CKD_IBM_HYBRID_SHA256_KDF:
		return p11.CKD_SHA256_KDF
	case p11.CKD_IBM_HYBRID_SHA384_KDF:
		return p11.CKD_SHA384_KDF
	case p11.CKD_IBM_HYBRID_SHA512_KDF:
		return p11.CKD_SHA512_KDF
	}
	return kdf
}

// key makes the key of n bytes, or of the natural length if n is negative, from the
// shared secret.
func (s stretcher) key(z []byte, n int, kt p11.KeyType) ([]byte, error) {
	natural := len(z)
	if s.hash != 0 {
		natural = s.hash.Size()
	}
	if n < 0 {
		if !p11.FitsKey(kt, uint64(natural)) {
			return nil, p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the template needs value-len")
		}
		n = natural
	}
	if s.hash == 0 {
		if n > len(z) {
			return nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "the shared secret has %d bytes, fewer than value-len", len(z))
		}
		return bytes.Clone(z[len(z)-n:]), nil
	}
	out := make([]byte, 0, n+s.hash.Size())
	d := s.hash.New()
	var counter [4]byte
	for i := uint32(1); len(out) < n; i++ {
		d.Reset()
		binary.BigEndian.PutUint32(counter[:], i)
		if s.counterFirst {
			d.Write(counter[:])
		}
		d.Write(z)
		if !s.counterFirst {
			d.Write(counter[:])
		}
		d.Write(s.shared)
		out = d.Sum(out)
	}
	wipe(out[n:])
	return out[:n:n], nil
}
