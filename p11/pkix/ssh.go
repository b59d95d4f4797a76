package pkix

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/ssh"

	"p11fs/p11"
	"p11fs/secret"
)

// looksLikeSSH says whether data is a line of a .pub file.
func looksLikeSSH(data []byte) bool {
	return bytes.HasPrefix(data, []byte("ssh-")) || bytes.HasPrefix(data, []byte("ecdsa-sha2-"))
}

// sshPublic reads public keys as OpenSSH keeps them, one a line. The comment
// becomes the label.
func (p *parser) sshPublic(data []byte) error {
	for rest := data; len(bytes.TrimSpace(rest)) > 0; {
		line, tail, _ := bytes.Cut(rest, []byte("\n"))
		rest = tail
		if line = bytes.TrimSpace(line); len(line) == 0 || line[0] == '#' {
			continue
		}
		key, comment, _, _, err := ssh.ParseAuthorizedKey(line)
		if err != nil {
			return p11.Errorf(p11.CKR_DATA_INVALID, "OpenSSH public key: %v", err)
		}
		crypto, ok := key.(ssh.CryptoPublicKey)
		if !ok {
			return p11.Errorf(p11.CKR_DATA_INVALID, "OpenSSH keys of type %s are not supported", clip(key.Type()))
		}
		der, err := x509.MarshalPKIXPublicKey(crypto.CryptoPublicKey())
		if err != nil {
			return p11.Errorf(p11.CKR_DATA_INVALID, "OpenSSH keys of type %s are not supported", clip(key.Type()))
		}
		before := len(p.out)
		if err := p.spki(der); err != nil {
			return err
		}
		if label := cleanLabel(comment); label != "" && len(p.out) > before {
			p.out[before].attrs.Set(p11.CKA_LABEL, []byte(label))
		}
	}
	return nil
}

// sshPrivate reads the private key format of OpenSSH 6.5 and later.
func (p *parser) sshPrivate(data []byte) error {
	if len(data) > maxKeyDER {
		return p11.Errorf(p11.CKR_DATA_LEN_RANGE, "the OpenSSH key is too long")
	}
	encrypted, err := p.sshRounds(data)
	if err != nil {
		return err
	}
	if encrypted && p.pass.Len() == 0 {
		return p.wrongPassphrase()
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: data})
	defer secret.Wipe(block)
	var key any
	if encrypted {
		p.pass.Use(func(pass []byte) { key, err = ssh.ParseRawPrivateKeyWithPassphrase(block, pass) })
	} else {
		key, err = ssh.ParseRawPrivateKey(block)
	}
	switch {
	case err == x509.IncorrectPasswordError: //nolint:errorlint // returned as it is
		return p.wrongPassphrase()
	case err != nil:
		return p11.Errorf(p11.CKR_DATA_INVALID, "%s: %v", formOpenSSHPrivate, err)
	}
	switch k := key.(type) {
	case *ed25519.PrivateKey:
		defer secret.Wipe(*k)
		key = *k
	case *rsa.PrivateKey, *ecdsa.PrivateKey:
	default:
		return p11.Errorf(p11.CKR_DATA_INVALID, "%s of a type that is not supported", formOpenSSHPrivate)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return p11.Errorf(p11.CKR_DATA_INVALID, "%s: %v", formOpenSSHPrivate, err)
	}
	defer secret.Wipe(der)
	return p.pkcs8(der, "")
}

// sshRounds reads the head of an OpenSSH key: whether it is encrypted, and that
// the rounds of bcrypt it asks for are bearable.
func (p *parser) sshRounds(data []byte) (encrypted bool, err error) {
	const magic = "openssh-key-v1\x00"
	bad := invalid(formOpenSSHPrivate)
	if !bytes.HasPrefix(data, []byte(magic)) {
		return false, bad
	}
	s := cryptobyte.String(data[len(magic):])
	var cipherName, kdfName, kdfOptions, salt cryptobyte.String
	var rounds uint32
	if !readSSH(&s, &cipherName) || !readSSH(&s, &kdfName) || !readSSH(&s, &kdfOptions) {
		return false, bad
	}
	switch string(kdfName) {
	case "none":
		return false, nil
	case "bcrypt":
	default:
		return false, p11.Errorf(p11.CKR_DATA_INVALID, "an OpenSSH key with key derivation %q, which is not supported", clip(string(kdfName)))
	}
	if !readSSH(&kdfOptions, &salt) || !kdfOptions.ReadUint32(&rounds) {
		return false, bad
	}
	if err := p.spend(int(rounds), bcryptWork); err != nil {
		return false, err
	}
	return true, nil
}

// readSSH reads a string of RFC 4251 §5.
func readSSH(s, out *cryptobyte.String) bool {
	var n uint32
	return s.ReadUint32(&n) && s.ReadBytes((*[]byte)(out), int(n))
}

// PublicSSH prints the public key of a key or certificate as a line for
// authorized_keys, with comment at its end if that is not empty. OpenSSH has no
// form for P-224 and for curves other than those of NIST:
// CKR_CURVE_NOT_SUPPORTED. Other errors are those of PublicPEM.
func PublicSSH(attrs p11.Attributes, comment string) ([]byte, error) {
	key, err := publicKey(attrs)
	if err != nil {
		return nil, err
	}
	pub, err := ssh.NewPublicKey(key)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_CURVE_NOT_SUPPORTED, "OpenSSH has no form for this key")
	}
	line := bytes.TrimSuffix(ssh.MarshalAuthorizedKey(pub), []byte("\n"))
	if comment = cleanLabel(comment); comment != "" {
		line = append(append(line, ' '), strings.TrimSpace(comment)...)
	}
	return append(line, '\n'), nil
}
