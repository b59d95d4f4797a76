package swtok

import (
	"bytes"
	"crypto/cipher"
	"crypto/subtle"

	"p11fs/p11"
)

// ecb is ECB as a BlockMode.
type ecb struct {
	block   cipher.Block
	decrypt bool
}

func (e ecb) BlockSize() int { return aesBlock }

func (e ecb) CryptBlocks(dst, src []byte) {
	for i := 0; i+aesBlock <= len(src); i += aesBlock {
		if e.decrypt {
			e.block.Decrypt(dst[i:i+aesBlock], src[i:i+aesBlock])
		} else {
			e.block.Encrypt(dst[i:i+aesBlock], src[i:i+aesBlock])
		}
	}
}

// aesECB is the family of CKM_AES_ECB.
func aesECB() family {
	return family{wraps: wrapping{block: aesBlock}, uses: aesModes(func(_ call, k *aesKey, decrypt bool) (part, error) {
		block := k.Block()
		return &blockCipher{block: block, mode: ecb{block, decrypt}, decrypt: decrypt}, nil
	})}
}

// aesCBC is the family of CBC, with or without PKCS#7 padding.
func aesCBC(pad bool) family {
	f := family{wraps: wrapping{block: aesBlock}}
	if pad {
		f.wraps = wrapping{private: true}
	}
	f.uses = aesModes(func(u call, k *aesKey, decrypt bool) (part, error) {
		iv, err := param[p11.IV](u)
		if err != nil {
			return nil, err
		}
		b := &blockCipher{block: k.Block(), decrypt: decrypt, pad: pad}
		copy(b.chain[:], iv)
		if decrypt {
			b.mode = k.CBCDecrypter(bytes.Clone(iv))
		} else {
			b.mode = k.CBCEncrypter(bytes.Clone(iv))
		}
		return b, nil
	})
	return f
}

// A blockCipher is ECB, CBC or CBC with PKCS#7 padding, in parts.
type blockCipher struct {
	block   cipher.Block
	mode    cipher.BlockMode
	decrypt bool
	pad     bool
	chain   [aesBlock]byte // the ciphertext block before the held one, or the IV
	held    [aesBlock]byte // the begun block; decrypting padded, the last whole one
	nheld   int
}

// updateSize is the length of the whole blocks that there are with n bytes more.
func (b *blockCipher) updateSize(n int) int {
	total := b.nheld + n
	whole := total &^ (aesBlock - 1)
	if b.pad && b.decrypt && whole == total && whole > 0 {
		whole -= aesBlock // it may be the last, with the padding
	}
	return whole
}

func (b *blockCipher) update(part []byte) ([]byte, error) {
	whole := b.updateSize(len(part))
	if whole == 0 {
		b.nheld += copy(b.held[b.nheld:], part)
		return nil, nil
	}
	out := make([]byte, whole)
	if b.nheld == 0 {
		b.crypt(out, part[:whole])
		b.nheld = copy(b.held[:], part[whole:])
		return out, nil
	}
	n := copy(out, b.held[:b.nheld])
	taken := copy(out[n:], part)
	b.crypt(out, out)
	b.nheld = copy(b.held[:], part[taken:])
	return out, nil
}

// crypt runs the mode over whole blocks, and keeps the last of the ciphertext.
func (b *blockCipher) crypt(dst, src []byte) {
	end := len(src) - aesBlock
	if b.decrypt {
		copy(b.chain[:], src[end:])
	}
	b.mode.CryptBlocks(dst, src)
	if !b.decrypt {
		copy(b.chain[:], dst[end:])
	}
}

func (b *blockCipher) result([]byte) ([]byte, error) {
	switch {
	case !b.pad && b.nheld == 0:
		return nil, nil
	case !b.pad || b.decrypt && b.nheld != aesBlock:
		return nil, p11.Errorf(lenRange(b.decrypt), "the data is not a multiple of 16 bytes")
	case b.decrypt:
		return b.finalUnpad()
	}
	out := make([]byte, aesBlock)
	for i := copy(out, b.held[:b.nheld]); i < aesBlock; i++ {
		out[i] = byte(aesBlock - b.nheld)
	}
	b.last(out)
	return out, nil
}

// last is CBC of the padded block, in place. The mode stays where it is, for the
// message may go on.
func (b *blockCipher) last(padded []byte) {
	if b.decrypt {
		b.block.Decrypt(padded, padded)
		subtle.XORBytes(padded, padded, b.chain[:])
		return
	}
	subtle.XORBytes(padded, padded, b.chain[:])
	b.block.Encrypt(padded, padded)
}

// finalUnpad decrypts the last block and takes the padding off. It looks at
// every byte, whichever is wrong; that the padding was wrong is the
// answer PKCS#11 asks for, CKR_ENCRYPTED_DATA_INVALID.
func (b *blockCipher) finalUnpad() ([]byte, error) {
	last := bytes.Clone(b.held[:])
	b.last(last)
	n := int(last[aesBlock-1])
	good := subtle.ConstantTimeLessOrEq(1, n) & subtle.ConstantTimeLessOrEq(n, aesBlock)
	for i, x := range last {
		inPad := subtle.ConstantTimeLessOrEq(aesBlock-i, n)
		good &= subtle.ConstantTimeSelect(inPad, subtle.ConstantTimeByteEq(x, byte(n)), 1)
	}
	if good != 1 {
		wipe(last)
		return nil, p11.CKR_ENCRYPTED_DATA_INVALID
	}
	return last[:aesBlock-n], nil
}

func (b *blockCipher) close() {
	wipe(b.held[:])
	if m, ok := b.mode.(interface{ Close() }); ok {
		m.Close()
	}
}
