package ccatok

import (
	"context"
	"math/big"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cca"
	"p11fs/tokens/securekey"
)

// expect is a copy of a template with the class and type of the key that is made.
func expect(template p11.Attributes, class p11.ObjectClass, kt p11.KeyType) (p11.Attributes, error) {
	if got, ok := template.Class(); ok && got != class {
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the mechanism makes a %s, not a %s", class.Short(), got.Short())
	}
	if got, ok := template.KeyType(); ok && got != kt {
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the mechanism makes a key of type %s, not %s", kt.Short(), got.Short())
	}
	a := template.Clone()
	a.SetUlong(p11.CKA_CLASS, uint64(class))
	a.SetUlong(p11.CKA_KEY_TYPE, uint64(kt))
	return a, nil
}

// secretLength is the length of the key that is to be made.
func secretLength(a *p11.Attributes, kt p11.KeyType) (int, error) {
	n, ok := a.Ulong(p11.CKA_VALUE_LEN)
	if fixed := p11.KeyLengths(kt); len(fixed) == 1 {
		if ok && n != fixed[0] {
			return 0, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "a %s key has %d bytes, not %d", kt.Short(), fixed[0], n)
		}
		a.Delete(p11.CKA_VALUE_LEN) // such keys do not have it
		return int(fixed[0]), nil
	}
	switch {
	case !ok:
		return 0, p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the template needs value-len, the length of the key in bytes")
	case !p11.FitsKey(kt, n) || isHMAC(kt) && (n < minSecret/8 || n > maxSecret/8):
		return 0, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "%d bytes are no length of a %s key of the card", n, kt.Short())
	}
	return int(n), nil
}

// GenerateKey is tokens.KeyGenerator.
func (t *token) GenerateKey(ctx context.Context, m p11.Mechanism, template p11.Attributes) (p11.Attributes, error) {
	kt, ok := map[p11.MechanismType]p11.KeyType{
		p11.CKM_AES_KEY_GEN: p11.CKK_AES, p11.CKM_DES_KEY_GEN: p11.CKK_DES, p11.CKM_DES3_KEY_GEN: p11.CKK_DES3,
	}[m.Type]
	if !ok {
		kt, ok = hmacKeyMade(m.Type)
	}
	if !ok {
		return nil, p11.Errorf(p11.CKR_MECHANISM_INVALID, "the token makes no keys by %s", m.Type.Short())
	}
	a, err := expect(template, p11.CKO_SECRET_KEY, kt)
	if err != nil {
		return nil, err
	}
	n, err := secretLength(&a, kt)
	if err != nil {
		return nil, err
	}
	var key []byte
	err = t.link.call(ctx, func(via card.Transport) (err error) {
		switch {
		case kt == p11.CKK_AES:
			key, err = makeAES(ctx, via, n)
		case isHMAC(kt):
			key, err = makeHMAC(ctx, via, n)
		default:
			key, err = cca.CSNBKGN(ctx, via, nil, keyword("OP"), keyword(keyLength(n)), keyword("DATA"), make([]byte, cca.SymmetricSize))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	a.Set(p11.CKA_IBM_OPAQUE, key)
	return a, nil
}

// keyword is one keyword.
func keyword(s string) []byte { return cca.Rules{s}.Bytes() }

// keyLength is the keyword of a length.
func keyLength(n int) string {
	return map[int]string{8: "KEYLN8", 16: "KEYLN16", 24: "KEYLN24", 32: "KEYLN32"}[n]
}

// skeletonAES is what the card puts a key of n bytes into.
func skeletonAES(ctx context.Context, via card.Transport, n int) ([]byte, error) {
	return cca.CSNBKTB(ctx, via, nil, keyword("DATA"), cca.Rules{"INTERNAL", "AES", "NO-KEY", keyLength(n)}.Bytes())
}

func makeAES(ctx context.Context, via card.Transport, n int) ([]byte, error) {
	skeleton, err := skeletonAES(ctx, via, n)
	if err != nil {
		return nil, err
	}
	length := keyLength(n)
	if n == 32 {
		length = "" // as CCA has it
	}
	return cca.CSNBKGN(ctx, via, nil, keyword("OP"), keyword(length), keyword("AESTOKEN"), skeleton)
}

func makeHMAC(ctx context.Context, via card.Transport, n int) ([]byte, error) {
	skeleton, err := cca.CSNBKTB2(ctx, via, nil, cca.Rules{"INTERNAL", "HMAC", "MAC", "GENERATE"}.Bytes())
	if err != nil {
		return nil, err
	}
	return cca.CSNBKGN2(ctx, via, nil, cca.Rules{"HMAC", "OP"}.Bytes(), uint64(8*n), keyword("TOKEN"), keyword(""), skeleton)
}

// GenerateKeyPair is tokens.KeyGenerator.
func (t *token) GenerateKeyPair(ctx context.Context, m p11.Mechanism, public, private p11.Attributes) (p11.Attributes, p11.Attributes, error) {
	kt := p11.CKK_RSA
	switch m.Type {
	case p11.CKM_RSA_PKCS_KEY_PAIR_GEN:
	case p11.CKM_EC_KEY_PAIR_GEN:
		kt = p11.CKK_EC
	case p11.CKM_EC_EDWARDS_KEY_PAIR_GEN:
		kt = p11.CKK_EC_EDWARDS
	default:
		return nil, nil, p11.Errorf(p11.CKR_MECHANISM_INVALID, "the token makes no pairs of keys by %s", m.Type.Short())
	}
	public, err := expect(public, p11.CKO_PUBLIC_KEY, kt)
	if err != nil {
		return nil, nil, err
	}
	if private, err = expect(private, p11.CKO_PRIVATE_KEY, kt); err != nil {
		return nil, nil, err
	}
	rules, values, err := t.pairValues(kt, public)
	if err != nil {
		return nil, nil, err
	}
	var key []byte
	err = t.link.call(ctx, func(via card.Transport) error {
		skeleton, err := cca.CSNDPKB(ctx, via, nil, rules.Bytes(), values)
		if err != nil {
			return err
		}
		key, err = cca.CSNDPKG(ctx, via, nil, keyword("MASTER"), skeleton)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	k, err := cca.ParsePKA(key)
	if err != nil || (k.N == nil) == (kt == p11.CKK_RSA) {
		return nil, nil, p11.Errorf(p11.CKR_DEVICE_ERROR, "the card made no such key")
	}
	for _, a := range []*p11.Attributes{&public, &private} {
		if kt != p11.CKK_RSA {
			a.Set(p11.CKA_EC_PARAMS, k.Curve.Params())
			a.Set(p11.CKA_EC_POINT, pkix.DERPoint(k.Point))
			continue
		}
		a.Set(p11.CKA_MODULUS, append([]byte{}, k.N...))
		a.Set(p11.CKA_PUBLIC_EXPONENT, append([]byte{}, k.E...))
	}
	private.Set(p11.CKA_IBM_OPAQUE, key)
	return public, private, nil
}

// pairValues are the rules and values that tell the card of a pair to be made.
func (t *token) pairValues(kt p11.KeyType, public p11.Attributes) (cca.Rules, []byte, error) {
	if kt != p11.CKK_RSA {
		params, ok := public.Get(p11.CKA_EC_PARAMS)
		if !ok {
			return nil, nil, p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the public template needs ec-params, the curve")
		}
		curve, err := curveOf(kt, params)
		return pairRules(kt), cca.ECValues{Curve: curve}.Bytes(), err
	}
	bits, ok := public.Ulong(p11.CKA_MODULUS_BITS)
	switch {
	case !ok:
		return nil, nil, p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the public template needs modulus-bits")
	case bits < minRSA || bits > maxRSA:
		return nil, nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "an RSA key of the card has %d to %d bits, not %d", minRSA, maxRSA, bits)
	}
	e := big.NewInt(65537)
	if given, ok := public.Get(p11.CKA_PUBLIC_EXPONENT); ok && len(given) > 0 {
		e.SetBytes(given)
	}
	if e.Cmp(big.NewInt(3)) != 0 && e.Cmp(big.NewInt(65537)) != 0 {
		return nil, nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the card makes RSA keys with the public exponents 3 and 65537")
	}
	return pairRules(kt), cca.RSAValues{Bits: int(bits), E: e.Bytes()}.Bytes(), nil
}

// pairRules are what a pair is, and may be used for.
func pairRules(kt p11.KeyType) cca.Rules {
	switch kt {
	case p11.CKK_RSA:
		return cca.Rules{"RSA-CRT", "KEY-MGMT"}
	case p11.CKK_EC:
		return cca.Rules{"ECC-PAIR", "KEY-MGMT"}
	}
	return cca.Rules{"ECC-PAIR", "SIG-ONLY"}
}

// curveOf finds a curve that the card has for keys of a type.
func curveOf(kt p11.KeyType, params []byte) (c p11.Curve, err error) {
	if kt == p11.CKK_EC_EDWARDS {
		c, err = pkix.OctetCurve(kt, params)
	} else {
		c, err = pkix.CurveOf(params)
	}
	if err == nil && (c.KeyType != kt || !cca.HasCurve(c)) {
		err = p11.Errorf(p11.CKR_CURVE_NOT_SUPPORTED, "the card does not have the curve %s", c.Name)
	}
	return c, err
}

// Adopt is tokens.Adopter: a secret or private key goes into the card, or is refused, and a
// public one gets its token.
func (t *token) Adopt(ctx context.Context, attrs p11.Attributes) (p11.Attributes, error) {
	class, _ := attrs.Class()
	switch class {
	case p11.CKO_SECRET_KEY, p11.CKO_PRIVATE_KEY:
		if t.conf.sensitive && class == p11.CKO_SECRET_KEY {
			attrs.SetBool(p11.CKA_SENSITIVE, true)
		}
		if err := ownToken(attrs); err != nil {
			attrs.Wipe()
			return nil, err
		}
		return securekey.Adopt(ctx, attrs, t.Crypto, t.bring)
	case p11.CKO_PUBLIC_KEY:
		attrs.Delete(p11.CKA_IBM_OPAQUE) // which would be a private one in the open
		attrs, err := t.Crypto.Adopt(ctx, attrs)
		if err == nil {
			setPublic(&attrs)
		}
		return attrs, err
	}
	return t.Crypto.Adopt(ctx, attrs)
}

// setPublic gives a public key the token that stock's CCA token looks for. One that the card
// has no way to name goes without.
func setPublic(a *p11.Attributes) {
	k := cca.PKA{}
	n, _ := a.Get(p11.CKA_MODULUS)
	e, _ := a.Get(p11.CKA_PUBLIC_EXPONENT)
	params, _ := a.Get(p11.CKA_EC_PARAMS)
	der, _ := a.Get(p11.CKA_EC_POINT)
	switch kt, _ := a.KeyType(); kt {
	case p11.CKK_RSA:
		k.N, k.E = new(big.Int).SetBytes(n).Bytes(), new(big.Int).SetBytes(e).Bytes()
	case p11.CKK_EC:
		c, err := curveOf(kt, params)
		if err != nil || len(der) < 1+2*c.Size() {
			return
		}
		k.Curve, k.Point = c, der[len(der)-1-2*c.Size():]
	case p11.CKK_EC_EDWARDS:
		c, err := curveOf(kt, params)
		if err != nil {
			return
		}
		if k.Point, err = pkix.OctetPoint(c, der); err != nil {
			return
		}
		k.Curve = c
	default:
		return
	}
	b := k.Bytes()
	if _, err := cca.ParsePKA(b); err == nil {
		a.Set(p11.CKA_IBM_OPAQUE, b)
	}
}

// ownToken refuses a key token that is not one of the key beside it.
func ownToken(a p11.Attributes) error {
	blob, ok := securekey.Blob(a)
	if !ok {
		return nil
	}
	class, _ := a.Class()
	kt, _ := a.KeyType()
	wrong := p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the key token is none of a %s key", kt.Short())
	if class == p11.CKO_PRIVATE_KEY {
		k, err := cca.ParsePKA(blob)
		n, _ := a.Get(p11.CKA_MODULUS)
		if err != nil || !k.Private || (kt == p11.CKK_RSA) != (k.N != nil) || k.N == nil && k.Curve.KeyType != kt ||
			k.N != nil && new(big.Int).SetBytes(n).Cmp(new(big.Int).SetBytes(k.N)) != 0 {
			return wrong
		}
		return nil
	}
	if isHMAC(kt) {
		if v, err := cca.ParseVariable(blob); err != nil || !v.Key || v.Partial {
			return wrong
		}
		return nil
	}
	s, err := cca.ParseSymmetric(blob)
	length, _ := a.Ulong(p11.CKA_VALUE_LEN)
	if err != nil || !s.Key || s.AES != (kt == p11.CKK_AES) || !p11.FitsKey(kt, uint64(s.Size)) || length != 0 && length != uint64(s.Size) {
		return wrong
	}
	return nil
}

// bring makes a key of the card of one that has its values.
func (t *token) bring(ctx context.Context, a p11.Attributes) (key []byte, err error) {
	kt, _ := a.KeyType()
	value, _ := a.Get(p11.CKA_VALUE)
	err = t.link.call(ctx, func(via card.Transport) (err error) {
		switch {
		case kt == p11.CKK_AES:
			key, err = cca.CSNBCKM(ctx, via, nil, keyword("AES"), value)
		case kt == p11.CKK_DES || kt == p11.CKK_DES3:
			key, err = cca.CSNBCKM(ctx, via, nil, keyword("DES"), value)
		case isHMAC(kt):
			key, err = bringHMAC(ctx, via, value)
		case kt == p11.CKK_RSA || kt == p11.CKK_EC || kt == p11.CKK_EC_EDWARDS:
			key, err = t.bringPair(ctx, via, kt, a)
		default:
			err = p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the card takes keys of AES, DES, DES3, RSA, on curves, of EdDSA and for HMAC, and none of type %s", kt.Short())
		}
		return err
	})
	return key, err
}

func bringHMAC(ctx context.Context, via card.Transport, value []byte) ([]byte, error) {
	if n := 8 * len(value); n < minSecret || n > maxSecret {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the card takes keys for HMAC of %d to %d bits, not %d", minSecret, maxSecret, n)
	}
	key, err := cca.CSNBKTB2(ctx, via, nil, cca.Rules{"INTERNAL", "NO-KEY", "HMAC", "MAC", "GENERATE"}.Bytes())
	if err == nil {
		key, err = cca.CSNBKPI2(ctx, via, nil, cca.Rules{"HMAC", "FIRST", "MIN1PART"}.Bytes(), uint64(8*len(value)), value, key)
	}
	if err == nil {
		key, err = cca.CSNBKPI2(ctx, via, nil, cca.Rules{"HMAC", "COMPLETE"}.Bytes(), 0, nil, key)
	}
	return key, err
}

func (t *token) bringPair(ctx context.Context, via card.Transport, kt p11.KeyType, a p11.Attributes) ([]byte, error) {
	values, err := []byte(nil), error(nil)
	if kt == p11.CKK_RSA {
		values, err = rsaValues(a)
	} else {
		values, err = t.ecValues(kt, a)
	}
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(values)
	skeleton, err := cca.CSNDPKB(ctx, via, nil, pairRules(kt).Bytes(), values)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(skeleton) // which has the numbers
	return cca.CSNDPKI(ctx, via, nil, nil, skeleton)
}

func rsaValues(a p11.Attributes) ([]byte, error) {
	k, err := pkix.RSAPrivate(a)
	if err != nil {
		return nil, err
	}
	defer k.Wipe()
	if bits := k.N.BitLen(); bits < minRSA || bits > maxRSA {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the card takes RSA keys of %d to %d bits, not %d", minRSA, maxRSA, bits)
	}
	v := cca.RSAValues{Bits: k.N.BitLen(), N: k.N.Bytes(), E: k.E.Bytes(), P: k.P.Bytes(), Q: k.Q.Bytes(), DP: k.DP.Bytes(), DQ: k.DQ.Bytes(), Inverse: k.QInv.Bytes()}
	defer v.Wipe()
	return v.Bytes(), nil
}

func (t *token) ecValues(kt p11.KeyType, a p11.Attributes) ([]byte, error) {
	params, _ := a.Get(p11.CKA_EC_PARAMS)
	c, err := curveOf(kt, params)
	if err != nil {
		return nil, err
	}
	value, _ := a.Get(p11.CKA_VALUE)
	if kt == p11.CKK_EC_EDWARDS {
		point, err := pkix.OctetPublic(c, value)
		if err != nil {
			return nil, err
		}
		return cca.ECValues{Curve: c, Scalar: value, Point: point}.Bytes(), nil
	}
	scalar, point, err := pkix.ECPrivate(t.Arithmetic(), c, value)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(scalar)
	return cca.ECValues{Curve: c, Scalar: scalar, Point: point}.Bytes(), nil
}
