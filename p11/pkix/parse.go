package pkix

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"p11fs/p11"
	"p11fs/secret"
)

// Parse reads a file and returns one template for each object in it: a private
// key gives a private and a public key object, a certificate one certificate
// object; a file of [Template] is taken as it is. The same object is returned once. The templates are the caller's, to
// wipe too; data is neither kept nor changed.
func Parse(kind Kind, data []byte, opt Options) (templates []p11.Attributes, err error) {
	return parse(kind, data, opt, maxWork)
}

// parse is Parse with a bound on the key derivation.
func parse(kind Kind, data []byte, opt Options, work int) ([]p11.Attributes, error) {
	if len(data) > MaxSize {
		return nil, p11.Errorf(p11.CKR_DATA_LEN_RANGE, "the file is longer than %d bytes", MaxSize)
	}
	if opt.Passphrase.Len() > maxPassphrase {
		return nil, p11.Errorf(p11.CKR_DATA_LEN_RANGE, "the pass phrase is longer than %d bytes", maxPassphrase)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, p11.Errorf(p11.CKR_DATA_INVALID, "the file is empty")
	}
	if kind == Template {
		return parseTemplates(data)
	}
	p := &parser{kind: kind, pass: opt.Passphrase, work: work, skipped: opt.Skipped, arithmetic: opt.Arithmetic}
	if err := p.file(data); err != nil {
		p.wipe()
		return nil, err
	}
	return p.finish()
}

// parser gathers what one file holds.
type parser struct {
	kind Kind
	pass *secret.Bytes
	work int // hash rounds left for key derivation
	// bareEmpty says that the PKCS#12 file at hand takes an empty pass phrase
	// as no bytes at all, and not as a terminator.
	bareEmpty  bool
	out        []object
	groups     []pem.Block       // domain parameters
	skipped    func(what string) // may be nil
	arithmetic Arithmetic        // may be nil
	first      string            // of what was left out
	left       int               // how much that is
}

// object is one template on its way out.
type object struct {
	class p11.ObjectClass
	id    string // CKA_ID
	attrs p11.Attributes
}

// skip leaves something out that is no key: where there is nothing else, that is an
// error.
func (p *parser) skip(what string) error {
	if p.first == "" {
		p.first = what
	}
	if p.left++; p.left > maxObjects {
		return p11.Errorf(p11.CKR_DATA_LEN_RANGE, "the file holds more than %d things that are no key or certificate", maxObjects)
	}
	if p.skipped != nil {
		p.skipped(what)
	}
	return nil
}

func (p *parser) file(data []byte) error {
	const begin, mark = "-----BEGIN ", "\ufeff" // of the byte order
	data = bytes.TrimPrefix(data, []byte(mark))
	if bytes.Contains(data, []byte(mark+begin)) { // of files that were put together
		data = bytes.ReplaceAll(data, []byte(mark+begin), []byte(begin))
		defer secret.Wipe(data)
	}
	if bytes.HasPrefix(data, []byte(begin)) || bytes.Contains(data, []byte("\n"+begin)) {
		if p.kind == DER || p.kind == PKCS12 {
			return p11.Errorf(p11.CKR_DATA_INVALID, "a PEM file, where %s was wanted", p.kind)
		}
		return p.pemFile(data)
	}
	if p.kind == PEM {
		return p11.Errorf(p11.CKR_DATA_INVALID, "no PEM block in the file")
	}
	if p.kind != DER && looksLikeSSH(data) {
		return p.one(formOpenSSHPublic, data)
	}
	f := sniff(data)
	if f != formUnknown {
		return p.one(f, data)
	}
	if _, _, ok := readCertificate(data); ok {
		return p.one(formCertificate, data)
	}
	der, ok := toDER(data)
	if !ok {
		return p.one(f, data)
	}
	defer secret.Wipe(der)
	return p.one(sniff(der), der)
}

// pemFile reads all blocks of a PEM file. A damaged block is an error: leaving
// it out would store half a bundle.
func (p *parser) pemFile(data []byte) error {
	want := bytes.Count(append([]byte("\n"), data...), []byte("\n-----BEGIN "))
	for rest := data; ; want-- {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			if want != 0 {
				return p11.Errorf(p11.CKR_DATA_INVALID, "a PEM block is damaged")
			}
			return p.parameters()
		}
		err := p.pemBlock(block)
		secret.Wipe(block.Bytes)
		if err != nil {
			return err
		}
	}
}

// parameters takes the domain parameters of a file where it has nothing else. Beside a
// key they are those of openssl dsaparam, which the key repeats, or a server's.
func (p *parser) parameters() error {
	alone := len(p.out) == 0
	for _, b := range p.groups {
		var err error
		switch f := formDHParameters; {
		case b.Type == "DSA PARAMETERS" && !alone:
		case !alone:
			err = p.skip(pemOf(b.Type))
		default:
			if b.Type == "DSA PARAMETERS" {
				f = formDSAParameters
			}
			err = p.one(f, b.Bytes)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// pemOf is what a block that is not taken is called.
func pemOf(kind string) string { return fmt.Sprintf("a PEM block of type %q", clip(kind)) }

func (p *parser) pemBlock(block *pem.Block) error {
	var f form
	switch block.Type {
	case "RSA PRIVATE KEY":
		f = formPKCS1Private
	case "EC PRIVATE KEY":
		f = formSEC1
	case "DSA PRIVATE KEY":
		f = formDSAPrivate
	case "DSA PARAMETERS", "DH PARAMETERS":
		p.groups = append(p.groups, pem.Block{Type: block.Type, Bytes: bytes.Clone(block.Bytes)})
		return nil
	case "PRIVATE KEY":
		f = formPKCS8
	case "ENCRYPTED PRIVATE KEY":
		f = formPKCS8Encrypted
	case "OPENSSH PRIVATE KEY":
		f = formOpenSSHPrivate
	case "RSA PUBLIC KEY":
		f = formPKCS1Public
	case "PUBLIC KEY":
		f = formSPKI
	case "CERTIFICATE", "X509 CERTIFICATE":
		f = formCertificate
	case "TRUSTED CERTIFICATE":
		// OpenSSL's form: its own trust settings follow the certificate.
		f = formCertificate
		if cert, ok := firstElement(block.Bytes); ok {
			return p.one(f, cert)
		}
	case "EC PARAMETERS":
		return nil // openssl ecparam puts the curve before the key, which repeats it
	default:
		what := pemOf(block.Type)
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return p11.Errorf(p11.CKR_DATA_INVALID, "%s, which is not supported", what)
		}
		return p.skip(what)
	}
	if !strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
		return p.one(f, block.Bytes)
	}
	der, err := p.decryptPEM(block)
	if err != nil {
		return err
	}
	defer secret.Wipe(der)
	if sniff(der) != f {
		return p.wrongPassphrase()
	}
	return p.one(f, der)
}

// decryptPEM opens the encryption of RFC 1421 as OpenSSL's traditional keys use
// it: one MD5 of the pass phrase, so that there is no work to bound.
func (p *parser) decryptPEM(block *pem.Block) (der []byte, err error) {
	if p.pass.Len() == 0 {
		return nil, p.wrongPassphrase()
	}
	p.pass.Use(func(pass []byte) {
		der, err = x509.DecryptPEMBlock(block, pass) //nolint:staticcheck // deprecated for new files; old keys still come so
	})
	switch {
	case err == x509.IncorrectPasswordError: //nolint:errorlint // returned as it is
		return nil, p.wrongPassphrase()
	case err != nil:
		return nil, p11.Errorf(p11.CKR_DATA_INVALID, "encrypted PEM block: %v", err)
	}
	return der, nil
}

// one reads a single structure.
func (p *parser) one(f form, data []byte) error {
	if f == formUnknown {
		return p11.Errorf(p11.CKR_DATA_INVALID, "this has no known form (DER, PEM, PKCS#8, PKCS#12, OpenSSH)")
	}
	if !p.kind.takes(f) {
		return p11.Errorf(p11.CKR_DATA_INVALID, "this is %s, where %s was wanted", f, p.kind)
	}
	switch f {
	case formPKCS1Private:
		return p.private(rsaType(), algorithm{}, data, "")
	case formSEC1:
		return p.private(ecType(), algorithm{}, data, "")
	case formDSAPrivate:
		return p.dsaPrivate(data)
	case formDSAParameters:
		return p.group(p11.CKK_DSA, data)
	case formDHParameters:
		return p.group(p11.CKK_DH, data)
	case formPKCS8:
		return p.pkcs8(data, "")
	case formPKCS8Encrypted:
		return p.pkcs8Encrypted(data, "")
	case formPKCS12:
		return p.pkcs12(data)
	case formPKCS1Public:
		return p.public(algorithm{oid: oidRSA}, data)
	case formSPKI:
		return p.spki(data)
	case formCertificate:
		return p.certificate(data, "")
	case formOpenSSHPrivate:
		return p.sshPrivate(data)
	default:
		return p.sshPublic(data)
	}
}

// sniff tells the DER structures apart by their first elements.
func sniff(data []byte) form {
	in := cryptobyte.String(data)
	var s cryptobyte.String
	if !in.ReadASN1(&s, asn1.SEQUENCE) || !in.Empty() {
		return formUnknown
	}
	var first, second cryptobyte.String
	var t1, t2 asn1.Tag
	if !s.ReadAnyASN1(&first, &t1) || !s.ReadAnyASN1(&second, &t2) {
		return formUnknown
	}
	rest, integers := s, 2 // integers that there are, if there is nothing else
	for rest.PeekASN1Tag(asn1.INTEGER) && rest.SkipASN1(asn1.INTEGER) {
		integers++
	}
	third := !s.Empty()
	switch {
	case t1 == asn1.INTEGER && t2 == asn1.SEQUENCE && len(first) == 1 && first[0] == 3:
		return formPKCS12
	case t1 == asn1.INTEGER && t2 == asn1.SEQUENCE:
		return formPKCS8
	case t1 == asn1.INTEGER && t2 == asn1.OCTET_STRING:
		return formSEC1
	case t1 == asn1.INTEGER && t2 == asn1.INTEGER && integers == dsaPrivateNumbers && rest.Empty():
		return formDSAPrivate
	case t1 == asn1.INTEGER && t2 == asn1.INTEGER && third:
		return formPKCS1Private
	case t1 == asn1.INTEGER && t2 == asn1.INTEGER:
		return formPKCS1Public
	case t1 == asn1.SEQUENCE && t2 == asn1.OCTET_STRING:
		return formPKCS8Encrypted
	case t1 == asn1.SEQUENCE && t2 == asn1.BIT_STRING:
		return formSPKI
	case t1 == asn1.SEQUENCE && t2 == asn1.SEQUENCE && third:
		return formCertificate
	}
	return formUnknown
}

// firstElement returns the first ASN.1 element of der, with its header.
func firstElement(der []byte) ([]byte, bool) {
	in := cryptobyte.String(der)
	var e cryptobyte.String
	var t asn1.Tag
	ok := in.ReadAnyASN1Element(&e, &t)
	return e, ok
}

// add takes over attrs.
func (p *parser) add(class p11.ObjectClass, id []byte, label string, attrs p11.Attributes) error {
	if len(p.out) >= maxObjects {
		attrs.Wipe()
		return p11.Errorf(p11.CKR_DATA_LEN_RANGE, "the file holds more than %d objects", maxObjects)
	}
	attrs.SetUlong(p11.CKA_CLASS, uint64(class))
	if id != nil {
		attrs.Set(p11.CKA_ID, bytes.Clone(id))
	}
	if label != "" {
		attrs.Set(p11.CKA_LABEL, []byte(label))
	}
	p.out = append(p.out, object{class: class, id: string(id), attrs: attrs})
	return nil
}

// finish leaves out what came twice, and gives the keys the subjects, and if
// they have none the labels, of their certificates.
func (p *parser) finish() ([]p11.Attributes, error) {
	if len(p.out) == 0 {
		but := ""
		if p.first != "" {
			but = ", but " + p.first
		}
		return nil, p11.Errorf(p11.CKR_DATA_INVALID, "no key or certificate in the file%s", but)
	}
	certs := make(map[string]p11.Attributes)
	labels := make(map[string]string) // of keys
	for _, o := range p.out {
		if o.class == p11.CKO_CERTIFICATE {
			if _, ok := certs[o.id]; !ok {
				certs[o.id] = o.attrs
			}
		} else if l := o.attrs.Label(); l != "" && o.id != "" && labels[o.id] == "" {
			labels[o.id] = l
		}
	}
	seen := make(map[string]bool)
	templates := make([]p11.Attributes, 0, len(p.out))
	for _, o := range p.out {
		key := o.class.String() + "\x00" + o.id
		if o.class == p11.CKO_DOMAIN_PARAMETERS {
			prime, _ := o.attrs.Get(p11.CKA_PRIME)
			key += "\x00" + string(prime)
		}
		if o.class == p11.CKO_CERTIFICATE || o.class == p11.CKO_SECRET_KEY {
			value, _ := o.attrs.Get(p11.CKA_VALUE)
			sum := sha256.Sum256(value)
			key += "\x00" + string(sum[:])
		}
		if seen[key] {
			o.attrs.Wipe()
			continue
		}
		seen[key] = true
		if o.id != "" && o.class != p11.CKO_CERTIFICATE {
			o.describe(certs[o.id], labels[o.id])
		}
		templates = append(templates, o.attrs)
	}
	p.out = nil
	return templates, nil
}

// describe names a key after its certificate.
func (o *object) describe(cert p11.Attributes, label string) {
	if subject, ok := cert.Get(p11.CKA_SUBJECT); ok {
		o.attrs.Set(p11.CKA_SUBJECT, bytes.Clone(subject))
	}
	if label == "" {
		label = cert.Label()
	}
	if label != "" && !o.attrs.Has(p11.CKA_LABEL) {
		o.attrs.Set(p11.CKA_LABEL, []byte(label))
	}
}

func (p *parser) wipe() {
	for _, o := range p.out {
		o.attrs.Wipe()
	}
	p.out = nil
}

// wrongPassphrase is the error for a pass phrase that did not open the file.
func (p *parser) wrongPassphrase() error {
	if p.pass.Len() == 0 {
		return p11.Errorf(p11.CKR_PIN_INCORRECT, "the file is encrypted and needs a pass phrase")
	}
	return p11.Errorf(p11.CKR_PIN_INCORRECT, "the pass phrase does not open the file, or the file is damaged")
}

// clip keeps text from a file short in an error.
func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

// invalid is the error for a structure that is not what it says.
func invalid(what form) error {
	return p11.Errorf(p11.CKR_DATA_INVALID, "%s that is damaged or not in DER", what)
}
