package pkix_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	stdpkix "crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

// ref is an element that is already encoded.
func ref(der []byte) asn1.RawValue { return asn1.RawValue{FullBytes: der} }

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

type alg struct {
	OID    asn1.ObjectIdentifier
	Params asn1.RawValue `asn1:"optional"`
}

const (
	oidPBES2  = "1.2.840.113549.1.5.13"
	oidPBKDF2 = "1.2.840.113549.1.5.12"
	oidScrypt = "1.3.6.1.4.1.11591.4.11"
	oidAES128 = "2.16.840.1.101.3.4.1.2"
	oidP12DES = "1.2.840.113549.1.12.1.3"
	oidMD5DES = "1.2.840.113549.1.5.3"
	oidRSA    = "1.2.840.113549.1.1.1"
	oidData   = "1.2.840.113549.1.7.1"
	oidNested = "1.2.840.113549.1.12.10.1.6"
	oidShroud = "1.2.840.113549.1.12.10.1.2"
	oidSHA1   = "1.3.14.3.2.26"
)

// oid reads one of the constants.
func oid(s string) (o asn1.ObjectIdentifier) {
	for _, part := range strings.Split(s, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			panic(err)
		}
		o = append(o, n)
	}
	return o
}

// pbes2 is an encrypted key whose key derivation asks for what kdf says.
func pbes2(t testing.TB, kdf alg, cipher string, iv int) []byte {
	params := marshal(t, struct{ KDF, Enc alg }{kdf, alg{oid(cipher), ref(marshal(t, make([]byte, iv)))}})
	return marshal(t, struct {
		Alg  alg
		Data []byte
	}{alg{oid(oidPBES2), ref(params)}, make([]byte, 64)})
}

func pbkdf2(t testing.TB, salt, rounds int) alg {
	return alg{oid(oidPBKDF2), ref(marshal(t, struct {
		Salt   []byte
		Rounds int
	}{make([]byte, salt), rounds}))}
}

func scrypt(t testing.TB, n, r, p int) alg {
	return alg{oid(oidScrypt), ref(marshal(t, struct {
		Salt    []byte
		N, R, P int
	}{make([]byte, 8), n, r, p}))}
}

func pbes1(t testing.TB, scheme string, rounds int) []byte {
	params := marshal(t, struct {
		Salt   []byte
		Rounds int
	}{make([]byte, 8), rounds})
	return marshal(t, struct {
		Alg  alg
		Data []byte
	}{alg{oid(scheme), ref(params)}, make([]byte, 64)})
}

type content struct {
	OID  asn1.ObjectIdentifier
	Data asn1.RawValue
}

func explicit0(der []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: der}
}

// pfx is a PKCS#12 file of bags; with rounds it has a MAC too.
func pfx(t testing.TB, rounds int, bags ...content) []byte {
	safe := marshal(t, []content{{oid(oidData), explicit0(marshal(t, marshal(t, bags)))}})
	auth := content{oid(oidData), explicit0(marshal(t, safe))}
	if rounds == 0 {
		return marshal(t, struct {
			Version int
			Auth    content
		}{3, auth})
	}
	type digest struct {
		Alg alg
		Sum []byte
	}
	type mac struct {
		Info   digest
		Salt   []byte
		Rounds int
	}
	return marshal(t, struct {
		Version int
		Auth    content
		MAC     mac
	}{3, auth, mac{digest{alg{oid(oidSHA1), asn1.RawValue{}}, make([]byte, 20)}, make([]byte, 8), rounds}})
}

func nested(t testing.TB, depth int) []byte {
	bags := marshal(t, []content{})
	for range depth {
		bags = marshal(t, []content{{oid(oidNested), explicit0(bags)}})
	}
	return pfx(t, 0, content{oid(oidNested), explicit0(bags)})
}

// TestHostile feeds files that ask for too much. Each is refused at once.
func TestHostile(t *testing.T) {
	hugeN := new(big.Int).Lsh(big.NewInt(1), 1<<18)
	hugeN.SetBit(hugeN, 0, 1)
	ec := readFile(t, "prime256v1.pub.pem")
	var distinct []byte
	for range 257 {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		distinct = append(distinct, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...)
	}
	ssh := bytes.Replace(sshBlob(t), []byte{0, 0, 0, 4}, []byte{0xff, 0xff, 0xff, 0xff}, 1)
	tests := []struct {
		name string
		data []byte
		rv   p11.RV
	}{
		{"PBKDF2 rounds", pbes2(t, pbkdf2(t, 8, 1<<40), oidAES128, 16), p11.CKR_DATA_LEN_RANGE},
		{"PBKDF2 rounds overflow", pbes2(t, pbkdf2(t, 8, 1<<62), oidAES128, 16), p11.CKR_DATA_LEN_RANGE},
		{"PBKDF2 no rounds", pbes2(t, pbkdf2(t, 8, 0), oidAES128, 16), p11.CKR_DATA_INVALID},
		{"PBKDF2 negative rounds", pbes2(t, pbkdf2(t, 8, -5), oidAES128, 16), p11.CKR_DATA_INVALID},
		{"PBKDF2 salt", pbes2(t, pbkdf2(t, 2000, 1), oidAES128, 16), p11.CKR_DATA_INVALID},
		{"short IV", pbes2(t, pbkdf2(t, 8, 1), oidAES128, 8), p11.CKR_DATA_INVALID},
		{"unknown cipher", pbes2(t, pbkdf2(t, 8, 1), oidRSA, 8), p11.CKR_DATA_INVALID},
		{"unknown key derivation", pbes2(t, alg{OID: oid(oidRSA)}, oidAES128, 16), p11.CKR_DATA_INVALID},
		{"scrypt N", pbes2(t, scrypt(t, 1<<40, 8, 1), oidAES128, 16), p11.CKR_DATA_LEN_RANGE},
		{"scrypt r", pbes2(t, scrypt(t, 1024, 1<<40, 1), oidAES128, 16), p11.CKR_DATA_LEN_RANGE},
		{"scrypt p", pbes2(t, scrypt(t, 1024, 8, 1<<40), oidAES128, 16), p11.CKR_DATA_LEN_RANGE},
		{"scrypt memory", pbes2(t, scrypt(t, 1<<17, 8, 1), oidAES128, 16), p11.CKR_DATA_LEN_RANGE},
		{"scrypt N not a power of 2", pbes2(t, scrypt(t, 1000, 8, 1), oidAES128, 16), p11.CKR_DATA_INVALID},
		{"scrypt zero", pbes2(t, scrypt(t, 1024, 0, 1), oidAES128, 16), p11.CKR_DATA_INVALID},
		{"PBES1 rounds", pbes1(t, oidMD5DES, 1<<30), p11.CKR_DATA_LEN_RANGE},
		{"PKCS#12 key rounds", pbes1(t, oidP12DES, 1<<30), p11.CKR_DATA_LEN_RANGE},
		{"MAC rounds", pfx(t, 1<<30), p11.CKR_DATA_LEN_RANGE},
		{"rounds in sum", pfx(t, 0,
			content{oid(oidShroud), explicit0(pbes1(t, oidMD5DES, 1<<30))}), p11.CKR_DATA_LEN_RANGE},
		{"nested too deep", nested(t, 6), p11.CKR_DATA_LEN_RANGE},
		{"nested deep", nested(t, 3), p11.CKR_DATA_INVALID}, // empty
		{"OpenSSH rounds", pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: ssh}), p11.CKR_DATA_LEN_RANGE},
		{"huge RSA public key", marshal(t, struct {
			N *big.Int
			E int
		}{hugeN, 65537}), p11.CKR_DATA_LEN_RANGE},
		{"huge RSA private key", marshal(t, struct {
			V int
			N *big.Int
			E int
		}{0, hugeN, 65537}), p11.CKR_DATA_LEN_RANGE},
		{"even modulus", marshal(t, struct{ N, E int }{1 << 30, 65537}), p11.CKR_DATA_INVALID},
		{"exponent 1", marshal(t, struct{ N, E int }{1<<30 + 1, 1}), p11.CKR_DATA_INVALID},
		{"many objects", distinct, p11.CKR_DATA_LEN_RANGE},
		{"many times the same", bytes.Repeat(ec, 257), p11.CKR_DATA_LEN_RANGE},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			start := time.Now()
			got, err := pkix.Parse(pkix.Auto, tt.data, options(t, passphrase))
			if got != nil || p11.RVOf(err) != tt.rv {
				t.Errorf("%v, %v; want %v", got, err, tt.rv)
			}
			if d := time.Since(start); d > time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}

func sshBlob(t testing.TB) []byte {
	block, _ := pem.Decode(readFile(t, "sshed.enc"))
	return block.Bytes
}

// TestParseOtherPKCS12 reads what another implementation writes, in each of its
// styles.
func TestParseOtherPKCS12(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(77), Subject: stdpkix.Name{CommonName: "n" + strings.Repeat("ame ", 30) + "\x1b[31m"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	for name, enc := range map[string]*pkcs12.Encoder{
		"LegacyRC2": pkcs12.LegacyRC2, "LegacyDES": pkcs12.LegacyDES,
		"Modern2023": pkcs12.Modern2023, "Modern2026": pkcs12.Modern2026, "Passwordless": pkcs12.Passwordless,
	} {
		for _, pass := range []string{"", "päss"} {
			if name == "Passwordless" && pass != "" {
				continue
			}
			t.Run(name+"/"+pass, func(t *testing.T) {
				file, err := enc.Encode(key, cert, []*x509.Certificate{cert}, pass)
				if err != nil {
					t.Fatal(err)
				}
				got, err := pkix.Parse(pkix.PKCS12, file, options(t, pass))
				if err != nil {
					t.Fatal(err)
				}
				// The chain holds the certificate again, which is one object.
				if len(got) != 3 {
					t.Fatalf("%d templates", len(got))
				}
				for _, a := range got {
					if l := a.Label(); len(l) > 64 || strings.ContainsRune(l, 0x1b) || !strings.HasPrefix(l, "name ame") {
						t.Errorf("label %q", l)
					}
					if v, ok := a.Get(p11.CKA_PRIVATE_EXPONENT); ok && !bytes.Equal(v, key.D.Bytes()) {
						t.Error("another key")
					}
				}
				if pass == "" {
					return
				}
				if _, err := pkix.Parse(pkix.PKCS12, file, options(t, "other")); p11.RVOf(err) != p11.CKR_PIN_INCORRECT {
					t.Errorf("wrong pass phrase: %v", err)
				}
			})
		}
	}
}
