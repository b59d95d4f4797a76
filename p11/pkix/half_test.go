package pkix_test

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

// oneKey is an arithmetic that knows one private value.
type oneKey struct {
	pkix.GoArithmetic
	scalar, point []byte
}

func (oneKey) HasCurve(p11.Curve) bool { return true }

func (k oneKey) ECMultiply(_ p11.Curve, scalar []byte) ([]byte, error) {
	if !bytes.Equal(scalar, k.scalar) {
		return nil, errors.New("out of range")
	}
	return k.point, nil
}

// A private key without its public half, on a curve that Go has not, is the same as one
// with it, if somebody computes it.
func TestPublicHalf(t *testing.T) {
	want := parse(t, "secp256k1.pem", "")
	scalar, _ := want[0].Get(p11.CKA_VALUE)
	point, _ := want[0].Get(p11.CKA_EC_POINT)
	k := oneKey{scalar: scalar, point: point[2:]}
	got, err := pkix.Parse(pkix.Auto, readFile(t, "bad.k1nopub.pem"), pkix.Options{Arithmetic: k})
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	k.scalar = point
	if got, err := pkix.Parse(pkix.Auto, readFile(t, "bad.k1nopub.pem"), pkix.Options{Arithmetic: k}); p11.RVOf(err) != p11.CKR_DATA_INVALID {
		t.Errorf("a value out of range: %v, %v", got, err)
	}
}
