package swtok

import (
	"bytes"
	"testing"

	"p11fs/p11"
)

// RSA encrypts a new secret, which the owner of the private key finds; with PKCS#1 v1.5
// nobody learns whether there was one.
func TestRSAEncapsulates(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		pub, priv := generatedRSA(t, c, 1024)
		oaep := p11.Mechanism{Type: p11.CKM_RSA_PKCS_OAEP, Param: &p11.OAEPParams{Hash: p11.CKM_SHA256, MGF: p11.CKG_MGF1_SHA256}}
		for _, m := range []p11.Mechanism{{Type: p11.CKM_RSA_PKCS}, oaep} {
			template := secretTemplate(p11.CKK_AES, 32)
			ct, sent, err := c.EncapsulateKey(t.Context(), m, pub, template)
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.DecapsulateKey(t.Context(), m, priv, ct, template)
			if err != nil || !bytes.Equal(value(t, sent, p11.CKA_VALUE), value(t, got, p11.CKA_VALUE)) {
				t.Errorf("%s: another key, %v", m.Type.Short(), err)
			}
			if _, _, err := c.EncapsulateKey(t.Context(), m, pub, secretTemplate(p11.CKK_AES, 0)); p11.RVOf(err) != p11.CKR_TEMPLATE_INCOMPLETE {
				t.Errorf("%s, without a length: %v", m.Type.Short(), err)
			}
			if _, _, err := c.EncapsulateKey(t.Context(), m, pub, secretTemplate(p11.CKK_GENERIC_SECRET, 118)); p11.RVOf(err) != p11.CKR_KEY_SIZE_RANGE {
				t.Errorf("%s, without room: %v", m.Type.Short(), err)
			}
			for _, test := range []struct {
				ciphertext []byte
				want       p11.RV
			}{{ct[1:], p11.CKR_WRAPPED_KEY_LEN_RANGE}, {bytes.Repeat([]byte{0xff}, 128), p11.CKR_WRAPPED_KEY_INVALID}} {
				if _, err := c.DecapsulateKey(t.Context(), m, priv, test.ciphertext, template); p11.RVOf(err) != test.want {
					t.Errorf("%s, %x: %v", m.Type.Short(), test.ciphertext, err)
				}
			}
			other := secretTemplate(p11.CKK_AES, 16)
			got, err = c.DecapsulateKey(t.Context(), m, priv, ct, other)
			if m.Type == p11.CKM_RSA_PKCS {
				if err != nil || len(value(t, got, p11.CKA_VALUE)) != 16 {
					t.Errorf("another length tells of itself: %v", err)
				}
			} else if p11.RVOf(err) != p11.CKR_WRAPPED_KEY_LEN_RANGE {
				t.Errorf("another length: %v", err)
			}
		}
	})
}

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
