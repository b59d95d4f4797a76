package fs

import (
	"bytes"
	"context"

	"p11fs/p11"
	"p11fs/p11/pqc"
)

// ibmKEM is completed for openCryptoki's mechanisms of ML-KEM, which is says: what is written
// is, as far as the file's name has it not, a line with the name of the private key for ECDH,
// the other side's public key or point, and, to decapsulate, the ciphertext.
func (k *keyFile) ibmKEM(ctx context.Context, s *session, data []byte) (m p11.Mechanism, is bool, err error) {
	m = k.mechanism
	switch p := m.Param.(type) {
	case *p11.IBMMLKEMParams:
		own := *p
		if own.Mode == p11.CK_IBM_ML_KEM_DECAPSULATE && len(own.Ciphertext) == 0 {
			own.Ciphertext = data
		}
		m.Param = &own
	case *p11.IBMMLKEMECDHParams:
		own := *p
		if own.ECKey == 0 {
			line, rest, _ := bytes.Cut(data, []byte("\n"))
			i, err := k.findIn(ctx, s.app.eng, string(line))
			if err != nil {
				return m, true, p11.Errorf(p11.CKR_KEY_HANDLE_INVALID, "no key %q", clip(string(line)))
			}
			defer i.Wipe()
			own.ECKey, data = i.Handle, rest
		}
		if own.Mode == p11.CK_IBM_ML_KEM_DECAPSULATE && len(own.Ciphertext) == 0 {
			i, err := k.key(ctx, s)
			if err != nil {
				return m, true, err
			}
			set, err := pqc.SetOfKey(i.Attrs)
			if err != nil {
				return m, true, err
			}
			at := max(0, len(data)-set.CiphertextSize)
			data, own.Ciphertext = data[:at], data[at:]
		}
		if len(own.PublicData) == 0 {
			ecdh, err := withPublic(p11.Mechanism{Type: p11.CKM_ECDH1_DERIVE, Param: &p11.ECDH1Params{KDF: p11.CKD_NULL}}, data)
			if err != nil {
				return m, true, err
			}
			own.PublicData = ecdh.Param.(*p11.ECDH1Params).PublicData
		}
		m.Param = &own
	default:
		return m, false, nil
	}
	return m, true, m.Validate()
}
