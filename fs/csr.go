package fs

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"slices"

	"p11fs/engine"
	"p11fs/p11"
	"p11fs/p11/pkix"
)

// csrName is the file of a private key that makes certificate requests.
const csrName = "csr"

// mayRequest reports whether a key can sign a certificate request. On which curve it is shows
// when it does.
func mayRequest(i engine.ObjectInfo) bool {
	return i.Class == p11.CKO_PRIVATE_KEY && i.Attrs.Bool(p11.CKA_SIGN) &&
		slices.Contains([]p11.KeyType{p11.CKK_RSA, p11.CKK_EC, p11.CKK_EC_EDWARDS}, i.KeyType)
}

// csrFile takes the names of an owner, one a line, and gives a certificate request for the
// key (PKCS #10, RFC 2986) in PEM.
func (d *objectDir) csrFile() *file {
	return (&command{
		place: d.place, path: d.path(csrName), replies: true,
		run: func(ctx context.Context, s *session, line []byte) ([]byte, error) {
			request, err := pkix.ParseRequest(string(line))
			if err != nil {
				return nil, err
			}
			key, err := d.outline(ctx, s.app.eng, d.ref)
			if err != nil {
				return nil, err
			}
			signer, err := d.signerOf(ctx, s, key)
			if err != nil {
				return nil, err
			}
			if only, restricted := key.Attrs.Mechanisms(); restricted && key.KeyType == p11.CKK_RSA && !slices.Contains(only, p11.CKM_SHA256_RSA_PKCS) {
				request.SignatureAlgorithm = x509.SHA256WithRSAPSS
			}
			der, err := x509.CreateCertificateRequest(rand.Reader, request, signer)
			var rv p11.RV
			if err != nil && !errors.As(err, &rv) {
				err = p11.Errorf(p11.CKR_ARGUMENTS_BAD, "the request: %v", err)
			}
			if err != nil {
				return nil, err
			}
			return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
		},
	}).file()
}

// A keySigner signs with a private key, for the library that writes certificate requests.
// It is of one request of a caller, whose context it has.
type keySigner struct {
	ctx    context.Context
	s      *session
	file   *keyFile
	key    engine.ObjectInfo
	public crypto.PublicKey
}

var _ crypto.MessageSigner = (*keySigner)(nil)

// signerOf reads the public half of a private key.
func (d *objectDir) signerOf(ctx context.Context, s *session, key engine.ObjectInfo) (*keySigner, error) {
	attrs := key.Attrs
	text, err := pkix.PublicPEM(attrs)
	if err != nil {
		if attrs, err = d.otherHalf(ctx, s.app.eng, key); err != nil {
			return nil, p11.Advise(p11.Errorf(p11.CKR_KEY_HANDLE_INVALID, "the public half of the key is not in the token"), "import it: it has the same id")
		}
		if text, err = pkix.PublicPEM(attrs); err != nil {
			return nil, err
		}
	}
	block, _ := pem.Decode(text)
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, p11.Advise(p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "a request is for RSA, EC on P-256, P-384 or P-521, or Ed25519: %v", err), "make a key of one of these")
	}
	file := &keyFile{objects: d.objects, ref: d.ref, keyType: key.KeyType}
	return &keySigner{ctx: ctx, s: s, file: file, key: key, public: public}, nil
}

// Public is the public half.
func (k *keySigner) Public() crypto.PublicKey { return k.public }

// Sign signs what is not hashed, that of Ed25519. The daemon hashes all else.
func (k *keySigner) Sign(random io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != 0 {
		return nil, p11.Errorf(p11.CKR_FUNCTION_NOT_SUPPORTED, "the key is given the message and not its digest")
	}
	return k.SignMessage(random, message, opts)
}

// SignMessage signs a message.
func (k *keySigner) SignMessage(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	hash := map[crypto.Hash]string{crypto.SHA256: "sha256", crypto.SHA384: "sha384", crypto.SHA512: "sha512"}[opts.HashFunc()]
	name, der := "eddsa", false
	switch k.public.(type) {
	case *rsa.PublicKey:
		name = hash + "-rsa-pkcs"
		if _, pss := opts.(*rsa.PSSOptions); pss {
			name += "-pss"
		}
	case *ecdsa.PublicKey:
		name, der = "ecdsa-"+hash, true
	}
	m, err := p11.ParseMechanism(name)
	if err != nil {
		return nil, err
	}
	u, err := k.file.use(k.ctx, k.s, k.key, p11.CKF_SIGN, m)
	if err != nil {
		return nil, err
	}
	defer u.close()
	u.der = der
	if _, err := u.update(k.ctx, bytes.Clone(message)); err != nil {
		return nil, err
	}
	return u.result(k.ctx)
}
