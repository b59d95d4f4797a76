package engine

import (
	"bytes"
	"context"

	"p11fs/p11"
)

// An AEADMessage is what an authenticated encryption knows of one message beside its key
// and data: CK_GCM_MESSAGE_PARAMS, CK_CCM_MESSAGE_PARAMS (PKCS#11 v3.2 §6.13), or
// CK_SALSA20_CHACHA20_POLY1305_MSG_PARAMS (§6.61). The IV
// may be the token's to choose, and the tag does not stand behind the ciphertext.
type AEADMessage struct {
	IV        []byte
	FixedBits uint64          // at its beginning, which stay as they are
	Generator p11.IVGenerator // of the others
	TagBits   uint64
	Tag       []byte // to decrypt
	DataLen   uint64 // of CCM: of the data in bytes, or 0 for what comes
}

// mechanism is m of the message: with an IV of the token's, if it is to be one.
func (a *AEADMessage) mechanism(t p11.MechanismType, associated []byte) (p11.Mechanism, error) {
	m := p11.Mechanism{Type: t}
	switch t {
	case p11.CKM_AES_GCM:
		m.Param = &p11.GCMParams{IV: a.IV, AAD: associated, TagBits: a.TagBits}
	case p11.CKM_AES_CCM:
		m.Param = &p11.CCMParams{DataLen: a.DataLen, Nonce: a.IV, AAD: associated, MACLen: a.TagBits / 8}
	case p11.CKM_CHACHA20_POLY1305:
		m.Param = &p11.ChaCha20Poly1305Params{Nonce: a.IV, AAD: associated}
		if a.TagBits != polyTagBits || a.Generator != p11.CKG_NO_GENERATE {
			return m, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "%s has tags of %d bits, and nonces of the program's", t.Short(), polyTagBits)
		}
	default:
		return m, p11.Errorf(p11.CKR_MECHANISM_INVALID, "mechanism %s has no tag of its own", t.Short())
	}
	if a.TagBits%8 != 0 {
		return m, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "a tag has whole bytes, not %d bits", a.TagBits)
	}
	return m, m.Validate()
}

// minGenerated is how many bits of an IV are chosen at least: with fewer, two of a few
// thousand messages would have the same.
const minGenerated = 64

// polyTagBits is the length of the tags of Poly1305.
const polyTagBits = 128

// maxIV is the longest IV, in bytes (PKCS#11 v3.2 §6.13.3).
const maxIV = 256

// generate chooses the IV, if it is the token's to choose: at random, or by the counter of
// the key, nil if it has none.
func (a *AEADMessage) generate(ctx context.Context, s *Session, ivs *ivCounter) error {
	bits := 8 * uint64(len(a.IV))
	counted := a.Generator == p11.CKG_GENERATE_COUNTER || a.Generator == p11.CKG_GENERATE_COUNTER_XOR
	switch {
	case a.Generator == p11.CKG_NO_GENERATE:
		return nil
	case bits > 8*maxIV:
		return p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "an IV has at most %d bytes", maxIV)
	case counted && ivs == nil:
		return p11.Advise(p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "%s: only the IVs of session keys are counted, since who else uses a token object is not known", a.Generator.Short()), "have the IV generated, or made at random")
	case counted && a.FixedBits >= bits:
		return p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "of an IV of %d bits %d are fixed: none are left to count", bits, a.FixedBits)
	case counted:
		iv, err := ivs.iv(a)
		if err == nil {
			a.IV = iv
		}
		return err
	case a.Generator != p11.CKG_GENERATE && a.Generator != p11.CKG_GENERATE_RANDOM:
		return p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "the generator of IVs is not known: %s", a.Generator.Short())
	case a.FixedBits > bits || bits-a.FixedBits < minGenerated:
		return p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "of an IV of %d bits %d are fixed: at least %d are to be chosen", bits, a.FixedBits, minGenerated)
	}
	random, err := s.GenerateRandom(ctx, len(a.IV))
	if err != nil {
		return err
	}
	whole := a.FixedBits / 8
	iv := append(bytes.Clone(a.IV[:whole]), random[whole:]...)
	if rest := a.FixedBits % 8; rest != 0 {
		mask := byte(0xff) << (8 - rest)
		iv[whole] = a.IV[whole]&mask | random[whole]&^mask
	}
	a.IV = iv
	return nil
}

// split takes the tag from the end of what was encrypted.
func (a *AEADMessage) split(sealed []byte) []byte {
	n := len(sealed) - int(a.TagBits/8)
	a.Tag = sealed[n:]
	return sealed[:n:n]
}

// join puts the tag behind what is to be decrypted.
func (a *AEADMessage) join(text []byte) ([]byte, error) {
	if uint64(len(a.Tag)) != a.TagBits/8 {
		return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "the tag has %d bytes, and the parameter says %d bits", len(a.Tag), a.TagBits)
	}
	return append(bytes.Clone(text), a.Tag...), nil
}

// WrapKeyAuthenticated is C_WrapKeyAuthenticated (PKCS#11 v3.2 §5.18.6). The wrapped key
// comes without its tag, which is in what becomes of a, as is the IV. One longer than
// room gives a *BufferError.
func (s *Session) WrapKeyAuthenticated(ctx context.Context, t p11.MechanismType, a AEADMessage, wrapping, key p11.ObjectHandle, associated []byte, room int) ([]byte, AEADMessage, error) {
	if s.closed() {
		return nil, a, s.gone()
	}
	if err := a.generate(ctx, s, s.appSlot.objects.ivsOf(wrapping)); err != nil {
		return nil, a, err
	}
	m, err := a.mechanism(t, associated)
	if err != nil {
		return nil, a, err
	}
	sealed, err := s.WrapKey(ctx, m, wrapping, key)
	if err != nil {
		return nil, a, err
	}
	wrapped := a.split(sealed)
	if err := fits(len(wrapped), room); err != nil {
		return nil, a, err
	}
	return wrapped, a, nil
}

// UnwrapKeyAuthenticated is C_UnwrapKeyAuthenticated (PKCS#11 v3.2 §5.18.7).
func (s *Session) UnwrapKeyAuthenticated(ctx context.Context, t p11.MechanismType, a AEADMessage, unwrapping p11.ObjectHandle, wrapped []byte, template p11.Attributes, associated []byte) (p11.ObjectHandle, error) {
	if s.closed() {
		return 0, s.gone()
	}
	m, err := a.mechanism(t, associated)
	if err != nil {
		return 0, err
	}
	sealed, err := a.join(wrapped)
	if err != nil {
		return 0, err
	}
	return s.UnwrapKey(ctx, m, unwrapping, sealed, template)
}
