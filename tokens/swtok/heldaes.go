package swtok

import (
	"bytes"
	"context"

	"p11fs/p11"
)

// An AESHolder is a Holder that has keys of AES too, which then have no CKA_VALUE.
type AESHolder interface {
	Holder
	// AES returns the key of attributes without a value.
	AES(a p11.Attributes) (HeldAES, error)
}

// HeldAES is a key of AES in a chip.
type HeldAES interface {
	// Crypt encrypts or decrypts a whole message of one byte or more under ECB, CBC, CTR,
	// OFB or CFB (with segments of a block), for the first two of whole blocks. iv has a
	// block, and is none for ECB. Errors are HeldError.
	Crypt(ctx context.Context, mode string, iv []byte, decrypt bool, message []byte) ([]byte, error)
	// Close forgets the key.
	Close()
}

// maxHeldAES bounds a message for a chip, which does some kilobytes a second.
const maxHeldAES = 1 << 20

// A heldAES is a parsed key of AES in a chip. The modes that a chip has not, and what
// wants the value, do not take it.
type heldAES struct{ HeldAES }

// HeldAESMode is the mode, by the names of HeldAES, that a mechanism is with a key in a
// chip, or false for a mechanism that does not take such keys.
func HeldAESMode(m p11.MechanismType) (mode string, ok bool) {
	mode, ok = map[p11.MechanismType]string{
		p11.CKM_AES_ECB: "ECB", p11.CKM_AES_CBC: "CBC", p11.CKM_AES_CBC_PAD: "CBC",
		p11.CKM_AES_CTR: "CTR", p11.CKM_AES_OFB: "OFB", p11.CKM_AES_CFB128: "CFB",
	}[m]
	return mode, ok
}

// begin is the use of the key for a message, which is kept whole: a chip is slow, and a
// message that is begun must not wait in it.
func (k *heldAES) begin(u call, decrypt bool) (part, error) {
	mode, ok := HeldAESMode(u.m.Type)
	if !ok {
		return nil, p11.Errorf(p11.CKR_KEY_FUNCTION_NOT_PERMITTED, "the key is in a chip, which has not the mode of %s", u.m.Type.Short())
	}
	var iv []byte
	most := uint64(maxHeldAES)
	switch p := u.m.Param.(type) {
	case p11.IV:
		iv = bytes.Clone(p)
	case *p11.CTRParams:
		iv = bytes.Clone(p.Counter[:])
		most = min(most, ctrBytes(p.Counter, p.CounterBits))
	default:
		if mode != "ECB" {
			return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "%s does not take its parameter as bytes", u.m.Type.Short())
		}
	}
	pad := u.m.Type == p11.CKM_AES_CBC_PAD
	blocks := mode == "ECB" || mode == "CBC"
	return collectedSlowly(int(most), lenRange(decrypt), func(ctx context.Context, in []byte) ([]byte, error) {
		if pad && !decrypt {
			in = Pad7(in, aesBlock)
			defer wipe(in)
		}
		switch {
		case blocks && len(in)%aesBlock != 0 || pad && len(in) == 0:
			return nil, p11.Errorf(lenRange(decrypt), "the data is not a multiple of %d bytes", aesBlock)
		case len(in) == 0:
			return nil, nil
		}
		out, err := k.Crypt(ctx, mode, iv, decrypt, in)
		if err == nil && pad && decrypt {
			return Unpad7(out, aesBlock)
		}
		return out, err
	}), nil
}
