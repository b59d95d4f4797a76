package swtok

import (
	"bytes"
	"crypto/cipher"
	"crypto/subtle"

	"p11fs/p11"
)

// ecb is ECB as a BlockMode.
type ecb struct {
	cipher.Block
	decrypt bool
}

func (e ecb) CryptBlocks(dst, src []byte) {
	run := e.Encrypt
	if e.decrypt {
		run = e.Decrypt
	}
	for n := e.BlockSize(); len(src) >= n; dst, src = dst[n:], src[n:] {
		run(dst[:n], src[:n])
	}
}

// ecbMode is the family of ECB, of a cipher with blocks of size bytes.
func ecbMode(size int) family {
	return family{wraps: wrapping{block: size}, uses: cipherModes(func(_ call, k *cipherKey, decrypt bool) (part, error) {
		return newBlockMode(k, ecb{k.Block(), decrypt}, nil, decrypt, false), nil
	})}
}

// cbcMode is the family of CBC.
func cbcMode(size int) family {
	return family{wraps: wrapping{block: size}, uses: cbc(false)}
}

// cbcPad is the family of CBC with PKCS#7 padding.
func cbcPad() family { return family{wraps: wrapping{private: true}, uses: cbc(true)} }

func cbc(pad bool) uses {
	return ivModes(func(_ call, k *cipherKey, iv []byte, decrypt bool) (part, error) {
		begin := k.CBCEncrypter
		if decrypt {
			begin = k.CBCDecrypter
		}
		return newBlockMode(k, begin(iv), iv, decrypt, pad), nil
	})
}

// A blockMode is ECB, CBC or CBC with PKCS#7 padding, in parts.
type blockMode struct {
	block   cipher.Block
	mode    cipher.BlockMode
	decrypt bool
	pad     bool
	size    int    // of a block
	chain   []byte // the ciphertext block before the held one, or the IV
	held    []byte // the begun block; decrypting padded, the last whole one
	nheld   int
	memory  [2 * aesBlock]byte // of chain and held
}

func newBlockMode(k *cipherKey, mode cipher.BlockMode, iv []byte, decrypt, pad bool) *blockMode {
	size := mode.BlockSize()
	b := &blockMode{block: k.Block(), mode: mode, decrypt: decrypt, pad: pad, size: size}
	b.chain, b.held = b.memory[:size], b.memory[aesBlock:][:size]
	copy(b.chain, iv)
	return b
}

// updateSize is the length of the whole blocks that there are with n bytes more.
func (b *blockMode) updateSize(n int) int {
	total := b.nheld + n
	whole := total &^ (b.size - 1)
	if b.pad && b.decrypt && whole == total && whole > 0 {
		whole -= b.size // it may be the last, with the padding
	}
	return whole
}

func (b *blockMode) update(into, part []byte) ([]byte, error) {
	whole := b.updateSize(len(part))
	if whole == 0 {
		b.nheld += copy(b.held[b.nheld:], part)
		return nil, nil
	}
	out := roomIn(into, whole)
	if b.nheld == 0 {
		b.crypt(out, part[:whole])
		b.nheld = copy(b.held, part[whole:])
		return out, nil
	}
	n := copy(out, b.held[:b.nheld])
	taken := copy(out[n:], part)
	b.crypt(out, out)
	b.nheld = copy(b.held, part[taken:])
	return out, nil
}

// crypt runs the mode over whole blocks, and keeps the last of the ciphertext.
func (b *blockMode) crypt(dst, src []byte) {
	end := len(src) - b.size
	if b.decrypt {
		copy(b.chain, src[end:])
	}
	b.mode.CryptBlocks(dst, src)
	if !b.decrypt {
		copy(b.chain, dst[end:])
	}
}

func (b *blockMode) result([]byte) ([]byte, error) {
	switch {
	case !b.pad && b.nheld == 0:
		return nil, nil
	case !b.pad || b.decrypt && b.nheld != b.size:
		return nil, p11.Errorf(lenRange(b.decrypt), "the data is not a multiple of %d bytes", b.size)
	case b.decrypt:
		return b.finalUnpad()
	}
	out := Pad7(b.held[:b.nheld], b.size)
	b.last(out)
	return out, nil
}

// Pad7 is data with PKCS#7 padding (RFC 5652 §6.3).
func Pad7(data []byte, size int) []byte {
	n := size - len(data)%size
	return append(bytes.Clone(data), bytes.Repeat([]byte{byte(n)}, n)...)
}

// last is CBC of the padded block, in place. The mode stays where it is, for the
// message may go on.
func (b *blockMode) last(padded []byte) {
	if b.decrypt {
		b.block.Decrypt(padded, padded)
		subtle.XORBytes(padded, padded, b.chain)
		return
	}
	subtle.XORBytes(padded, padded, b.chain)
	b.block.Encrypt(padded, padded)
}

// finalUnpad decrypts the last block and takes the padding off.
func (b *blockMode) finalUnpad() ([]byte, error) {
	last := bytes.Clone(b.held)
	b.last(last)
	return Unpad7(last, b.size)
}

// Unpad7 takes the padding off b, whose last block it looks at. It looks at
// every byte, whichever is wrong; that the padding was wrong is the
// answer PKCS#11 asks for, CKR_ENCRYPTED_DATA_INVALID. b is wiped then.
func Unpad7(b []byte, size int) ([]byte, error) {
	last := b[len(b)-size:]
	n := int(last[size-1])
	good := subtle.ConstantTimeLessOrEq(1, n) & subtle.ConstantTimeLessOrEq(n, size)
	for i, x := range last {
		inPad := subtle.ConstantTimeLessOrEq(size-i, n)
		good &= subtle.ConstantTimeSelect(inPad, subtle.ConstantTimeByteEq(x, byte(n)), 1)
	}
	if good != 1 {
		wipe(b)
		return nil, p11.CKR_ENCRYPTED_DATA_INVALID
	}
	return b[:len(b)-n], nil
}

// duplicate begins the mode anew where it stands: all that it knows of what went before
// is the last block of the ciphertext.
func (b *blockMode) duplicate() (part, error) {
	c := *b
	c.chain, c.held = c.memory[:b.size], c.memory[aesBlock:][:b.size]
	switch _, isECB := b.mode.(ecb); {
	case isECB:
	case b.decrypt:
		c.mode = cipher.NewCBCDecrypter(b.block, b.chain)
	default:
		c.mode = cipher.NewCBCEncrypter(b.block, b.chain)
	}
	return &c, nil
}

func (b *blockMode) mayDuplicate() bool { return true }

func (b *blockMode) close() {
	wipe(b.held)
	closeMode(b.mode)
}

// closeMode ends what is a library's.
func closeMode(m cipher.BlockMode) {
	if c, ok := m.(interface{ Close() }); ok {
		c.Close()
	}
}
