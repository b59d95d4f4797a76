package pkix_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
)

const passphrase = "correct horse"

func options(t testing.TB, pass string) pkix.Options {
	t.Helper()
	if pass == "" {
		return pkix.Options{}
	}
	s, err := secret.New([]byte(pass))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return pkix.Options{Passphrase: s}
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata/files", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// pemBytes is what the first PEM block of a file holds.
func pemBytes(t testing.TB, name string) []byte {
	t.Helper()
	block, _ := pem.Decode(readFile(t, name))
	return block.Bytes
}

// plain turns attributes into something that cmp can compare and print; the
// keys are test keys.
func plain(a p11.Attributes) map[string]string {
	m := make(map[string]string)
	for _, at := range a {
		m[at.Type.String()] = string(at.Value)
	}
	return m
}

// pair is what a key file must give, worked out by Go's own parsers.
func pair(t *testing.T, name string) (priv, pub p11.Attributes) {
	t.Helper()
	block, _ := pem.Decode(readFile(t, name+".pub.pem"))
	var info struct {
		Algorithm struct {
			OID    asn1.ObjectIdentifier
			Params asn1.RawValue `asn1:"optional"`
		}
		Key asn1.BitString
	}
	if _, err := asn1.Unmarshal(block.Bytes, &info); err != nil {
		t.Fatal(err)
	}
	id := sha1.Sum(info.Key.Bytes)
	for _, a := range []*p11.Attributes{&priv, &pub} {
		a.Set(p11.CKA_ID, id[:])
	}
	priv.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_PRIVATE_KEY))
	pub.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_PUBLIC_KEY))
	both := func(at p11.AttributeType, v []byte) {
		priv.Set(at, v)
		pub.Set(at, v)
	}
	point := func() {
		der, err := asn1.Marshal(info.Key.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		pub.Set(p11.CKA_EC_POINT, der)
	}
	der := readFile(t, name+".p8.der")
	if kt := octetKeyType(name); kt != 0 {
		both(p11.CKA_KEY_TYPE, p11.Ulong(kt))
		both(p11.CKA_EC_PARAMS, must(asn1.Marshal(info.Algorithm.OID)))
		priv.Set(p11.CKA_VALUE, der[len(der)-len(info.Key.Bytes):]) // an OCTET STRING in one, at the end
		point()
		return priv, pub
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil { // a curve that Go does not know: PKCS#8, SEC1, octet string
		var p8 struct {
			Version   int
			Algorithm asn1.RawValue
			Key       []byte
		}
		var sec1 struct {
			Version int
			Key     []byte
			Rest    asn1.RawValue
		}
		if _, err := asn1.Unmarshal(der, &p8); err != nil {
			t.Fatal(err)
		}
		if _, err := asn1.Unmarshal(p8.Key, &sec1); err != nil {
			t.Fatal(err)
		}
		both(p11.CKA_KEY_TYPE, p11.Ulong(p11.CKK_EC))
		both(p11.CKA_EC_PARAMS, info.Algorithm.Params.FullBytes)
		priv.Set(p11.CKA_VALUE, sec1.Key)
		point()
		told, _ := pub.Get(p11.CKA_EC_POINT)
		priv.Set(p11.CKA_EC_POINT, told)
		return priv, pub
	}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		both(p11.CKA_KEY_TYPE, p11.Ulong(p11.CKK_RSA))
		both(p11.CKA_MODULUS, k.N.Bytes())
		both(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})
		priv.Set(p11.CKA_PRIVATE_EXPONENT, k.D.Bytes())
		priv.Set(p11.CKA_PRIME_1, k.Primes[0].Bytes())
		priv.Set(p11.CKA_PRIME_2, k.Primes[1].Bytes())
		priv.Set(p11.CKA_EXPONENT_1, k.Precomputed.Dp.Bytes())
		priv.Set(p11.CKA_EXPONENT_2, k.Precomputed.Dq.Bytes())
		priv.Set(p11.CKA_COEFFICIENT, k.Precomputed.Qinv.Bytes())
	case *ecdsa.PrivateKey:
		value, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		both(p11.CKA_KEY_TYPE, p11.Ulong(p11.CKK_EC))
		both(p11.CKA_EC_PARAMS, info.Algorithm.Params.FullBytes)
		priv.Set(p11.CKA_VALUE, value)
		point()
	}
	return priv, pub
}

// octetKeyType is the type of keys that are strings of bytes, by the file's name.
func octetKeyType(name string) p11.KeyType {
	return map[string]p11.KeyType{
		"ed25519": p11.CKK_EC_EDWARDS, "ed448": p11.CKK_EC_EDWARDS, "x25519": p11.CKK_EC_MONTGOMERY, "x448": p11.CKK_EC_MONTGOMERY,
	}[name]
}

// shortOctet is a PKCS#8 file of a key that is a string of bytes, without its last one.
func shortOctet(t *testing.T, name string) []byte {
	der := readFile(t, name)
	oid := der[5:12] // SEQUENCE { INTEGER, SEQUENCE { OID }, …
	value := der[16:]
	return seq(el(2, []byte{0}), oid, el(4, el(4, value[:len(value)-1])))
}

// certificate is what a certificate file must give.
func certificate(t *testing.T, name, label string) p11.Attributes {
	t.Helper()
	block, _ := pem.Decode(readFile(t, name+".crt.pem"))
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := asn1.Marshal(c.SerialNumber)
	if err != nil {
		t.Fatal(err)
	}
	var a p11.Attributes
	a.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_CERTIFICATE))
	a.SetUlong(p11.CKA_CERTIFICATE_TYPE, uint64(p11.CKC_X_509))
	// The subject key identifier is the same hash of the same bits.
	a.Set(p11.CKA_ID, c.SubjectKeyId)
	a.Set(p11.CKA_SUBJECT, c.RawSubject)
	a.Set(p11.CKA_ISSUER, c.RawIssuer)
	a.Set(p11.CKA_SERIAL_NUMBER, serial)
	a.Set(p11.CKA_VALUE, c.Raw)
	if label != "" {
		a.Set(p11.CKA_LABEL, []byte(label))
	}
	return a
}

const (
	web = "web.example.org"
	ecc = "ec.example.org"
)

func TestParse(t *testing.T) {
	// What a file holds: "key" and "pub" of a key pair, "crt" of a certificate,
	// each with an optional label and a "+" if it has the certificate's subject.
	tests := []struct {
		file string
		pass string
		kind pkix.Kind
		want []string
	}{
		{"rsa.pem", "", pkix.Auto, []string{"key rsa", "pub rsa"}},
		{"rsa.pem", "", pkix.PEM, []string{"key rsa", "pub rsa"}},
		{"rsa.pem", "", pkix.PKCS8, []string{"key rsa", "pub rsa"}},
		{"rsa.pem", "unused", pkix.Auto, []string{"key rsa", "pub rsa"}},
		{"rsa.p8.der", "", pkix.Auto, []string{"key rsa", "pub rsa"}},
		{"rsa.p8.der", "", pkix.DER, []string{"key rsa", "pub rsa"}},
		{"rsa.p8.der", "", pkix.PKCS8, []string{"key rsa", "pub rsa"}},
		{"rsa.pkcs1.pem", "", pkix.Auto, []string{"key rsa", "pub rsa"}},
		{"rsa.pkcs1.der", "", pkix.Auto, []string{"key rsa", "pub rsa"}},
		{"rsa.pub.pem", "", pkix.Auto, []string{"pub rsa"}},
		{"rsa.pub.der", "", pkix.PublicKey, []string{"pub rsa"}},
		{"rsa.pkcs1.pub.pem", "", pkix.PublicKey, []string{"pub rsa"}},
		{"rsa.pkcs1.pub.der", "", pkix.Auto, []string{"pub rsa"}},
		{"rsa.ssh", "", pkix.Auto, []string{"key rsa", "pub rsa"}},
		{"rsa.enc.ssh", passphrase, pkix.Auto, []string{"key rsa", "pub rsa"}},
		{"rsa.ssh.pub", "", pkix.PublicKey, []string{"pub rsa"}},

		{"prime256v1.pem", "", pkix.Auto, []string{"key prime256v1", "pub prime256v1"}},
		{"prime256v1.p8.der", "", pkix.Auto, []string{"key prime256v1", "pub prime256v1"}},
		{"prime256v1.sec1.pem", "", pkix.Auto, []string{"key prime256v1", "pub prime256v1"}},
		{"prime256v1.sec1.der", "", pkix.Auto, []string{"key prime256v1", "pub prime256v1"}},
		{"prime256v1.nopub.pem", "", pkix.Auto, []string{"key prime256v1", "pub prime256v1"}},
		{"prime256v1.params.pem", "", pkix.Auto, []string{"key prime256v1", "pub prime256v1"}},
		{"prime256v1.compressed.pub.pem", "", pkix.Auto, []string{"pub prime256v1"}},
		{"prime256v1.ssh", "", pkix.Auto, []string{"key prime256v1", "pub prime256v1"}},
		{"prime256v1.ssh.pub", "", pkix.Auto, []string{"pub prime256v1"}},
		{"prime256v1.explicit.pem", "", pkix.Auto, []string{"key prime256v1", "pub prime256v1"}},
		{"secp224r1.pem", "", pkix.Auto, []string{"key secp224r1", "pub secp224r1"}},
		{"secp384r1.pem", "", pkix.Auto, []string{"key secp384r1", "pub secp384r1"}},
		{"secp521r1.pem", "", pkix.Auto, []string{"key secp521r1", "pub secp521r1"}},
		{"secp521r1.pub.pem", "", pkix.Auto, []string{"pub secp521r1"}},
		{"secp256k1.pem", "", pkix.Auto, []string{"key secp256k1", "pub secp256k1"}},
		{"brainpoolP256r1.pem", "", pkix.Auto, []string{"key brainpoolP256r1", "pub brainpoolP256r1"}},
		{"brainpoolP256r1.pub.pem", "", pkix.Auto, []string{"pub brainpoolP256r1"}},
		{"ed25519.pem", "", pkix.Auto, []string{"key ed25519", "pub ed25519"}},
		{"ed25519.pub.pem", "", pkix.Auto, []string{"pub ed25519"}},
		{"ed448.pem", "", pkix.Auto, []string{"key ed448", "pub ed448"}},
		{"ed448.p8.der", "", pkix.PKCS8, []string{"key ed448", "pub ed448"}},
		{"ed448.pub.pem", "", pkix.Auto, []string{"pub ed448"}},
		{"x25519.pem", "", pkix.Auto, []string{"key x25519", "pub x25519"}},
		{"x25519.pub.pem", "", pkix.PublicKey, []string{"pub x25519"}},
		{"x448.pem", "", pkix.Auto, []string{"key x448", "pub x448"}},
		{"x448.pub.pem", "", pkix.PublicKey, []string{"pub x448"}},

		{"rsa.trad-aes128.pem", passphrase, pkix.Auto, []string{"key rsa", "pub rsa"}},
		{"rsa.trad-aes256.pem", passphrase, pkix.Auto, []string{"key rsa", "pub rsa"}},
		{"rsa.trad-des3.pem", passphrase, pkix.Auto, []string{"key rsa", "pub rsa"}},
		{"prime256v1.trad-aes256.pem", passphrase, pkix.Auto, []string{"key prime256v1", "pub prime256v1"}},
		{"rsa.p8-enc.der", passphrase, pkix.PKCS8, []string{"key rsa", "pub rsa"}},
		{"rsa.p8-aes128-sha1.pem", passphrase, pkix.Auto, []string{"key rsa", "pub rsa"}},
		{"rsa.p8-aes192-sha224.pem", passphrase, pkix.Auto, []string{"key rsa", "pub rsa"}},
		{"rsa.p8-aes256-sha256.pem", passphrase, pkix.PKCS8, []string{"key rsa", "pub rsa"}},
		{"rsa.p8-aes256-sha384.pem", passphrase, pkix.Auto, []string{"key rsa", "pub rsa"}},
		{"rsa.p8-aes256-sha512.pem", passphrase, pkix.Auto, []string{"key rsa", "pub rsa"}},
		{"rsa.p8-des3.pem", passphrase, pkix.Auto, []string{"key rsa", "pub rsa"}},
		{"rsa.p8-scrypt.pem", passphrase, pkix.Auto, []string{"key rsa", "pub rsa"}},
		{"rsa.p8-v1-des3.pem", passphrase, pkix.Auto, []string{"key rsa", "pub rsa"}},
		{"rsa.p8-v1-2des.pem", passphrase, pkix.Auto, []string{"key rsa", "pub rsa"}},
		{"rsa.p8-v1-md5des.pem", passphrase, pkix.Auto, []string{"key rsa", "pub rsa"}},
		{"rsa.p8-v1-sha1des.pem", passphrase, pkix.Auto, []string{"key rsa", "pub rsa"}},
		{"rsa.p8-v1-rc2-128.pem", passphrase, pkix.Auto, []string{"key rsa", "pub rsa"}},
		{"rsa.p8-v1-rc2-40.pem", passphrase, pkix.Auto, []string{"key rsa", "pub rsa"}},
		{"prime256v1.p8-aes256.pem", passphrase, pkix.Auto, []string{"key prime256v1", "pub prime256v1"}},
		{"ed25519.p8-aes256.pem", passphrase, pkix.Auto, []string{"key ed25519", "pub ed25519"}},

		{"rsa.crt.pem", "", pkix.Auto, []string{"crt rsa " + web}},
		{"rsa.crt.pem", "", pkix.Certificate, []string{"crt rsa " + web}},
		{"rsa.crt.der", "", pkix.Certificate, []string{"crt rsa " + web}},
		{"rsa.crt.der", "", pkix.DER, []string{"crt rsa " + web}},
		{"rsa.trusted.pem", "", pkix.Auto, []string{"crt rsa " + web}},
		{"ed25519.crt.pem", "", pkix.Auto, []string{"crt ed25519"}},
		{"chain.pem", "", pkix.Certificate, []string{"crt rsa " + web, "crt prime256v1 " + ecc}},
		{"bundle.pem", passphrase, pkix.PEM, []string{
			"key+ rsa " + web, "pub+ rsa " + web, "crt rsa " + web, "crt prime256v1 " + ecc}},

		{"rsa.modern.p12", passphrase, pkix.Auto, []string{
			"crt rsa Web server", "crt prime256v1 " + ecc, "key+ rsa Web server", "pub+ rsa Web server"}},
		{"rsa.legacy.p12", passphrase, pkix.PKCS12, []string{"crt rsa Web server", "key+ rsa Web server", "pub+ rsa Web server"}},
		{"rsa.des3.p12", passphrase, pkix.PKCS12, []string{"crt rsa Web server", "key+ rsa Web server", "pub+ rsa Web server"}},
		{"rsa.plain.p12", "", pkix.DER, []string{"crt rsa Web server", "key+ rsa Web server", "pub+ rsa Web server"}},
		{"rsa.unicode.p12", "Pässwört 🔑", pkix.PKCS12, []string{"crt rsa Zürich", "key+ rsa Zürich", "pub+ rsa Zürich"}},
		{"rsa.empty.p12", "", pkix.PKCS12, []string{"crt rsa " + web, "key+ rsa " + web, "pub+ rsa " + web}},
		{"rsa.emptydes3.p12", "", pkix.PKCS12, []string{"crt rsa " + web, "key+ rsa " + web, "pub+ rsa " + web}},
		{"prime256v1.keyonly.p12", passphrase, pkix.PKCS12, []string{"key prime256v1 Only a key", "pub prime256v1 Only a key"}},
		{"certonly.p12", passphrase, pkix.PKCS12, []string{"crt rsa " + web}},
		{"ed25519.p12", passphrase, pkix.PKCS12, []string{"crt ed25519", "key+ ed25519", "pub+ ed25519"}},
	}
	for _, tt := range tests {
		t.Run(tt.file+"/"+tt.kind.String(), func(t *testing.T) {
			data := readFile(t, tt.file)
			before := bytes.Clone(data)
			got, err := pkix.Parse(tt.kind, data, options(t, tt.pass))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(data, before) {
				t.Error("Parse changed its input")
			}
			clear(data) // nothing may point into it
			var want, have []map[string]string
			for _, w := range tt.want {
				f := strings.SplitN(w, " ", 3)
				label := ""
				if len(f) == 3 {
					label = f[2]
				}
				var a p11.Attributes
				switch strings.TrimSuffix(f[0], "+") {
				case "key":
					a, _ = pair(t, f[1])
				case "pub":
					_, a = pair(t, f[1])
				case "crt":
					a = certificate(t, f[1], "")
				}
				if label != "" {
					a.Set(p11.CKA_LABEL, []byte(label))
				}
				if strings.HasSuffix(f[0], "+") {
					subject, _ := certificate(t, f[1], "").Get(p11.CKA_SUBJECT)
					a.Set(p11.CKA_SUBJECT, subject)
				}
				want = append(want, plain(a))
			}
			for _, a := range got {
				have = append(have, plain(a))
			}
			if d := cmp.Diff(want, have); d != "" {
				t.Error("templates (-want +got):\n", d)
			}
		})
	}
}

func TestParseOpenSSHEd25519(t *testing.T) {
	// openssl does not write this form: the private and the public file, and
	// what ssh-keygen printed, check each other.
	for name, pass := range map[string]string{"sshed": "", "sshed.enc": passphrase} {
		t.Run(name, func(t *testing.T) {
			got, err := pkix.Parse(pkix.Auto, readFile(t, name), options(t, pass))
			if err != nil || len(got) != 2 {
				t.Fatal(got, err)
			}
			pub, err := pkix.Parse(pkix.Auto, readFile(t, "sshed.pub"), pkix.Options{})
			if err != nil || len(pub) != 1 {
				t.Fatal(pub, err)
			}
			if l := pub[0].Label(); l != "anna@example.org" {
				t.Errorf("label %q", l)
			}
			line, err := pkix.PublicSSH(got[1], "anna@example.org")
			if err != nil || !bytes.Equal(line, readFile(t, "sshed.pub")) {
				t.Errorf("%q, %v", line, err)
			}
			pub[0].Delete(p11.CKA_LABEL)
			if d := cmp.Diff(plain(pub[0]), plain(got[1])); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestParseKind(t *testing.T) {
	for k := pkix.Auto; k <= pkix.PublicKey; k++ {
		if got, err := pkix.ParseKind(k.String()); err != nil || got != k {
			t.Errorf("%v: %v, %v", k, got, err)
		}
	}
	if _, err := pkix.ParseKind("jks"); p11.RVOf(err) != p11.CKR_ARGUMENTS_BAD {
		t.Error(err)
	}
}

func TestParseErrors(t *testing.T) {
	lines := func(name string, change func([]string) []string) []byte {
		return []byte(strings.Join(change(strings.Split(string(readFile(t, name)), "\n")), "\n"))
	}
	flip := func(name string, at int) []byte {
		data := readFile(t, name)
		data[at] ^= 0x55
		return data
	}
	// P-256 with another base point.
	otherBase := pemBytes(t, "prime256v1.explicit.pem")
	otherBase[bytes.Index(otherBase, elliptic.P256().Params().Gx.Bytes())] ^= 1
	tests := []struct {
		name string
		kind pkix.Kind
		data []byte
		pass string
		rv   p11.RV
		text string // part of the error
	}{
		{"empty", pkix.Auto, nil, "", p11.CKR_DATA_INVALID, "empty"},
		{"blank", pkix.Auto, []byte(" \n\n"), "", p11.CKR_DATA_INVALID, "empty"},
		{"text", pkix.Auto, []byte("hello"), "", p11.CKR_DATA_INVALID, "known form"},
		{"too long", pkix.Auto, make([]byte, pkix.MaxSize+1), "", p11.CKR_DATA_LEN_RANGE, "longer"},
		{"trailing bytes", pkix.Auto, append(readFile(t, "rsa.p8.der"), 0), "", p11.CKR_DATA_INVALID, "known form"},
		{"cut", pkix.Auto, readFile(t, "rsa.p8.der")[:600], "", p11.CKR_DATA_INVALID, "known form"},
		{"other sequence", pkix.Auto, []byte{0x30, 4, 1, 1, 0xff, 0x05}, "", p11.CKR_DATA_INVALID, "known form"},

		{"no end line", pkix.Auto, lines("rsa.pem", func(l []string) []string { return l[:len(l)-2] }), "", p11.CKR_DATA_INVALID, "damaged"},
		{"second block damaged", pkix.Auto, lines("chain.pem", func(l []string) []string { l[40] = "!!"; return l }), "", p11.CKR_DATA_INVALID, "damaged"},
		{"PEM of nothing known", pkix.Auto, []byte("-----BEGIN FOO-----\nAAAA\n-----END FOO-----\n"), "", p11.CKR_DATA_INVALID, `"FOO"`},
		{"PEM with the wrong contents", pkix.Auto, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: readFile(t, "rsa.p8.der")}), "", p11.CKR_DATA_INVALID, "certificate"},
		{"only parameters", pkix.Auto, []byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"), "", p11.CKR_DATA_INVALID, "no key or certificate"},

		{"PEM for DER", pkix.DER, readFile(t, "rsa.pem"), "", p11.CKR_DATA_INVALID, "PEM"},
		{"DER for PEM", pkix.PEM, readFile(t, "rsa.p8.der"), "", p11.CKR_DATA_INVALID, "no PEM block"},
		{"key for a certificate", pkix.Certificate, readFile(t, "rsa.pem"), "", p11.CKR_DATA_INVALID, "PKCS#8 private key, where certificate"},
		{"bundle for a certificate", pkix.Certificate, readFile(t, "bundle.pem"), passphrase, p11.CKR_DATA_INVALID, "where certificate"},
		{"certificate for a key", pkix.PKCS8, readFile(t, "rsa.crt.der"), "", p11.CKR_DATA_INVALID, "where pkcs8"},
		{"private for public", pkix.PublicKey, readFile(t, "rsa.ssh"), "", p11.CKR_DATA_INVALID, "where public-key"},
		{"key for PKCS#12", pkix.PKCS12, readFile(t, "rsa.p8.der"), "", p11.CKR_DATA_INVALID, "where pkcs12"},

		{"PKCS#8, no pass phrase", pkix.Auto, readFile(t, "rsa.p8-aes256-sha256.pem"), "", p11.CKR_PIN_INCORRECT, "needs a pass phrase"},
		{"PKCS#8, wrong pass phrase", pkix.Auto, readFile(t, "rsa.p8-aes256-sha256.pem"), "wrong", p11.CKR_PIN_INCORRECT, "does not open"},
		{"scrypt, wrong pass phrase", pkix.Auto, readFile(t, "rsa.p8-scrypt.pem"), "wrong", p11.CKR_PIN_INCORRECT, "does not open"},
		{"traditional, no pass phrase", pkix.Auto, readFile(t, "rsa.trad-aes256.pem"), "", p11.CKR_PIN_INCORRECT, "needs a pass phrase"},
		{"traditional, wrong pass phrase", pkix.Auto, readFile(t, "rsa.trad-aes256.pem"), "wrong", p11.CKR_PIN_INCORRECT, "does not open"},
		{"PKCS#12, no pass phrase", pkix.Auto, readFile(t, "rsa.modern.p12"), "", p11.CKR_PIN_INCORRECT, "needs a pass phrase"},
		{"PKCS#12, wrong pass phrase", pkix.Auto, readFile(t, "rsa.modern.p12"), "wrong", p11.CKR_PIN_INCORRECT, "does not open"},
		{"OpenSSH, no pass phrase", pkix.Auto, readFile(t, "rsa.enc.ssh"), "", p11.CKR_PIN_INCORRECT, "needs a pass phrase"},
		{"OpenSSH, wrong pass phrase", pkix.Auto, readFile(t, "rsa.enc.ssh"), "wrong", p11.CKR_PIN_INCORRECT, "does not open"},
		{"pass phrase too long", pkix.Auto, readFile(t, "rsa.enc.ssh"), strings.Repeat("x", 1025), p11.CKR_DATA_LEN_RANGE, "pass phrase"},

		{"PKCS#12 altered", pkix.Auto, flip("rsa.modern.p12", 300), passphrase, p11.CKR_PIN_INCORRECT, "damaged"},
		{"RSA altered", pkix.Auto, flip("rsa.p8.der", 700), "", p11.CKR_DATA_INVALID, "p * q"},
		{"EC point altered", pkix.Auto, flip("prime256v1.p8.der", 137), "", p11.CKR_DATA_INVALID, "EC key"},
		{"public point altered", pkix.Auto, flip("prime256v1.sec1.der", 120), "", p11.CKR_DATA_INVALID, "EC key"},
		{"explicit curve of nobody", pkix.Auto, otherBase, "", p11.CKR_DATA_INVALID, "explicit"},
		{"unknown curve without its point", pkix.Auto, readFile(t, "bad.k1nopub.pem"), "", p11.CKR_DATA_INVALID, "1.3.132.0.10"},
		{"X448, a byte less", pkix.Auto, shortOctet(t, "x448.p8.der"), "", p11.CKR_DATA_INVALID, "PKCS#8"},
		{"RSA-PSS", pkix.Auto, readFile(t, "bad.rsapss.pem"), "", p11.CKR_DATA_INVALID, "one scheme"},
		{"OpenSSH line damaged", pkix.Auto, []byte("ssh-rsa AAAA\n"), "", p11.CKR_DATA_INVALID, "OpenSSH"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := pkix.Parse(tt.kind, tt.data, options(t, tt.pass))
			if got != nil || err == nil {
				t.Fatalf("parsed as %v", got)
			}
			var rv p11.RV
			if !errors.As(err, &rv) || rv != tt.rv || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%v, %q; want %v, …%s…", rv, err, tt.rv, tt.text)
			}
		})
	}
}

func TestParseEveryCut(t *testing.T) {
	// A file that was cut anywhere is refused: it never gives half of what it held.
	for _, name := range []string{"rsa.pub.der", "prime256v1.p8.der", "prime256v1.keyonly.p12", "rsa.plain.p12", "rsa.crt.pem"} {
		t.Run(name, func(t *testing.T) {
			data := readFile(t, name)
			data = bytes.TrimSuffix(data, []byte("\n"))
			step := 1 + len(data)/300
			for n := 0; n < len(data); n += step {
				if got, err := pkix.Parse(pkix.Auto, data[:n], options(t, passphrase)); err == nil {
					t.Fatalf("%d of %d bytes gave %d objects", n, len(data), len(got))
				}
			}
		})
	}
}

// TestShortValue checks that an EC value keeps the length of its curve.
func TestShortValue(t *testing.T) {
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P384(), append(make([]byte, 40), 1, 2, 3, 4, 5, 6, 7, 8))
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pkix.Parse(pkix.Auto, der, pkix.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := got[0].Get(p11.CKA_VALUE); len(v) != 48 {
		t.Errorf("value of %d bytes", len(v))
	}
}
