package pkix

import (
	"bytes"
	"crypto/hmac"
	"encoding/asn1"
	"fmt"
	"hash"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"p11fs/p11"
	"p11fs/secret"
)

// Contents and bags of PKCS#12 (RFC 7292 §4).
const (
	oidData          = "1.2.840.113549.1.7.1"
	oidEncryptedData = "1.2.840.113549.1.7.6"

	oidKeyBag       = "1.2.840.113549.1.12.10.1.1"
	oidShroudedBag  = "1.2.840.113549.1.12.10.1.2"
	oidCertBag      = "1.2.840.113549.1.12.10.1.3"
	oidSecretBag    = "1.2.840.113549.1.12.10.1.5"
	oidNestedBag    = "1.2.840.113549.1.12.10.1.6"
	oidX509Cert     = "1.2.840.113549.1.9.22.1"
	oidFriendlyName = "1.2.840.113549.1.9.20"
)

// pkcs12 reads a PFX (RFC 7292 §4) that is protected by a pass phrase. The
// integrity of the file is checked before anything in it is used. It may be in BER, as
// may be what it encrypts.
func (p *parser) pkcs12(data []byte) error {
	var pfx, safe cryptobyte.String
	var version int
	der, ok := toDER(data)
	defer secret.Wipe(der)
	in := cryptobyte.String(der)
	if !ok || !in.ReadASN1(&pfx, cbasn1.SEQUENCE) || !in.Empty() || !pfx.ReadASN1Integer(&version) || version != 3 {
		return invalid(formPKCS12)
	}
	oid, content, ok := readContent(&pfx)
	if !ok || oid != oidData || !content.ReadASN1(&safe, cbasn1.OCTET_STRING) {
		return p11.Errorf(p11.CKR_DATA_INVALID, "a PKCS#12 file that is damaged, or signed and not protected by a pass phrase")
	}
	if !pfx.Empty() {
		if err := p.checkMAC(&pfx, safe); err != nil {
			return err
		}
	}
	var contents cryptobyte.String
	inner, ok := toDER(safe)
	defer secret.Wipe(inner)
	safe = inner
	if !ok || !safe.ReadASN1(&contents, cbasn1.SEQUENCE) || !safe.Empty() {
		return invalid(formPKCS12)
	}
	for !contents.Empty() {
		if err := p.safeContent(&contents); err != nil {
			return err
		}
	}
	return nil
}

// readContent reads a ContentInfo: its type, and what is inside its [0].
func readContent(s *cryptobyte.String) (oid string, content cryptobyte.String, ok bool) {
	var info cryptobyte.String
	var id asn1.ObjectIdentifier
	ok = s.ReadASN1(&info, cbasn1.SEQUENCE) && info.ReadASN1ObjectIdentifier(&id) &&
		info.ReadASN1(&content, cbasn1.Tag(0).ContextSpecific().Constructed()) && info.Empty()
	return id.String(), content, ok
}

// safeContent reads one part of the AuthenticatedSafe.
func (p *parser) safeContent(contents *cryptobyte.String) error {
	oid, content, ok := readContent(contents)
	if !ok {
		return invalid(formPKCS12)
	}
	switch oid {
	case oidData:
		var bags cryptobyte.String
		if !content.ReadASN1(&bags, cbasn1.OCTET_STRING) || !content.Empty() {
			return invalid(formPKCS12)
		}
		return p.bags(bags, 0)
	case oidEncryptedData:
		// EncryptedData (RFC 5652 §8): version, { type, algorithm, [0] IMPLICIT data }.
		var s, info, data cryptobyte.String
		var version int
		var id asn1.ObjectIdentifier
		if !content.ReadASN1(&s, cbasn1.SEQUENCE) || !s.ReadASN1Integer(&version) ||
			!s.ReadASN1(&info, cbasn1.SEQUENCE) || !info.ReadASN1ObjectIdentifier(&id) || id.String() != oidData {
			return invalid(formPKCS12)
		}
		alg, ok := readAlgorithm(&info)
		if !ok || !readOctets(&info, &data) {
			return invalid(formPKCS12)
		}
		plain, err := p.decrypt(alg, data)
		if err != nil {
			return err
		}
		defer secret.Wipe(plain)
		if _, ok := firstElement(plain); !ok {
			return p.wrongPassphrase()
		}
		return p.bags(plain, 0)
	}
	return p11.Errorf(p11.CKR_DATA_INVALID, "a PKCS#12 file with contents %s, which are not supported", clip(oid))
}

// readOctets reads the data of an [0] IMPLICIT OCTET STRING, which in BER may be in
// pieces: toDER cannot tell that from other elements of that tag.
func readOctets(s *cryptobyte.String, data *cryptobyte.String) bool {
	tag := cbasn1.Tag(0).ContextSpecific()
	if s.PeekASN1Tag(tag) {
		return s.ReadASN1(data, tag)
	}
	var pieces cryptobyte.String
	if !s.ReadASN1(&pieces, tag.Constructed()) {
		return false
	}
	for !pieces.Empty() {
		var piece cryptobyte.String
		if !pieces.ReadASN1(&piece, cbasn1.OCTET_STRING) {
			return false
		}
		*data = append(*data, piece...)
	}
	return true
}

// bags reads SafeContents. Bags of other sorts, such as revocation lists, are
// left out, as are certificates that are not X.509.
func (p *parser) bags(data []byte, depth int) error {
	if depth > maxDepth {
		return p11.Errorf(p11.CKR_DATA_LEN_RANGE, "a PKCS#12 file with bags in more than %d others", maxDepth)
	}
	der, ok := toDER(data)
	defer secret.Wipe(der)
	var s cryptobyte.String
	in := cryptobyte.String(der)
	if !ok || !in.ReadASN1(&s, cbasn1.SEQUENCE) || !in.Empty() {
		return invalid(formPKCS12)
	}
	for !s.Empty() {
		var bag, value cryptobyte.String
		var id asn1.ObjectIdentifier
		if !s.ReadASN1(&bag, cbasn1.SEQUENCE) || !bag.ReadASN1ObjectIdentifier(&id) ||
			!bag.ReadASN1(&value, cbasn1.Tag(0).ContextSpecific().Constructed()) {
			return invalid(formPKCS12)
		}
		label := friendlyName(bag)
		var err error
		switch id.String() {
		case oidKeyBag:
			err = p.pkcs8(value, label)
		case oidShroudedBag:
			err = p.pkcs8Encrypted(value, label)
		case oidCertBag:
			err = p.certBag(value, label)
		case oidSecretBag:
			err = p.secretBag(value, label)
		case oidNestedBag:
			err = p.bags(value, depth+1)
		default:
			err = p.skip(named("a PKCS#12 bag of type "+clip(id.String()), label))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) certBag(der cryptobyte.String, label string) error {
	var s, value, cert cryptobyte.String
	var id asn1.ObjectIdentifier
	if !der.ReadASN1(&s, cbasn1.SEQUENCE) || !s.ReadASN1ObjectIdentifier(&id) ||
		!s.ReadASN1(&value, cbasn1.Tag(0).ContextSpecific().Constructed()) ||
		!value.ReadASN1(&cert, cbasn1.OCTET_STRING) {
		return invalid(formPKCS12)
	}
	if id.String() != oidX509Cert {
		return p.skip(named("a certificate that is not X.509", label))
	}
	return p.certificate(cert, label)
}

// secretBag reads a secret key as Java's key stores have it: in a PrivateKeyInfo, which
// is encrypted as a private key is. What else a bag may hold is its writer's secret.
func (p *parser) secretBag(value cryptobyte.String, label string) error {
	var s, sealed cryptobyte.String
	var id asn1.ObjectIdentifier
	if !value.ReadASN1(&s, cbasn1.SEQUENCE) || !s.ReadASN1ObjectIdentifier(&id) ||
		!s.ReadASN1(&s, cbasn1.Tag(0).ContextSpecific().Constructed()) {
		return invalid(formPKCS12)
	}
	if id.String() != oidShroudedBag || !s.ReadASN1(&sealed, cbasn1.OCTET_STRING) {
		return p.skip(named("a secret of type "+clip(id.String()), label))
	}
	plain, err := p.openPKCS8(sealed)
	if err != nil {
		return err
	}
	defer secret.Wipe(plain)
	alg, key, ok := splitPKCS8(plain)
	if !ok {
		return invalid(formPKCS8)
	}
	kt := p11.CKK_GENERIC_SECRET
	switch {
	case alg.oid == oidAES || strings.HasPrefix(alg.oid, oidAES+"."):
		kt = p11.CKK_AES
	case hmacOf(alg.oid) == nil:
		return p.skip(named("a secret key of algorithm "+clip(alg.oid), label))
	}
	if !p11.FitsKey(kt, uint64(len(key))) {
		return p11.Errorf(p11.CKR_DATA_INVALID, "%s", named(fmt.Sprintf("a secret key of %d bytes, which is no length of one for %s", len(key), kt.Short()), label))
	}
	var a p11.Attributes
	a.SetUlong(p11.CKA_KEY_TYPE, uint64(kt))
	a.Set(p11.CKA_VALUE, bytes.Clone(key))
	return p.add(p11.CKO_SECRET_KEY, nil, label, a)
}

// named is what, with its label.
func named(what, label string) string {
	if label != "" {
		return fmt.Sprintf("%s, %q", what, label)
	}
	return what
}

// friendlyName finds the name among a bag's attributes; it is empty if there is
// none that can be read.
func friendlyName(bag cryptobyte.String) string {
	var set cryptobyte.String
	if !bag.ReadASN1(&set, cbasn1.SET) {
		return ""
	}
	for !set.Empty() {
		var attr, values, text cryptobyte.String
		var id asn1.ObjectIdentifier
		if !set.ReadASN1(&attr, cbasn1.SEQUENCE) || !attr.ReadASN1ObjectIdentifier(&id) || !attr.ReadASN1(&values, cbasn1.SET) {
			return ""
		}
		if id.String() == oidFriendlyName && values.ReadASN1(&text, tagBMPString) {
			return cleanLabel(decodeText(tagBMPString, text))
		}
	}
	return ""
}

// checkMAC checks MacData (RFC 7292 §4, RFC 9579) over data.
func (p *parser) checkMAC(s *cryptobyte.String, data []byte) error {
	var mac, info, digest cryptobyte.String
	if !s.ReadASN1(&mac, cbasn1.SEQUENCE) || !s.Empty() || !mac.ReadASN1(&info, cbasn1.SEQUENCE) {
		return invalid(formPKCS12)
	}
	alg, ok := readAlgorithm(&info)
	if !ok || !info.ReadASN1(&digest, cbasn1.OCTET_STRING) {
		return invalid(formPKCS12)
	}
	var salt []byte
	rounds := 1
	if !mac.ReadASN1Bytes(&salt, cbasn1.OCTET_STRING) || len(salt) > maxSalt || !mac.Empty() && !mac.ReadASN1Integer(&rounds) {
		return invalid(formPKCS12)
	}
	good := false
	var err error
	p.pass.Use(func(pass []byte) {
		if alg.oid == oidPBMAC1 {
			var sum []byte
			sum, err = p.pbmac1(alg.params, pass, data)
			good = err == nil && hmac.Equal(sum, digest)
			return
		}
		h := macHash(alg.oid)
		if h == nil {
			err = p11.Errorf(p11.CKR_DATA_INVALID, "a PKCS#12 file with digest %s, which is not supported", clip(alg.oid))
			return
		}
		tries := 1
		if len(pass) == 0 {
			tries = 2 // writers differ on what an empty pass phrase is
		}
		for i := 0; i < tries && !good && err == nil; i++ {
			p.bareEmpty = i == 1
			if err = p.spend(rounds, 1); err == nil {
				good = hmac.Equal(p.pkcs12MAC(h, pass, salt, rounds, data), digest)
			}
		}
	})
	if err == nil && !good {
		err = p.wrongPassphrase()
	}
	return err
}

func (p *parser) pkcs12MAC(h func() hash.Hash, pass, salt []byte, rounds int, data []byte) []byte {
	bmp := p.bmpString(pass)
	defer secret.Wipe(bmp)
	key := pkcs12KDF(h, kdfMAC, bmp, salt, rounds, h().Size())
	defer secret.Wipe(key)
	m := hmac.New(h, key)
	m.Write(data)
	return m.Sum(nil)
}

// macHash returns the hash of a digest algorithm, nil if unknown.
func macHash(oid string) func() hash.Hash {
	for _, h := range p11.Hashes() {
		if h.OID == oid && h.Go != 0 {
			return h.Go.New
		}
	}
	return nil
}
