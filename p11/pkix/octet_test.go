package pkix_test

import (
	"bytes"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

// octetFile is the pair in a file of testdata, as Complete is given it.
func octetFile(t *testing.T, name string) (priv, pub p11.Attributes) {
	t.Helper()
	pair := parse(t, name+".pem", "")
	for i := range pair {
		pair[i].Delete(p11.CKA_ID)
	}
	return pair[0], pair[1]
}

// A public key comes in four forms, and its curve in two; they become one.
func TestCompleteOctet(t *testing.T) {
	for _, name := range []string{"ed25519", "ed448", "x25519", "x448"} {
		t.Run(name, func(t *testing.T) {
			priv, pub := octetFile(t, name)
			c, _ := p11.CurveNamed(name)
			der, _ := pub.Get(p11.CKA_EC_POINT)
			point := der[2:]
			words := map[string]string{"ed25519": "edwards25519", "ed448": "edwards448", "x25519": "curve25519", "x448": "curve448"}[name]
			info := pemBytes(t, name+".pub.pem")
			check := func(what string, a p11.Attributes) {
				t.Helper()
				if err := pkix.Complete(&a); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				for at, want := range map[p11.AttributeType][]byte{
					p11.CKA_EC_POINT: der, p11.CKA_EC_PARAMS: c.Params(), p11.CKA_PUBLIC_KEY_INFO: info,
				} {
					if got, _ := a.Get(at); !bytes.Equal(got, want) {
						t.Errorf("%s: %s is %x", what, at.Short(), got)
					}
				}
			}
			for form, b := range map[string][]byte{
				"bare": point, "OCTET STRING": der, "BIT STRING": el(3, append([]byte{0}, point...)),
			} {
				check(form, pub.With(p11.CKA_EC_POINT, b))
				check(form+", private", priv.With(p11.CKA_EC_POINT, b))
			}
			check("curve in words", pub.With(p11.CKA_EC_PARAMS, el(0x13, []byte(words))))
			check("private alone", priv)
		})
	}
}

func TestCompleteOctetErrors(t *testing.T) {
	priv, pub := octetFile(t, "ed448")
	_, other := octetFile(t, "ed25519")
	_, xpub := octetFile(t, "x448")
	der, _ := pub.Get(p11.CKA_EC_POINT)
	get := func(a p11.Attributes, at p11.AttributeType) []byte { v, _ := a.Get(at); return v }
	wrongPair := bytes.Clone(der)
	wrongPair[9] ^= 1
	without := func(a p11.Attributes, at p11.AttributeType) p11.Attributes {
		a = a.Clone()
		a.Delete(at)
		return a
	}
	for _, test := range []struct {
		name string
		a    p11.Attributes
		want p11.RV
	}{
		{"a point of another curve", pub.With(p11.CKA_EC_POINT, get(other, p11.CKA_EC_POINT)), p11.CKR_ATTRIBUTE_VALUE_INVALID},
		{"a point that is short", pub.With(p11.CKA_EC_POINT, der[:len(der)-1]), p11.CKR_ATTRIBUTE_VALUE_INVALID},
		{"a point with something behind it", pub.With(p11.CKA_EC_POINT, append(bytes.Clone(der), 0)), p11.CKR_ATTRIBUTE_VALUE_INVALID},
		{"a string of another length", pub.With(p11.CKA_EC_POINT, el(4, der[3:])), p11.CKR_ATTRIBUTE_VALUE_INVALID},
		{"bits that are no bytes", pub.With(p11.CKA_EC_POINT, el(3, append([]byte{1}, der[2:]...))), p11.CKR_ATTRIBUTE_VALUE_INVALID},
		{"a curve of the other type", pub.With(p11.CKA_EC_PARAMS, get(xpub, p11.CKA_EC_PARAMS)), p11.CKR_DOMAIN_PARAMS_INVALID},
		{"a curve of ECDSA", pub.With(p11.CKA_EC_PARAMS, []byte("\x06\x05\x2b\x81\x04\x00\x22")), p11.CKR_DOMAIN_PARAMS_INVALID},
		{"a curve of nobody", pub.With(p11.CKA_EC_PARAMS, []byte("\x06\x03\x2b\x65\x77")), p11.CKR_CURVE_NOT_SUPPORTED},
		{"no curve", without(pub, p11.CKA_EC_PARAMS), p11.CKR_TEMPLATE_INCOMPLETE},
		{"no value", without(priv, p11.CKA_VALUE), p11.CKR_TEMPLATE_INCOMPLETE},
		{"a value that is long", priv.With(p11.CKA_VALUE, append([]byte{0}, get(priv, p11.CKA_VALUE)...)), p11.CKR_ATTRIBUTE_VALUE_INVALID},
		{"an empty value", priv.With(p11.CKA_VALUE, nil), p11.CKR_ATTRIBUTE_VALUE_INVALID},
		{"halves of two pairs", priv.With(p11.CKA_EC_POINT, wrongPair), p11.CKR_ATTRIBUTE_VALUE_INVALID},
		{"the public key of another", pub.With(p11.CKA_PUBLIC_KEY_INFO, pemBytes(t, "ed25519.pub.pem")), p11.CKR_ATTRIBUTE_VALUE_INVALID},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := pkix.Complete(&test.a); p11.RVOf(err) != test.want {
				t.Errorf("%v, want %v", err, test.want)
			}
		})
	}
}

// What is wrapped is what openssl writes.
func TestWriteOctet(t *testing.T) {
	for _, name := range []string{"ed25519", "ed448", "x25519", "x448"} {
		priv, _ := octetFile(t, name)
		if got, err := pkix.EncodePrivateKey(priv); err != nil || !bytes.Equal(got, readFile(t, name+".p8.der")) {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
}
