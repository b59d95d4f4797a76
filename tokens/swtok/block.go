package swtok

import (
	"bytes"
	"crypto/cipher"
	"crypto/subtle"
	"slices"

	"p11fs/p11"
	"p11fs/tokens"
)

const aesBlock = 16

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

// readIV returns a copy of the IV of n bytes that m must have.
func readIV(m p11.Mechanism, n int) ([]byte, error) {
	iv, ok := m.Param.(p11.IV)
	if !ok || len(iv) != n {
		return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "%s needs an iv of %d bytes", m.Type.Short(), n)
	}
	return slices.Clone(iv), nil
}

// A blockCipher is ECB, CBC or CBC with PKCS#7 padding, in parts.
type blockCipher struct {
	key     *tokens.Object // held; nil after Close
	block   cipher.Block
	mode    cipher.BlockMode
	decrypt bool
	pad     bool
	chain   [aesBlock]byte // the ciphertext block before the held one, or the IV
	held    [aesBlock]byte // the begun block; decrypting padded, the last whole one
	nheld   int
}

func newBlockCipher(mech *mechanism, m p11.Mechanism, key *tokens.Object, k *secretKey, decrypt bool) (*blockCipher, error) {
	b := &blockCipher{key: key, block: k.aes.Block(), decrypt: decrypt, pad: mech.kind == kindCBCPad}
	if mech.kind == kindECB {
		b.mode = ecb{b.block, decrypt}
		return b, noParam(m)
	}
	iv, err := readIV(m, aesBlock)
	if err != nil {
		return nil, err
	}
	copy(b.chain[:], iv)
	if decrypt {
		b.mode = k.aes.CBCDecrypter(iv)
	} else {
		b.mode = k.aes.CBCEncrypter(iv)
	}
	return b, nil
}

func (b *blockCipher) update(part []byte) ([]byte, error) {
	if b.key == nil {
		return nil, p11.CKR_OPERATION_NOT_INITIALIZED
	}
	total := b.nheld + len(part)
	whole := total &^ (aesBlock - 1)
	if b.pad && b.decrypt && whole == total && whole > 0 {
		whole -= aesBlock // it may be the last, with the padding
	}
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
	if b.key == nil {
		return nil, p11.CKR_OPERATION_NOT_INITIALIZED
	}
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

func (b *blockCipher) size() int { return 0 }

func (b *blockCipher) close() {
	if b.key == nil {
		return
	}
	b.key.Release()
	b.key, b.block, b.mode = nil, nil, nil
	wipe(b.held[:])
}
