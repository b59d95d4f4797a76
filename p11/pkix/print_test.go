package pkix_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

func parse(t testing.TB, name, pass string) []p11.Attributes {
	t.Helper()
	got, err := pkix.Parse(pkix.Auto, readFile(t, name), options(t, pass))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestPublicPEM(t *testing.T) {
	for _, name := range strings.Fields("rsa prime256v1 secp224r1 secp384r1 secp521r1 secp256k1 brainpoolP256r1 ed25519 ed448 x25519 x448") {
		t.Run(name, func(t *testing.T) {
			pair := parse(t, name+".pem", "")
			want := readFile(t, name+".pub.pem")
			if got, err := pkix.PublicPEM(pair[1]); err != nil || !bytes.Equal(got, want) {
				t.Errorf("of the public key: %v\n%s", err, got)
			}
			got, err := pkix.PublicPEM(pair[0])
			if name == "rsa" {
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("of the private key: %v\n%s", err, got)
				}
				return
			}
			if pair[0].Has(p11.CKA_EC_POINT) { // a curve that Go does not know
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("of a private key with its point: %v\n%s", err, got)
				}
			} else if p11.RVOf(err) != p11.CKR_ATTRIBUTE_TYPE_INVALID {
				t.Errorf("of a private key without its point: %v\n%s", err, got)
			}
			// With the point, in either encoding, or with the whole public key.
			der, _ := pair[1].Get(p11.CKA_EC_POINT)
			for _, point := range [][]byte{der, der[len(der)-pointLen(der):]} {
				if got, err := pkix.PublicPEM(pair[0].With(p11.CKA_EC_POINT, point)); err != nil || !bytes.Equal(got, want) {
					t.Errorf("with its point: %v\n%s", err, got)
				}
			}
			block, _ := pem.Decode(want)
			if got, err := pkix.PublicPEM(pair[0].With(p11.CKA_PUBLIC_KEY_INFO, block.Bytes)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("with its public key: %v\n%s", err, got)
			}
			if name == "prime256v1" { // and where somebody has named the curve in words
				oid, _ := pair[1].Get(p11.CKA_EC_PARAMS)
				words := el(0x13, []byte("secp256r1"))
				info := seq(seq(el(6, []byte("\x2a\x86\x48\xce\x3d\x02\x01")), words), el(3, []byte{0}, der[len(der)-pointLen(der):]))
				for _, a := range []p11.Attributes{pair[0].With(p11.CKA_PUBLIC_KEY_INFO, info), pair[1].With(p11.CKA_EC_PARAMS, words)} {
					if got, err := pkix.PublicPEM(a); err != nil || !bytes.Equal(got, want) {
						t.Errorf("with %x for %x: %v\n%s", words, oid, err, got)
					}
				}
			}
		})
	}
	t.Run("certificate", func(t *testing.T) {
		for _, name := range []string{"rsa", "prime256v1", "ed25519"} {
			got, err := pkix.PublicPEM(parse(t, name+".crt.pem", "")[0])
			if err != nil || !bytes.Equal(got, readFile(t, name+".pub.pem")) {
				t.Errorf("%s: %v\n%s", name, err, got)
			}
		}
	})
}

// pointLen is the length of what an OCTET STRING holds.
func pointLen(der []byte) int {
	if der[1] < 0x80 {
		return int(der[1])
	}
	return int(der[2])
}

func TestCertificatePEM(t *testing.T) {
	got, err := pkix.CertificatePEM(parse(t, "rsa.crt.der", "")[0])
	if err != nil || !bytes.Equal(got, readFile(t, "rsa.crt.pem")) {
		t.Errorf("%v\n%s", err, got)
	}
}

func TestPublicSSH(t *testing.T) {
	for _, name := range []string{"rsa", "prime256v1"} {
		line, err := pkix.PublicSSH(parse(t, name+".pem", "")[1], "")
		want := bytes.Fields(readFile(t, name+".ssh.pub"))
		if err != nil || !bytes.Equal(line, append(bytes.Join(want[:2], []byte(" ")), '\n')) {
			t.Errorf("%s: %v\n%s", name, err, line)
		}
	}
	line, err := pkix.PublicSSH(parse(t, "secp521r1.pem", "")[1], "a\nssh-rsa evil\x00")
	if err != nil || bytes.Count(line, []byte("\n")) != 1 || !bytes.HasSuffix(line, []byte(" assh-rsa evil\n")) {
		t.Errorf("comment: %v\n%q", err, line)
	}
	for _, name := range []string{"secp224r1", "secp256k1"} {
		if _, err := pkix.PublicSSH(parse(t, name+".pem", "")[1], ""); p11.RVOf(err) != p11.CKR_CURVE_NOT_SUPPORTED {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPrintErrors(t *testing.T) {
	rsa := parse(t, "rsa.pem", "")
	ec := parse(t, "prime256v1.pem", "")
	secretKey := p11.Attributes{}.With(p11.CKA_CLASS, p11.Ulong(p11.CKO_SECRET_KEY)).With(p11.CKA_KEY_TYPE, p11.Ulong(p11.CKK_AES))
	cert := parse(t, "rsa.crt.pem", "")[0]
	tests := []struct {
		name  string
		attrs p11.Attributes
		rv    p11.RV
	}{
		{"nothing", nil, p11.CKR_KEY_TYPE_INCONSISTENT},
		{"secret key", secretKey, p11.CKR_KEY_TYPE_INCONSISTENT},
		{"unknown type", rsa[1].With(p11.CKA_KEY_TYPE, p11.Ulong(p11.CKK_X9_42_DH)), p11.CKR_KEY_TYPE_INCONSISTENT},
		{"no modulus", rsa[1].With(p11.CKA_MODULUS, nil), p11.CKR_ATTRIBUTE_TYPE_INVALID},
		{"bad parameters", ec[1].With(p11.CKA_EC_PARAMS, []byte{6, 200}), p11.CKR_ATTRIBUTE_VALUE_INVALID},
		{"bad certificate", cert.With(p11.CKA_VALUE, []byte{1, 2}), p11.CKR_ATTRIBUTE_VALUE_INVALID},
		{"certificate without value", cert.With(p11.CKA_VALUE, nil), p11.CKR_ATTRIBUTE_TYPE_INVALID},
		{"certificate of another type", cert.With(p11.CKA_CERTIFICATE_TYPE, p11.Ulong(p11.CKC_WTLS)), p11.CKR_ATTRIBUTE_VALUE_INVALID},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := pkix.PublicPEM(tt.attrs); p11.RVOf(err) != tt.rv {
				t.Errorf("PublicPEM: %q, %v", got, err)
			}
			if got, err := pkix.PublicSSH(tt.attrs, ""); p11.RVOf(err) != tt.rv {
				t.Errorf("PublicSSH: %q, %v", got, err)
			}
		})
	}
	if _, err := pkix.CertificatePEM(cert.With(p11.CKA_VALUE, []byte{0x30, 0})); p11.RVOf(err) != p11.CKR_ATTRIBUTE_VALUE_INVALID { // nothing would take it back
		t.Error(err)
	}
	if _, err := pkix.CertificatePEM(rsa[1]); p11.RVOf(err) != p11.CKR_OBJECT_HANDLE_INVALID {
		t.Error(err)
	}
}

// openssl runs the command; a machine without it skips the test, except in CI.
func openssl(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestOpenSSLReads has the openssl command read what is printed.
func TestOpenSSLReads(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, name := range strings.Fields("rsa prime256v1 secp224r1 secp384r1 secp521r1 secp256k1 brainpoolP256r1 ed25519 ed448 x25519 x448") {
		pemBytes, err := pkix.PublicPEM(parse(t, name+".pem", "")[1])
		out := openssl(t, "pkey", "-pubin", "-pubcheck", "-noout", "-text", "-in", write(name, pemBytes, err))
		if !strings.Contains(out, "Public-Key") && !strings.Contains(out, strings.ToUpper(name)+" Public") {
			t.Errorf("%s: %s", name, out)
		}
	}
	cert, err := pkix.CertificatePEM(parse(t, "rsa.modern.p12", passphrase)[0])
	if out := openssl(t, "x509", "-noout", "-subject", "-in", write("crt", cert, err)); !strings.Contains(out, "web.example.org") {
		t.Error(out)
	}

	// A signature in the form of PKCS#11 becomes one that openssl verifies.
	for _, name := range []string{"prime256v1", "secp384r1", "secp521r1"} {
		key, err := x509.ParsePKCS8PrivateKey(readFile(t, name+".p8.der"))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256([]byte("message"))
		k := key.(*ecdsa.PrivateKey)
		der, err := k.Sign(rand.Reader, sum[:], crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := pkix.ECDSADERToRaw(der, 2*((k.Params().N.BitLen()+7)/8))
		if err != nil {
			t.Fatal(err)
		}
		der, err = pkix.ECDSARawToDER(raw)
		sig := write(name+".sig", der, err)
		msg := write("msg", []byte("message"), nil)
		if out := openssl(t, "dgst", "-sha256", "-verify", filepath.Join("testdata/files", name+".pub.pem"), "-signature", sig, msg); !strings.Contains(out, "Verified OK") {
			t.Error(out)
		}
	}
}

func TestURI(t *testing.T) {
	token := p11.TokenInfo{Label: "My token", Manufacturer: "A/B; C", Model: "Soft", Serial: "00=1"}
	object := func(class p11.ObjectClass, label string, id []byte) p11.Attributes {
		a := p11.Attributes{}.With(p11.CKA_CLASS, p11.Ulong(class))
		if label != "" {
			a = a.With(p11.CKA_LABEL, []byte(label))
		}
		return a.With(p11.CKA_ID, id)
	}
	const head = "pkcs11:model=Soft;manufacturer=A%2FB%3B%20C;serial=00%3D1;token=My%20token"
	tests := []struct {
		name  string
		token p11.TokenInfo
		attrs p11.Attributes
		want  string
	}{
		{"token", token, nil, head},
		{"private", token, object(p11.CKO_PRIVATE_KEY, "web server", []byte{1, 'a', 0xff}), head + ";id=%01%61%FF;object=web%20server;type=private"},
		{"public", token, object(p11.CKO_PUBLIC_KEY, "ü%;?&", nil), head + ";object=%C3%BC%25%3B%3F%26;type=public"},
		{"certificate", token, object(p11.CKO_CERTIFICATE, "", []byte{0}), head + ";id=%00;type=cert"},
		{"secret", token, object(p11.CKO_SECRET_KEY, "k", nil), head + ";object=k;type=secret-key"},
		{"data", token, object(p11.CKO_DATA, "a-b._~c", nil), head + ";object=a-b._~c;type=data"},
		{"other class", token, object(p11.CKO_DOMAIN_PARAMETERS, "d", nil), head + ";object=d"},
		{"nothing", p11.TokenInfo{}, object(p11.CKO_DATA, "", nil), "pkcs11:type=data"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := pkix.URI(tt.token, tt.attrs)
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			for _, part := range strings.Split(strings.TrimPrefix(got, "pkcs11:"), ";") {
				_, value, _ := strings.Cut(part, "=")
				if _, err := url.PathUnescape(value); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestECDSA(t *testing.T) {
	t.Run("round trip", func(t *testing.T) {
		for _, c := range []elliptic.Curve{elliptic.P224(), elliptic.P256(), elliptic.P384(), elliptic.P521()} {
			size := 2 * ((c.Params().N.BitLen() + 7) / 8)
			for _, v := range [][2]*big.Int{
				{big.NewInt(1), big.NewInt(1)},
				{new(big.Int).Sub(c.Params().N, big.NewInt(1)), big.NewInt(0x80)},
				{big.NewInt(0x7f), new(big.Int).Sub(c.Params().N, big.NewInt(1))},
			} {
				raw := make([]byte, size)
				v[0].FillBytes(raw[:size/2])
				v[1].FillBytes(raw[size/2:])
				der, err := pkix.ECDSARawToDER(raw)
				if err != nil {
					t.Fatal(err)
				}
				back, err := pkix.ECDSADERToRaw(der, size)
				if err != nil || !bytes.Equal(back, raw) {
					t.Errorf("%x → %x → %x, %v", raw, der, back, err)
				}
				if n, ok := pkix.DERSignatureLen(der[:3]); !ok || n != len(der) {
					t.Errorf("length %d, %v of %x", n, ok, der)
				}
			}
		}
	})
	t.Run("raw", func(t *testing.T) {
		for _, n := range []int{0, 1, 63, 258} {
			if _, err := pkix.ECDSARawToDER(make([]byte, n)); p11.RVOf(err) != p11.CKR_SIGNATURE_LEN_RANGE {
				t.Errorf("%d bytes: %v", n, err)
			}
		}
	})
	t.Run("der", func(t *testing.T) {
		for name, tt := range map[string]struct {
			der  string
			size int
			rv   p11.RV
		}{
			"empty":         {"", 64, p11.CKR_SIGNATURE_INVALID},
			"trailing":      {"\x30\x06\x02\x01\x01\x02\x01\x01\x00", 64, p11.CKR_SIGNATURE_INVALID},
			"three numbers": {"\x30\x09\x02\x01\x01\x02\x01\x01\x02\x01\x01", 64, p11.CKR_SIGNATURE_INVALID},
			"padded number": {"\x30\x07\x02\x02\x00\x01\x02\x01\x01", 64, p11.CKR_SIGNATURE_INVALID},
			"negative":      {"\x30\x06\x02\x01\xff\x02\x01\x01", 64, p11.CKR_SIGNATURE_LEN_RANGE},
			"too long":      {"\x30\x07\x02\x02\x01\x00\x02\x01\x01", 2, p11.CKR_SIGNATURE_LEN_RANGE},
			"odd size":      {"\x30\x06\x02\x01\x01\x02\x01\x01", 3, p11.CKR_SIGNATURE_LEN_RANGE},
			"huge size":     {"\x30\x06\x02\x01\x01\x02\x01\x01", 1 << 30, p11.CKR_SIGNATURE_LEN_RANGE},
		} {
			if raw, err := pkix.ECDSADERToRaw([]byte(tt.der), tt.size); p11.RVOf(err) != tt.rv {
				t.Errorf("%s: %x, %v", name, raw, err)
			}
		}
	})
	t.Run("length", func(t *testing.T) {
		for prefix, want := range map[string]int{
			"": 0, "\x30": 0, "\x31\x08\x02": 0, "\x30\x05\x02": 0, "\x30\x46\x02": 72,
			"\x30\x81": 0, "\x30\x81\x7f": 0, "\x30\x81\x8a": 141, "\x30\x82\x01": 0, "\x30\x80\x02": 0,
		} {
			if n, ok := pkix.DERSignatureLen([]byte(prefix)); n != want && ok || ok != (want != 0) {
				t.Errorf("%x: %d, %v; want %d", prefix, n, ok, want)
			}
		}
	})
}
