package swtok

import (
	"bytes"
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/subtle"
	"hash"
	"slices"

	"p11fs/p11"
)

// SSL 3.0 (RFC 6101), TLS 1.0 and 1.1 (RFC 2246, 4346) and TLS 1.2 (RFC 5246) as PKCS#11
// v3.1 §6.39 and §6.40 have them.

const masterSize = p11.MasterSecretLen

// A prf makes n bytes of a secret, a label and a seed.
type prf func(secret, label, seed []byte, n int) []byte

// pHash is P_hash of RFC 5246 §5 and RFC 2246 §5.
func pHash(h crypto.Hash, secret, seed []byte, n int) []byte {
	m := hmac.New(h.New, secret)
	sum := func(parts ...[]byte) []byte {
		m.Reset()
		for _, p := range parts {
			m.Write(p)
		}
		return m.Sum(nil)
	}
	out := make([]byte, 0, n+h.Size())
	for a := sum(seed); len(out) < n; a = sum(a) {
		out = append(out, sum(a, seed)...)
	}
	wipe(out[n:])
	return out[:n:n]
}

// tls12PRF is the function of TLS 1.2 over a hash.
func tls12PRF(h crypto.Hash) prf {
	return func(secret, label, seed []byte, n int) []byte {
		return pHash(h, secret, slices.Concat(label, seed), n)
	}
}

// tls10PRF is that of TLS 1.0 and 1.1: MD5 over one half of the secret, SHA-1 over the
// other.
func tls10PRF(secret, label, seed []byte, n int) []byte {
	half := (len(secret) + 1) / 2
	both := slices.Concat(label, seed)
	out, other := pHash(crypto.MD5, secret[:half], both, n), pHash(crypto.SHA1, secret[len(secret)-half:], both, n)
	defer wipe(other)
	subtle.XORBytes(out, out, other)
	return out
}

// ssl3PRF is RFC 6101 §6.1 and §6.2.2, which has no label.
func ssl3PRF(secret, _, seed []byte, n int) []byte {
	var out []byte
	for i := 1; len(out) < n; i++ {
		inner := crypto.SHA1.New()
		inner.Write(bytes.Repeat([]byte{'A' + byte(i-1)}, i))
		inner.Write(secret)
		inner.Write(seed)
		outer := crypto.MD5.New()
		outer.Write(secret)
		outer.Write(inner.Sum(nil))
		out = outer.Sum(out)
	}
	wipe(out[n:])
	return out[:n:n]
}

// prfOf is the function that a parameter names: that of TLS 1.2 over a hash, or
// CKM_TLS_PRF.
func prfOf(m p11.MechanismType) (prf, error) {
	if m == p11.CKM_TLS_PRF {
		return tls10PRF, nil
	}
	h, err := hashOfParam(m)
	return tls12PRF(h), err
}

// A handshake is what a parameter says of one.
type handshake struct {
	prf          prf
	random       p11.TLSRandom
	label        string // of the master secret
	session      []byte // instead of random
	mac, key, iv uint64 // bits
	export       bool
}

// handshakeOf reads the parameter of a derivation of SSL or TLS.
func handshakeOf(u call) (h handshake, err error) {
	h = handshake{label: "master secret"}
	hashed := p11.MechanismType(0)
	switch p := u.m.Param.(type) {
	case *p11.SSL3MasterParams:
		h.random = p.Random
	case *p11.SSL3KeyMatParams:
		h.random, h.mac, h.key, h.iv, h.export = p.Random, p.MACBits, p.KeyBits, p.IVBits, p.Export
	case *p11.TLS12MasterParams:
		h.random, hashed = p.Random, p.Hash
	case *p11.ExtendedMasterParams: // RFC 7627 §4
		h.label, h.session, hashed = "extended master secret", p.SessionHash, p.Hash
	case *p11.TLS12KeyMatParams:
		h.random, h.mac, h.key, h.iv, h.export, hashed = p.Random, p.MACBits, p.KeyBits, p.IVBits, p.Export, p.Hash
	default:
		_, err = param[*p11.SSL3MasterParams](u)
		return h, err
	}
	switch u.m.Type {
	case p11.CKM_SSL3_MASTER_KEY_DERIVE, p11.CKM_SSL3_MASTER_KEY_DERIVE_DH, p11.CKM_SSL3_KEY_AND_MAC_DERIVE:
		h.prf = ssl3PRF
	case p11.CKM_TLS_MASTER_KEY_DERIVE, p11.CKM_TLS_MASTER_KEY_DERIVE_DH, p11.CKM_TLS_KEY_AND_MAC_DERIVE:
		h.prf = tls10PRF
	default:
		h.prf, err = prfOf(hashed)
	}
	return h, err
}

// secretOfSize is the value of a secret key, of exactly n bytes if n is not 0.
func secretOfSize(base any, n int) ([]byte, error) {
	k, err := secretOf(base)
	switch {
	case err != nil:
		return nil, err
	case n != 0 && len(k) != n, len(k) == 0:
		return nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "the mechanism takes a secret of %d bytes, not %d", n, len(k))
	}
	return k, nil
}

// masterDerive is the family that makes a master secret of a premaster secret: of RSA,
// which begins with the client's version, or of another agreement.
func masterDerive(rsa bool) family {
	return family{deriveAll: func(u call, base any, wants []wanted) ([][]byte, []byte, error) {
		h, err := handshakeOf(u)
		if err != nil {
			return nil, nil, err
		}
		size := 0
		if rsa {
			size = masterSize
		}
		k, err := secretOfSize(base, size)
		switch w := wants[0]; {
		case err != nil:
			return nil, nil, err
		case w.n >= 0 && w.n != masterSize:
			return nil, nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "a master secret has %d bytes, not %d", masterSize, w.n)
		}
		seed := h.session
		if seed == nil {
			seed = slices.Concat(h.random.Client, h.random.Server)
		}
		out := []byte{0, 0}
		if rsa {
			copy(out, k)
		}
		return [][]byte{h.prf(k, []byte(h.label), seed, masterSize)}, out, nil
	}}
}

// keyMatDerive is the family that makes the keys of a connection of a master secret, and
// the initialisation vectors of client and server beside them.
func keyMatDerive() family {
	return family{deriveAll: func(u call, base any, wants []wanted) ([][]byte, []byte, error) {
		h, err := handshakeOf(u)
		if err != nil {
			return nil, nil, err
		}
		k, err := secretOfSize(base, masterSize)
		switch {
		case err != nil:
			return nil, nil, err
		case h.export:
			return nil, nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "keys for export, which are weak, are not made")
		case h.mac%8 != 0 || h.key%8 != 0 || h.iv%8 != 0:
			return nil, nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "mac-bits=, key-bits= and iv-bits= are multiples of 8")
		case u.m.Type == p11.CKM_TLS12_KEY_SAFE_DERIVE:
			h.iv = 0 // of which it gives none
		}
		sizes := []int{int(h.mac / 8), int(h.mac / 8), int(h.key / 8), int(h.key / 8)}
		total := int(2*h.mac+2*h.key+2*h.iv) / 8
		for i, w := range wants {
			if w.n > 0 && w.n != sizes[i] {
				return nil, nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "a %s key has %d bytes, and the parameter says %d", w.kt.Short(), w.n, sizes[i])
			}
		}
		block := h.prf(k, []byte("key expansion"), slices.Concat(h.random.Server, h.random.Client), total)
		defer wipe(block)
		var values [][]byte
		rest := block
		for _, n := range sizes {
			values, rest = append(values, bytes.Clone(rest[:n])), rest[n:]
		}
		return values, bytes.Clone(rest), nil
	}}
}

// preMasterMake is the family that makes a premaster secret of RSA: the client's version
// and random bytes.
func preMasterMake() family {
	return family{makes: p11.CKK_GENERIC_SECRET, generate: func(ctx context.Context, u call, a *p11.Attributes) error {
		version, err := param[p11.TLSVersion](u)
		if err != nil {
			return err
		}
		if n, ok := a.Ulong(p11.CKA_VALUE_LEN); ok && n != masterSize {
			return p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "a premaster secret has %d bytes, not %d", masterSize, n)
		}
		value := make([]byte, masterSize)
		if err := u.GenerateRandom(ctx, value); err != nil {
			return err
		}
		copy(value, version)
		*a = withValue(*a, p11.CKK_GENERIC_SECRET, value)
		return nil
	}}
}

// tlsKDF is the family of CKM_TLS12_KDF: exported key material (RFC 5705 §4).
func tlsKDF() family {
	return family{derive: func(u call, base any, _ p11.KeyType, n int) ([]byte, error) {
		p, err := param[*p11.TLSKDFParams](u)
		if err != nil {
			return nil, err
		}
		f, err := prfOf(p.PRF)
		if err != nil {
			return nil, err
		}
		k, err := secretOfSize(base, 0)
		switch {
		case err != nil:
			return nil, err
		case n < 0:
			return nil, errNoLength
		case slices.Contains([]string{"client finished", "server finished", "master secret", "key expansion", "extended master secret"}, string(p.Label)):
			return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "tls-label= is one that TLS itself uses; choose another")
		}
		seed := slices.Concat(p.Random.Client, p.Random.Server)
		if p.Context != nil {
			seed = append(seed, byte(len(p.Context)>>8), byte(len(p.Context)))
			seed = append(seed, p.Context...)
		}
		return f(k, p.Label, seed, n), nil
	}}
}

// maxFinished bounds the data of a Finished message, which is a digest.
const maxFinished = 4096

// tlsMACs is the family of CKM_TLS12_MAC and CKM_TLS_MAC: what a Finished message has.
func tlsMACs() family {
	return family{uses: macUses(func(end func(m message, n int) (part, error)) begin {
		return with(func(u call, k *secretKey) (part, error) {
			p, err := param[*p11.TLSMACParams](u)
			if err != nil {
				return nil, err
			}
			f, err := prfOf(p.PRF)
			if err != nil {
				return nil, err
			}
			label := "server finished"
			if p.Side == 2 {
				label = "client finished"
			}
			return end(message{h: &finished{f, k.value, []byte(label), int(p.Length), nil}}, int(p.Length))
		})
	})}
}

// finished is the MAC of a Finished message, as a hash that keeps its data.
type finished struct {
	prf           prf
	secret, label []byte
	size          int
	data          []byte
}

func (f *finished) Write(b []byte) (int, error) {
	if len(b) > maxFinished-len(f.data) {
		return 0, p11.Errorf(p11.CKR_DATA_LEN_RANGE, "the digest of a handshake is not so long")
	}
	f.data = append(f.data, b...)
	return len(b), nil
}

func (f *finished) Sum(b []byte) []byte {
	return append(b, f.prf(f.secret, f.label, f.data, f.size)...)
}
func (f *finished) Reset()         { f.data = nil }
func (f *finished) Size() int      { return f.size }
func (f *finished) BlockSize() int { return 1 }

// ssl3MACs is the family of the MACs of SSL 3.0, with pads of n bytes (RFC 6101 §5.2.3.1;
// PKCS#11 v3.1 §6.39.6).
func ssl3MACs(h crypto.Hash, n int) family {
	return family{uses: macUses(func(end func(m message, n int) (part, error)) begin {
		return with(func(u call, k *secretKey) (part, error) {
			size, err := u.macSize(0, true)
			if err != nil {
				return nil, err
			}
			m := &ssl3MAC{inner: h.New(), outer: h.New()}
			m.inner.Write(k.value)
			m.inner.Write(bytes.Repeat([]byte{0x36}, n))
			m.outer.Write(k.value)
			m.outer.Write(bytes.Repeat([]byte{0x5c}, n))
			return end(message{h: m}, size)
		})
	})}
}

// ssl3MAC is the MAC of a message. Its outer hash has the secret and the pad.
type ssl3MAC struct{ inner, outer hash.Hash }

func (m *ssl3MAC) Write(b []byte) (int, error) { return m.inner.Write(b) }

func (m *ssl3MAC) Sum(b []byte) []byte {
	outer, err := m.outer.(hash.Cloner).Clone()
	if err != nil {
		panic(err) // MD5 and SHA-1 have a clone
	}
	outer.Write(m.inner.Sum(nil))
	return outer.Sum(b)
}

func (m *ssl3MAC) Reset()         { m.inner.Reset(); m.outer.Reset() }
func (m *ssl3MAC) Size() int      { return m.inner.Size() }
func (m *ssl3MAC) BlockSize() int { return m.inner.BlockSize() }
