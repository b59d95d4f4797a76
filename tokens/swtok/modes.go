package swtok

import (
	"bytes"
	"crypto/cipher"
	"crypto/subtle"
	"hash"

	"p11fs/p11"
)

// Modes that the provider has whole (NIST SP 800-38A, B, C and E).

// A streamPart is a message under a mode that gives a byte for a byte, and has no end.
type streamPart struct{ Stream }

func (s streamPart) update(into, part []byte) ([]byte, error) {
	if len(part) == 0 {
		return nil, nil
	}
	if c, ok := s.Stream.(crypter); ok {
		out := roomIn(into, len(part))
		return out, failure(c.Crypt(out, part))
	}
	out, err := s.Update(into[:0], part)
	return out, failure(err)
}

// A crypter is a Stream that needs no more room than what it gives: as many bytes of dst,
// which begins where part does or is elsewhere.
type crypter interface {
	Crypt(dst, part []byte) error
}

func (s streamPart) updateSize(n int) int          { return n }
func (s streamPart) result([]byte) ([]byte, error) { return nil, nil }
func (s streamPart) close()                        { s.Close() }

// streamMode is the family of OFB, CFB and the like.
func streamMode(mode string) family {
	return family{
		needs: func(p Provider) bool { return p.HasMode(mode) },
		takes: "the mode " + mode,
		wraps: wrapping{private: true},
		uses: ivModes(func(_ call, k *cipherKey, iv []byte, decrypt bool) (part, error) {
			s, err := k.Mode(mode, iv, !decrypt, ModeOptions{})
			if err != nil {
				return nil, failure(err)
			}
			return streamPart{s}, nil
		}),
	}
}

// wholeMode is the family of a mode that works on a whole message at once, of least to
// most bytes, which keeps its length: XTS and CTS.
func wholeMode(mode string, least, most int) family {
	return family{
		needs: func(p Provider) bool { return p.HasMode(mode) },
		takes: "the mode " + mode,
		wraps: wrapping{private: true},
		uses: ivModes(func(u call, k *cipherKey, iv []byte, decrypt bool) (part, error) {
			iv = bytes.Clone(iv)
			return collected(most, lenRange(decrypt), func(in []byte) ([]byte, error) {
				if len(in) < least {
					return nil, p11.Errorf(lenRange(decrypt), "%s takes at least %d bytes", u.m.Type.Short(), least)
				}
				return k.whole(mode, iv, decrypt, ModeOptions{}, in)
			}), nil
		}),
	}
}

// whole is one message under a mode. A failure of decryption says no more.
func (k *cipherKey) whole(mode string, iv []byte, decrypt bool, o ModeOptions, in []byte) ([]byte, error) {
	s, err := k.Mode(mode, iv, !decrypt, o)
	if err != nil {
		return nil, failure(err)
	}
	defer s.Close()
	out, err := s.Update(nil, in)
	if err == nil {
		out, err = s.Final(out)
	}
	switch {
	case err != nil && decrypt:
		wipe(out)
		return nil, p11.CKR_ENCRYPTED_DATA_INVALID
	case err != nil:
		return nil, failure(err)
	case o.TagBytes == 0:
		return out, nil
	}
	tag, err := s.Tag(o.TagBytes)
	if err != nil {
		return nil, failure(err)
	}
	return append(out, tag...), nil
}

// maxXTS is the longest data unit of XTS, in bytes (IEEE Std 1619 §5.1).
const maxXTS = 1 << 20 * aesBlock

// aesCCM is the family of CKM_AES_CCM: the tag stands behind the ciphertext.
func aesCCM() family {
	return family{
		needs: func(p Provider) bool { return p.HasMode("CCM") },
		takes: "the mode CCM",
		wraps: wrapping{private: true},
		uses: cipherModes(func(u call, k *cipherKey, decrypt bool) (part, error) {
			p, err := param[*p11.CCMParams](u)
			if err != nil {
				return nil, err
			}
			nonce, aad, tag := bytes.Clone(p.Nonce), bytes.Clone(p.AAD), int(p.MACLen)
			most := maxHeld
			if bits := 8 * (15 - len(nonce)); bits < 26 { // what the length has room for (RFC 3610 §2.1)
				most = 1<<bits - 1
			}
			if decrypt {
				most += tag
			}
			return collected(most, lenRange(decrypt), func(in []byte) ([]byte, error) {
				o := ModeOptions{AAD: aad, Length: len(in)}
				if decrypt {
					if len(in) < tag {
						return nil, p11.Errorf(p11.CKR_ENCRYPTED_DATA_LEN_RANGE, "the encrypted data is shorter than its tag")
					}
					o.Length -= tag
					in, o.Tag = in[:o.Length], in[o.Length:]
				} else {
					o.TagBytes = tag
				}
				if n := int(p.DataLen); n != 0 && n != o.Length && n != o.Length+len(o.Tag) {
					return nil, p11.Errorf(lenRange(decrypt), "the data has %d bytes, and the parameter says %d", o.Length, n)
				}
				return k.whole("CCM", nonce, decrypt, o, in)
			}), nil
		}),
	}
}

// macs is a family of MACs of a block cipher, of which n bytes count, or as many as the
// parameter says if general is set.
func macs(n int, general bool, needs func(Provider) bool, start func(u call, k *cipherKey) (hash.Hash, error)) family {
	of := func(end func(m message, n int) (part, error)) begin {
		return with(func(u call, k *cipherKey) (part, error) {
			n, err := u.macSize(n, general)
			if err != nil {
				return nil, err
			}
			h, err := start(u, k)
			if err != nil {
				return nil, err
			}
			return end(message{h: h}, n)
		})
	}
	return family{needs: needs, uses: macUses(of)}
}

// cmacs is the family of CMAC (NIST SP 800-38B).
func cmacs(size int, general bool) family {
	f := macs(size, general, func(p Provider) bool { return p.HasMode("CMAC") },
		func(_ call, k *cipherKey) (hash.Hash, error) {
			h, err := k.CMAC()
			return h, failure(err)
		})
	f.takes = "CMAC"
	return f
}

// gmacs is the family of CKM_AES_GMAC (NIST SP 800-38D): the tag of GCM over data that is
// not encrypted.
func gmacs() family {
	return macs(aesBlock, false, nil, func(u call, k *cipherKey) (hash.Hash, error) {
		iv, err := param[p11.IV](u)
		if err != nil {
			return nil, err
		}
		h, err := k.GMAC(iv)
		return h, failure(err)
	})
}

// cbcMACs is the family of FIPS 113's MAC: the last block of CBC with an IV of zeros,
// over data filled up with zeros. Half of it counts.
func cbcMACs(size int, general bool) family {
	return macs(size/2, general, nil, func(_ call, k *cipherKey) (hash.Hash, error) {
		return &cbcMAC{block: k.Block(), sum: make([]byte, size)}, nil
	})
}

// A cbcMAC is the MAC of a message so far. The last block may be incomplete.
type cbcMAC struct {
	block cipher.Block
	sum   []byte // with what there is of the last block
	n     int    // bytes of that
}

func (c *cbcMAC) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		if c.n == len(c.sum) {
			c.block.Encrypt(c.sum, c.sum)
			c.n = 0
		}
		k := subtle.XORBytes(c.sum[c.n:], c.sum[c.n:], rest)
		c.n += k
		rest = rest[k:]
	}
	return len(b), nil
}

func (c *cbcMAC) Sum(b []byte) []byte {
	out := bytes.Clone(c.sum)
	if c.n > 0 {
		c.block.Encrypt(out, out)
	}
	return append(b, out...)
}

// Clone is hash.Cloner.
func (c *cbcMAC) Clone() (hash.Cloner, error) {
	d := *c
	d.sum = bytes.Clone(c.sum)
	return &d, nil
}

func (c *cbcMAC) Reset()         { wipe(c.sum) }
func (c *cbcMAC) Size() int      { return len(c.sum) }
func (c *cbcMAC) BlockSize() int { return len(c.sum) }
