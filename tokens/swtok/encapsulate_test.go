package swtok

import (
	"bytes"
	"testing"

	"p11fs/p11"
)

// What a family encapsulates becomes the value of the key of the template.
func TestEncapsulate(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	const m = p11.MechanismType(p11.CKM_VENDOR_DEFINED | 1)
	c.rows[m] = &row{p11.MechanismInfo{Type: m, Flags: p11.CKF_ENCAPSULATE | p11.CKF_DECAPSULATE}, family{
		encapsulate: func(_ call, public any, _ p11.KeyType, n int) ([]byte, []byte, error) {
			_, err := keyOf[*ecPublic](public)
			return []byte("told"), bytes.Repeat([]byte{1}, n), err
		},
		decapsulate: func(_ call, private any, ciphertext []byte, _ p11.KeyType, n int) ([]byte, error) {
			if _, err := keyOf[*ecPrivate](private); err != nil {
				return nil, err
			}
			return bytes.Repeat(ciphertext[:1], n), nil
		},
	}}
	pub, priv := generatedEC(t, c, testCurves()[0])
	template := secretTemplate(p11.CKK_AES, 16)
	ciphertext, made, err := c.EncapsulateKey(t.Context(), p11.Mechanism{Type: m}, pub, template)
	if err != nil || string(ciphertext) != "told" || !bytes.Equal(value(t, made, p11.CKA_VALUE), bytes.Repeat([]byte{1}, 16)) {
		t.Errorf("%q, %v, %v", ciphertext, made, err)
	}
	made, err = c.DecapsulateKey(t.Context(), p11.Mechanism{Type: m}, priv, ciphertext, template)
	if err != nil || !bytes.Equal(value(t, made, p11.CKA_VALUE), bytes.Repeat([]byte("t"), 16)) {
		t.Errorf("%v, %v", made, err)
	}
	_, _, err = c.EncapsulateKey(t.Context(), p11.Mechanism{Type: m}, priv, template)
	if p11.RVOf(err) != p11.CKR_KEY_TYPE_INCONSISTENT {
		t.Errorf("with a private key: %v", err)
	}
	_, err = c.DecapsulateKey(t.Context(), p11.Mechanism{Type: m}, pub, ciphertext, template)
	if p11.RVOf(err) != p11.CKR_KEY_TYPE_INCONSISTENT {
		t.Errorf("with a public key: %v", err)
	}
	_, err = c.DecapsulateKey(t.Context(), p11.Mechanism{Type: p11.CKM_ECDSA}, priv, ciphertext, template)
	if p11.RVOf(err) != p11.CKR_MECHANISM_INVALID {
		t.Errorf("with another mechanism: %v", err)
	}
}
