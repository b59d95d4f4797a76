package pkix

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/hex"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"p11fs/p11"
)

const oidPrimeField = "1.2.840.10045.1.1"

// CurveOf reads curve parameters, wherever they stand: in CKA_EC_PARAMS, a key file, a
// certificate or what was unwrapped. They name a curve by its object identifier; since
// PKCS#11 v3.0 by a PrintableString (v3.1 §6.3.3); or by all of its numbers. Of a curve
// that the table does not have it returns the OID alone. What is none of this gives
// CKR_DOMAIN_PARAMS_INVALID.
func CurveOf(params []byte) (p11.Curve, error) {
	if c, ok := p11.CurveOf(params); ok {
		return c, nil
	}
	var oid asn1.ObjectIdentifier
	var name, numbers cryptobyte.String
	in := cryptobyte.String(params)
	switch {
	case len(params) == 0:
		return p11.Curve{}, p11.Errorf(p11.CKR_DOMAIN_PARAMS_INVALID, "the EC key does not name its curve")
	case in.PeekASN1Tag(cbasn1.PrintableString) && in.ReadASN1(&name, cbasn1.PrintableString) && in.Empty():
		return p11.Curve{}, p11.Errorf(p11.CKR_CURVE_NOT_SUPPORTED, "the curve %q is not known", clip(string(name)))
	case in.PeekASN1Tag(cbasn1.SEQUENCE) && in.ReadASN1(&numbers, cbasn1.SEQUENCE) && in.Empty():
		return explicitCurve(numbers)
	case !in.ReadASN1ObjectIdentifier(&oid) || !in.Empty():
		return p11.Curve{}, p11.Errorf(p11.CKR_DOMAIN_PARAMS_INVALID, "the curve of the EC key is damaged")
	}
	return p11.Curve{OID: oid.String()}, nil
}

// explicitCurve finds the curve that has the numbers of ECParameters (RFC 3279 §2.3.5),
// all of them: who may choose one of them may choose whose keys are his.
func explicitCurve(s cryptobyte.String) (p11.Curve, error) {
	var version int64
	var field, coefficients, base cryptobyte.String
	var fieldType asn1.ObjectIdentifier
	var a, b []byte
	prime, order, cofactor := new(big.Int), new(big.Int), big.NewInt(1)
	ok := s.ReadASN1Integer(&version) && version >= 1 && version <= 3 &&
		s.ReadASN1(&field, cbasn1.SEQUENCE) && field.ReadASN1ObjectIdentifier(&fieldType) &&
		s.ReadASN1(&coefficients, cbasn1.SEQUENCE) &&
		coefficients.ReadASN1Bytes(&a, cbasn1.OCTET_STRING) && coefficients.ReadASN1Bytes(&b, cbasn1.OCTET_STRING) &&
		s.ReadASN1(&base, cbasn1.OCTET_STRING) && s.ReadASN1Integer(order)
	whole := s.PeekASN1Tag(cbasn1.INTEGER) // with its cofactor, which may be left out
	ok = ok && (!whole || s.ReadASN1Integer(cofactor))
	if !ok {
		return p11.Curve{}, p11.Errorf(p11.CKR_DOMAIN_PARAMS_INVALID, "the explicit curve parameters of the EC key are damaged")
	}
	if fieldType.String() == oidPrimeField && field.ReadASN1Integer(prime) && cofactor.Cmp(big.NewInt(1)) == 0 {
		told := curvePrint(prime, a, b, order, base)
		for _, c := range p11.Curves() {
			if c.Elliptic == nil {
				if whole && c.Numbers != "" && c.Numbers == told {
					return c, nil
				}
				continue
			}
			p := c.Elliptic.Params()
			minus3 := new(big.Int).Sub(p.P, big.NewInt(3)) // FIPS 186-4 §D.1.2
			if prime.Cmp(p.P) != 0 || order.Cmp(p.N) != 0 || new(big.Int).SetBytes(a).Cmp(minus3) != 0 || new(big.Int).SetBytes(b).Cmp(p.B) != 0 {
				continue
			}
			point, err := filePoint(c, base)
			if err == nil && bytes.Equal(point[1:1+c.Size()], p.Gx.FillBytes(make([]byte, c.Size()))) && bytes.Equal(point[1+c.Size():], p.Gy.FillBytes(make([]byte, c.Size()))) {
				return c, nil
			}
		}
	}
	return p11.Curve{}, p11.Errorf(p11.CKR_CURVE_NOT_SUPPORTED, "explicit curve parameters that are those of no named curve known here")
}

// curvePrint is what p11.Curve.Numbers has of a curve with these numbers, "" where they
// are of no curve.
func curvePrint(prime *big.Int, a, b []byte, order *big.Int, base []byte) string {
	size := (prime.BitLen() + 7) / 8
	if size == 0 || size > maxField || len(base) < 1+size || prime.Sign() < 0 || order.Sign() < 0 {
		return ""
	}
	number := func(b []byte) *big.Int { return new(big.Int).SetBytes(b) }
	x, odd := number(base[1:1+size]), byte(0)
	switch {
	case isCompressed(base) && len(base) == 1+size:
		odd = base[0] & 1
	case base[0] == 4 && len(base) == 1+2*size:
		odd = base[2*size] & 1
		// On the curve there is one y with that bit.
		y, right := number(base[1+size:]), new(big.Int).Mul(x, x)
		right.Mul(right.Add(right, number(a)), x)
		if right.Sub(right.Add(right, number(b)), y.Mul(y, y)).Mod(right, prime).Sign() != 0 {
			return ""
		}
	default:
		return ""
	}
	h := sha256.New()
	for _, n := range []*big.Int{prime, number(a), number(b), order, x} {
		if n.BitLen() > 8*size {
			return ""
		}
		h.Write(n.FillBytes(make([]byte, size)))
	}
	h.Write([]byte{odd})
	return hex.EncodeToString(h.Sum(nil))
}

// curveParams is the form in which curve parameters are kept and printed: the object
// identifier, which every program reads.
func curveParams(c p11.Curve, params []byte) []byte {
	if c.Name == "" {
		return params
	}
	return c.Params()
}

// maxField is the longest field element taken, in bytes (P-521).
const maxField = 66

// Arithmetic is what reckons with the points of Weierstrass curves. Its errors tell
// nothing of secret numbers.
type Arithmetic interface {
	// HasCurve says whether the methods take c.
	HasCurve(c p11.Curve) bool
	// ECPoint is, uncompressed, the point that encoded is, compressed or not (SEC 1
	// §2.3.4). It fails for what is not on the curve.
	ECPoint(c p11.Curve, encoded []byte) ([]byte, error)
	// ECMultiply is, uncompressed, the point of a private key of c.Size bytes. It fails
	// for what is 0 or not below the order of the curve.
	ECMultiply(c p11.Curve, scalar []byte) ([]byte, error)
}

// GoArithmetic is that of Go's library, which has the curves of NIST from P-224 on.
type GoArithmetic struct{}

// HasCurve is Arithmetic.
func (GoArithmetic) HasCurve(c p11.Curve) bool { return c.Elliptic != nil }

// ECPoint is Arithmetic.
func (GoArithmetic) ECPoint(c p11.Curve, encoded []byte) ([]byte, error) {
	if isCompressed(encoded) {
		x, y := elliptic.UnmarshalCompressed(c.Elliptic, encoded)
		if x == nil {
			return nil, offCurve()
		}
		out := make([]byte, 1+2*c.Size())
		out[0] = 4
		x.FillBytes(out[1 : 1+c.Size()])
		y.FillBytes(out[1+c.Size():])
		return out, nil
	}
	if _, err := ecdsa.ParseUncompressedPublicKey(c.Elliptic, encoded); err != nil {
		return nil, offCurve()
	}
	return bytes.Clone(encoded), nil
}

// ECMultiply is Arithmetic.
func (GoArithmetic) ECMultiply(c p11.Curve, scalar []byte) ([]byte, error) {
	key, err := ecdsa.ParseRawPrivateKey(c.Elliptic, scalar)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "value: is no private key of the curve")
	}
	return key.PublicKey.Bytes()
}

func offCurve() error {
	return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "ec-point: is not on the curve")
}

// ECPrivate checks the private value of an EC key on a curve that a has. It returns the
// value in its full length, to be wiped by the caller, and the uncompressed point that
// belongs to it. Old writers drop or add zeros in front. The error is
// CKR_ATTRIBUTE_VALUE_INVALID.
func ECPrivate(a Arithmetic, c p11.Curve, value []byte) (scalar, point []byte, err error) {
	size := c.Size() // which is that of the order too: Curves has no others
	short := bytes.TrimLeft(value, "\x00")
	if len(short) > size {
		return nil, nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "value: is too long for the curve")
	}
	scalar = make([]byte, size)
	copy(scalar[size-len(short):], short)
	if point, err = a.ECMultiply(c, scalar); err != nil {
		clear(scalar)
		return nil, nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "value: is no private key of the curve")
	}
	return scalar, point, nil
}

// ECPublic returns, uncompressed, the point in b, the value of CKA_EC_POINT or what
// the other side of a key agreement sent: bare, or in a DER OCTET STRING, compressed
// or not. It must lie on the curve, which a has. The error is
// CKR_ATTRIBUTE_VALUE_INVALID.
func ECPublic(a Arithmetic, c p11.Curve, b []byte) ([]byte, error) {
	encoded, ok := rawPoint(c, b)
	if n := len(encoded); !ok || n != 1+2*c.Size() && (n != 1+c.Size() || !isCompressed(encoded)) {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "ec-point: is no point of %s", c.Name)
	}
	point, err := a.ECPoint(c, encoded)
	if err != nil {
		return nil, offCurve()
	}
	return point, nil
}

// rawPoint takes a point out of the OCTET STRING that CKA_EC_POINT should be
// (PKCS#11 v3.1 §6.3.3). Some tokens store the bare point, which for EC begins
// with the tag of OCTET STRING by chance: on a known curve its length tells.
func rawPoint(c p11.Curve, b []byte) (point []byte, ok bool) {
	switch {
	case c.KeySize() != 0:
		return octetPoint(c, b)
	case c.KeyType == p11.CKK_EC && len(b) == 1+2*c.Size() && b[0] == 4:
		return b, true
	case len(b) == 0:
		return nil, false
	}
	var s cryptobyte.String
	in := cryptobyte.String(b)
	if in.ReadASN1(&s, cbasn1.OCTET_STRING) && in.Empty() && len(s) > 0 {
		return s, true
	}
	return b, b[0] >= 2 && b[0] <= 4
}

// DERPoint is CKA_EC_POINT of a point: a DER OCTET STRING (PKCS#11 v3.1 §6.3.3).
func DERPoint(point []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1OctetString(point)
	return b.BytesOrPanic() // one string always fits
}

// isCompressed tells a point of its x and the sign of y (SEC 1 §2.3.3).
func isCompressed(point []byte) bool { return len(point) > 0 && (point[0] == 2 || point[0] == 3) }

// filePoint checks a public point of a file and returns a copy, uncompressed where
// Go has the curve's arithmetic.
func filePoint(c p11.Curve, point []byte) ([]byte, error) {
	bad := func() error {
		return p11.Errorf(p11.CKR_DATA_INVALID, "the public point of the EC key is not on its curve")
	}
	if len(point) < 2 || len(point) > 1+2*maxField {
		return nil, bad()
	}
	if c.Elliptic == nil { // the token that takes it looks whether it is on the curve
		size := c.Size()
		if size == 0 { // not a known one
			size = (len(point) - 1) / 2
		}
		whole := point[0] == 4 && len(point) == 1+2*size
		if !whole && (!isCompressed(point) || c.Name != "" && len(point) != 1+size) {
			return nil, bad()
		}
		return bytes.Clone(point), nil
	}
	out, err := GoArithmetic{}.ECPoint(c, point)
	if err != nil {
		return nil, bad()
	}
	return out, nil
}
