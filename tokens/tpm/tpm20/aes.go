package tpm20

import (
	"context"
	"crypto/rand"
	"crypto/sha256"

	"github.com/google/go-tpm/tpm2"

	"p11fs/p11"
	"p11fs/secret"
)

// AESBlock is the size of a block of AES.
const AESBlock = 16

// aesModes are the TPM's numbers of modes (TPM 2.0 Library, Part 2, §6.3).
func aesModes() map[string]tpm2.TPMAlgID {
	return map[string]tpm2.TPMAlgID{
		"CTR": tpm2.TPMAlgCTR, "OFB": tpm2.TPMAlgOFB, "CBC": tpm2.TPMAlgCBC, "CFB": tpm2.TPMAlgCFB, "ECB": tpm2.TPMAlgECB,
	}
}

func aesParms(bits int) tpm2.TPMUPublicParms {
	return tpm2.NewTPMUPublicParms(tpm2.TPMAlgSymCipher, &tpm2.TPMSSymCipherParms{Sym: tpm2.TPMTSymDefObject{
		Algorithm: tpm2.TPMAlgAES, KeyBits: tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(bits)),
		Mode: tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgNull),
	}})
}

// askAES asks whether the TPM encrypts, which is optional, and with what.
func (w *worker) askAES(f *Facts, has map[tpm2.TPMAlgID]bool) error {
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapCommands, Property: uint32(tpm2.TPMCCEncryptDecrypt2), PropertyCount: 1}.Execute(w)
	if err != nil {
		return err
	}
	list, err := r.CapabilityData.Data.Command()
	if err != nil {
		return err
	}
	if len(list.CommandAttributes) == 0 || list.CommandAttributes[0].CommandIndex != uint16(tpm2.TPMCCEncryptDecrypt2) || !has[tpm2.TPMAlgAES] || !has[tpm2.TPMAlgSymCipher] {
		return nil
	}
	for name, mode := range aesModes() {
		if has[mode] {
			f.AESModes = append(f.AESModes, name)
		}
	}
	for _, bits := range []int{128, 192, 256} {
		ok, err := w.takes(tpm2.TPMAlgSymCipher, aesParms(bits))
		if err != nil {
			return err
		}
		if ok {
			f.AESBits = append(f.AESBits, bits)
		}
	}
	return nil
}

// CreateAES makes a key of AES of one of Facts.AESBits.
func (c *Chip) CreateAES(ctx context.Context, p Parent, bits int, auth *secret.Bytes) (Blob, error) {
	return c.createKey(ctx, p, template(true, tpm2.TPMAlgSymCipher, aesParms(bits)), auth)
}

// ImportAES brings a key of AES in, by its value.
func (c *Chip) ImportAES(ctx context.Context, p Parent, value, auth *secret.Bytes) (Blob, error) {
	// The public half has the hash of the key behind a random seed, which stays secret.
	seed := make([]byte, sha256.Size)
	_, _ = rand.Read(seed) // which never fails
	defer secret.Wipe(seed)
	public := template(false, tpm2.TPMAlgSymCipher, tpm2.TPMUPublicParms{})
	value.Use(func(b []byte) {
		h := sha256.New()
		h.Write(seed)
		h.Write(b)
		public.Parameters = aesParms(8 * len(b))
		public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgSymCipher, &tpm2.TPM2BDigest{Buffer: h.Sum(nil)})
	})
	return c.importKey(ctx, p, public, auth, seed, func() (private tpm2.TPMUSensitiveComposite, memory []byte) {
		value.Use(func(b []byte) { memory = append(memory, b...) })
		return tpm2.NewTPMUSensitiveComposite(tpm2.TPMAlgSymCipher, &tpm2.TPM2BSymKey{Buffer: memory}), memory
	})
}

// AESBits is how long the key of a blob is, or 0 if it is no key of AES.
func AESBits(b Blob) int {
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](b.Public)
	if err != nil || len(b.Public) > maxBlob || public.Type != tpm2.TPMAlgSymCipher {
		return 0
	}
	parms, err := public.Parameters.SymDetail()
	if err != nil || parms.Sym.Algorithm != tpm2.TPMAlgAES {
		return 0
	}
	bits, err := parms.Sym.KeyBits.AES()
	if err != nil {
		return 0
	}
	return int(*bits)
}

// maxInput is what each TPM takes at once (TPM 2.0 Library, Part 2, §10.4.8, and the PC
// Client Platform TPM Profile).
const maxInput = 1024

// AES encrypts or decrypts a message under a mode of Facts.AESModes, with an iv of a block
// but for ECB. A TPM does some kilobytes a second; others come between.
func (k *Key) AES(ctx context.Context, mode string, iv []byte, decrypt bool, message []byte) ([]byte, error) {
	id, ok := aesModes()[mode]
	if !ok {
		return nil, ErrNotHere
	}
	out := make([]byte, 0, len(message))
	for len(message) > 0 {
		part := message[:min(len(message), maxInput)]
		message = message[len(part):]
		r, err := use(ctx, k, true, func(w *worker, key tpm2.AuthHandle) (*tpm2.EncryptDecrypt2Response, error) {
			return tpm2.EncryptDecrypt2{
				KeyHandle: key, Message: tpm2.TPM2BMaxBuffer{Buffer: append([]byte(nil), part...)}, Decrypt: decrypt,
				Mode: id, IV: tpm2.TPM2BIV{Buffer: append([]byte(nil), iv...)},
			}.Execute(w)
		})
		if err == nil && (len(r.OutData.Buffer) != len(part) || len(r.IV.Buffer) != len(iv)) {
			err = p11.Errorf(p11.CKR_DEVICE_ERROR, "the TPM gives %d bytes for %d", len(r.OutData.Buffer), len(part))
		}
		if err != nil {
			secret.Wipe(out)
			return nil, err
		}
		out, iv = append(out, r.OutData.Buffer...), r.IV.Buffer
		secret.Wipe(r.OutData.Buffer)
	}
	return out, nil
}
