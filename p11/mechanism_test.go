package p11

import (
	"crypto"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	iv16 = "0x000102030405060708090a0b0c0d0e0f"
	iv8  = "0x0001020304050607"
)

func bytesTo(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

func TestParseMechanism(t *testing.T) {
	for _, c := range []struct {
		in   string
		text string // "" for the same
		want Mechanism
	}{
		{in: "sha256-rsa-pkcs", want: Mechanism{CKM_SHA256_RSA_PKCS, nil}},
		{in: "CKM_SHA256_RSA_PKCS", text: "sha256-rsa-pkcs", want: Mechanism{CKM_SHA256_RSA_PKCS, nil}},
		{in: "sha1", text: "sha-1", want: Mechanism{CKM_SHA_1, nil}},
		{in: "sha256-rsa-pkcs-pss,salt=20", want: Mechanism{CKM_SHA256_RSA_PKCS_PSS, &PSSParams{CKM_SHA256, CKG_MGF1_SHA256, 20}}},
		{in: "sha384-rsa-pkcs-pss", text: "sha384-rsa-pkcs-pss,salt=48", want: Mechanism{CKM_SHA384_RSA_PKCS_PSS, &PSSParams{CKM_SHA384, CKG_MGF1_SHA384, 48}}},
		{in: "rsa-pkcs-pss,hash=sha1", text: "rsa-pkcs-pss,hash=sha-1,salt=20", want: Mechanism{CKM_RSA_PKCS_PSS, &PSSParams{CKM_SHA_1, CKG_MGF1_SHA1, 20}}},
		{in: "rsa-pkcs-pss hash=sha512 mgf=sha256 salt=0", text: "rsa-pkcs-pss,hash=sha512,mgf=mgf1-sha256,salt=0", want: Mechanism{CKM_RSA_PKCS_PSS, &PSSParams{CKM_SHA512, CKG_MGF1_SHA256, 0}}},
		{in: "rsa-pkcs-oaep", want: Mechanism{CKM_RSA_PKCS_OAEP, &OAEPParams{CKM_SHA_1, CKG_MGF1_SHA1, nil}}},
		{in: "rsa-pkcs-oaep,hash=sha256", want: Mechanism{CKM_RSA_PKCS_OAEP, &OAEPParams{CKM_SHA256, CKG_MGF1_SHA256, nil}}},
		{in: `rsa-pkcs-oaep,hash=sha256,mgf=mgf1-sha1,source="abc"`, text: "rsa-pkcs-oaep,hash=sha256,mgf=mgf1-sha1,source=0x616263", want: Mechanism{CKM_RSA_PKCS_OAEP, &OAEPParams{CKM_SHA256, CKG_MGF1_SHA1, []byte("abc")}}},
		{in: "aes-cbc-pad,iv=" + iv16[2:], text: "aes-cbc-pad,iv=" + iv16, want: Mechanism{CKM_AES_CBC_PAD, IV(bytesTo(16))}},
		{in: "aes-cbc-pad", want: Mechanism{CKM_AES_CBC_PAD, nil}},
		{in: "des3-cbc,iv=" + iv8, want: Mechanism{CKM_DES3_CBC, IV(bytesTo(8))}},
		{in: "aes-gcm", want: Mechanism{CKM_AES_GCM, &GCMParams{nil, nil, 128}}},
		{in: `aes-gcm,iv=0x000102030405060708090a0b,aad="hello",tag=96`, text: "aes-gcm,iv=0x000102030405060708090a0b,aad=0x68656c6c6f,tag=96", want: Mechanism{CKM_AES_GCM, &GCMParams{bytesTo(12), []byte("hello"), 96}}},
		{in: `aes-gcm,iv=00,aad="",tag=128`, text: "aes-gcm,iv=0x00", want: Mechanism{CKM_AES_GCM, &GCMParams{[]byte{0}, nil, 128}}},
		{in: "aes-ctr,counter=" + iv16, want: Mechanism{CKM_AES_CTR, &CTRParams{128, [16]byte(bytesTo(16))}}},
		{in: "aes-ctr,counter=" + iv16 + ",bits=32", want: Mechanism{CKM_AES_CTR, &CTRParams{32, [16]byte(bytesTo(16))}}},
		{in: "ecdh1-derive", want: Mechanism{CKM_ECDH1_DERIVE, &ECDH1Params{CKD_NULL, nil, nil}}},
		{in: "ecdh1-derive,kdf=null,public=0x0401", text: "ecdh1-derive,public=0x0401", want: Mechanism{CKM_ECDH1_DERIVE, &ECDH1Params{CKD_NULL, nil, []byte{4, 1}}}},
		{in: "ecdh1-derive,kdf=sha256,shared=0x02,public=0x0401", text: "ecdh1-derive,kdf=sha256-kdf,shared=0x02,public=0x0401", want: Mechanism{CKM_ECDH1_DERIVE, &ECDH1Params{CKD_SHA256_KDF, []byte{2}, []byte{4, 1}}}},
		{in: "sha256-hmac-general,mac=16", want: Mechanism{CKM_SHA256_HMAC_GENERAL, MACLength(16)}},
		{in: "rsa-aes-key-wrap", want: Mechanism{CKM_RSA_AES_KEY_WRAP, &RSAAESKeyWrapParams{256, &OAEPParams{CKM_SHA_1, CKG_MGF1_SHA1, nil}}}},
		{in: "rsa-aes-key-wrap,bits=128,hash=sha256", want: Mechanism{CKM_RSA_AES_KEY_WRAP, &RSAAESKeyWrapParams{128, &OAEPParams{CKM_SHA256, CKG_MGF1_SHA256, nil}}}},
		{in: "xor-base-and-data,data=0x0102", want: Mechanism{CKM_XOR_BASE_AND_DATA, &StringDataParams{[]byte{1, 2}}}},
		{in: "aes-cbc-encrypt-data,iv=" + iv16 + ",data=" + iv16, want: Mechanism{CKM_AES_CBC_ENCRYPT_DATA, &CBCDataParams{bytesTo(16), bytesTo(16)}}},
		{in: "concatenate-base-and-key,key=7", want: Mechanism{CKM_CONCATENATE_BASE_AND_KEY, OtherKey(7)}},
		{in: "extract-key-from-key,bit=12", want: Mechanism{CKM_EXTRACT_KEY_FROM_KEY, ExtractBit(12)}},
		{in: "hkdf-derive", want: Mechanism{CKM_HKDF_DERIVE, &HKDFParams{Extract: true, Expand: true, Hash: CKM_SHA256}}},
		{in: `hkdf-derive,extract=false,hash=sha512,salt-key=3,info="i"`, text: "hkdf-derive,extract=false,hash=sha512,salt-key=3,info=0x69", want: Mechanism{CKM_HKDF_DERIVE, &HKDFParams{Expand: true, Hash: CKM_SHA512, SaltKey: 3, Info: []byte("i")}}},
		{in: "pkcs5-pbkd2,salt=0x01,iterations=1000,password=\"open sesame\"", text: "pkcs5-pbkd2,salt=0x01,iterations=1000", want: Mechanism{CKM_PKCS5_PBKD2, &PBKD2Params{Salt: []byte{1}, Iterations: 1000, PRF: CKP_PKCS5_PBKD2_HMAC_SHA256, Password: []byte("open sesame")}}},
		{in: "ibm-ml-dsa,hedge=deterministic-required,context=0x01", want: Mechanism{CKM_IBM_ML_DSA, &IBMSignContext{CKH_IBM_DETERMINISTIC_REQUIRED, []byte{1}}}},
		{in: "ibm-ml-kem,mode=encapsulate,kdf=sha256-kdf,shared=0x01,secret-key=7", text: "ibm-ml-kem,kdf=sha256-kdf,shared=0x01,secret-key=7",
			want: Mechanism{CKM_IBM_ML_KEM, &IBMMLKEMParams{Mode: CK_IBM_ML_KEM_ENCAPSULATE, KDF: CKD_SHA256_KDF, Room: 65536, SharedData: []byte{1}, Secret: 7}}},
		{in: "ibm-ml-kem,mode=decapsulate,kdf=ibm-hybrid-null,prepend=true,ciphertext=0x0102",
			want: Mechanism{CKM_IBM_ML_KEM, &IBMMLKEMParams{Mode: CK_IBM_ML_KEM_DECAPSULATE, KDF: CKD_IBM_HYBRID_NULL, Prepend: true, Ciphertext: []byte{1, 2}, Room: 65536}}},
		{in: "ibm-ml-kem-with-ecdh,ec-key=3,public=0x04",
			want: Mechanism{CKM_IBM_ML_KEM_WITH_ECDH, &IBMMLKEMECDHParams{Mode: CK_IBM_ML_KEM_ENCAPSULATE, Room: 65536, ECKey: 3, KDF: CKD_NULL, PublicData: []byte{4}}}},
		{in: "dh-pkcs-derive,public=0x05", want: Mechanism{CKM_DH_PKCS_DERIVE, RawParam{5}}},
		{in: "dh-pkcs-derive", want: Mechanism{CKM_DH_PKCS_DERIVE, nil}},
		{in: "aes-key-wrap", want: Mechanism{CKM_AES_KEY_WRAP, nil}},
		{in: "aes-key-wrap,iv=" + iv8, want: Mechanism{CKM_AES_KEY_WRAP, IV(bytesTo(8))}},
		{in: "0x80010036,param=0x01", text: "ibm-ml-dsa,param=0x01", want: Mechanism{CKM_IBM_ML_DSA, RawParam{1}}},
		{in: "0x80099999,param=0x01", want: Mechanism{0x80099999, RawParam{1}}},
		{in: "0x80099999", want: Mechanism{0x80099999, nil}},
		{in: "aes-cbc,param=" + iv16, text: "aes-cbc,iv=" + iv16, want: Mechanism{CKM_AES_CBC, IV(bytesTo(16))}},
		{in: "aes-gcm,param=0x0102", want: Mechanism{CKM_AES_GCM, RawParam{1, 2}}},
	} {
		t.Run(c.in, func(t *testing.T) {
			got, err := ParseMechanism(c.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("mechanism (-want +got):\n%s", diff)
			}
			want := c.text
			if want == "" {
				want = c.in
			}
			if got.String() != want {
				t.Errorf("prints as %s, want %s", got, want)
			}
		})
	}
}

func TestParseMechanismErrors(t *testing.T) {
	for _, c := range []struct {
		in   string
		rv   RV
		text string
	}{
		{"", CKR_ARGUMENTS_BAD, "a mechanism is missing; it stands first, such as sha256-rsa-pkcs"},
		{"salt=32", CKR_ARGUMENTS_BAD, "a mechanism is missing; it stands first, such as sha256-rsa-pkcs"},
		{",aes-gcm", CKR_ARGUMENTS_BAD, "word 1 is empty: a comma stands only between two words"},
		{"sha256-rsa-pkcs,", CKR_ARGUMENTS_BAD, "word 2 is empty: a comma stands only between two words"},
		{"rot13", CKR_MECHANISM_INVALID, `unknown mechanism "rot13"`},
		{"sha256-rsa-pkcs,salt=32", CKR_MECHANISM_PARAM_INVALID, "sha256-rsa-pkcs: has no parameter salt; it takes no parameter"},
		{"sha256-rsa-pkcs,param=0x01", CKR_MECHANISM_PARAM_INVALID, "sha256-rsa-pkcs: takes no parameter"},
		{"aes-gcm,salt=32", CKR_MECHANISM_PARAM_INVALID, "aes-gcm: has no parameter salt; it takes iv=, aad=, tag="},
		{"aes-gcm,label=x", CKR_MECHANISM_PARAM_INVALID, "label is no parameter of aes-gcm; it takes iv=, aad=, tag="},
		{"aes-gcm,itag=96", CKR_ATTRIBUTE_TYPE_INVALID, `word 2: unknown attribute "itag"`},
		{"aes-gcm,tag=12", CKR_MECHANISM_PARAM_INVALID, "aes-gcm: tag= is 128, 120, 112, 104, 96, 64 or 32 bits, not 12"},
		{"aes-gcm,tag", CKR_MECHANISM_PARAM_INVALID, "aes-gcm: tag= wants a value"},
		{"aes-gcm,tag={x}", CKR_MECHANISM_PARAM_INVALID, "aes-gcm: tag= wants a value"},
		{"aes-gcm,tag=x", CKR_MECHANISM_PARAM_INVALID, `aes-gcm: tag= wants a number, not "x"`},
		{"aes-gcm,tag=96,tag=96", CKR_MECHANISM_PARAM_INVALID, "aes-gcm: tag is given twice"},
		{"aes-cbc,param=0x01", CKR_MECHANISM_PARAM_INVALID, "aes-cbc: iv= has 16 bytes, not 1"},
		{"aes-gcm,param=0x01,tag=96", CKR_MECHANISM_PARAM_INVALID, "aes-gcm: param= stands alone"},
		{"aes-gcm,iv=0x" + strings.Repeat("00", 257), CKR_MECHANISM_PARAM_INVALID, "aes-gcm: iv= has at most 256 bytes, not 257"},
		{"aes-cbc,iv=00", CKR_MECHANISM_PARAM_INVALID, "aes-cbc: iv= has 16 bytes, not 1"},
		{"aes-cbc,iv=0", CKR_MECHANISM_PARAM_INVALID, "aes-cbc: iv= wants hexadecimal digits in pairs"},
		{"aes-cbc,iv=", CKR_MECHANISM_PARAM_INVALID, "aes-cbc: iv= is empty"},
		{"des3-cbc,iv=" + iv16, CKR_MECHANISM_PARAM_INVALID, "des3-cbc: iv= has 8 bytes, not 16"},
		{"aes-key-wrap,iv=" + iv16, CKR_MECHANISM_PARAM_INVALID, "aes-key-wrap: iv= has 8 bytes, not 16"},
		{"aes-key-wrap-kwp,iv=" + iv8, CKR_MECHANISM_PARAM_INVALID, "aes-key-wrap-kwp: iv= has 4 bytes, not 8"},
		{"aes-ctr", CKR_MECHANISM_PARAM_INVALID, "aes-ctr: counter= wants a block of 16 bytes, not 0"},
		{"aes-ctr,counter=" + iv16 + ",bits=129", CKR_MECHANISM_PARAM_INVALID, "aes-ctr: bits= is 1 to 128, not 129"},
		{"rsa-pkcs-pss", CKR_MECHANISM_PARAM_INVALID, "rsa-pkcs-pss: hash= is missing: the digest that the data is, such as hash=sha256"},
		{"rsa-pkcs-pss,hash=aes-cbc", CKR_MECHANISM_PARAM_INVALID, `rsa-pkcs-pss: hash=: no digest "aes-cbc"; sha256 is one`},
		{"rsa-pkcs-pss,hash=md5", CKR_MECHANISM_PARAM_INVALID, "rsa-pkcs-pss: mgf= is missing: md5 has none of its own"},
		{"rsa-pkcs-pss,hash=sha256,mgf=md5", CKR_MECHANISM_PARAM_INVALID, `rsa-pkcs-pss: unknown mask generation function "md5"`},
		{"rsa-pkcs-pss,hash=sha256,mgf=0x99", CKR_MECHANISM_PARAM_INVALID, "rsa-pkcs-pss: mgf= is not known: 0x99"},
		{"rsa-pkcs-pss,hash=sha256,salt=99999", CKR_MECHANISM_PARAM_INVALID, "rsa-pkcs-pss: salt= is too long: 99999 bytes"},
		{"sha256-rsa-pkcs-pss,hash=sha1", CKR_MECHANISM_PARAM_INVALID, "sha256-rsa-pkcs-pss: hash= is sha256 by the mechanism's name, not sha-1"},
		{"sha256-hmac-general", CKR_MECHANISM_PARAM_INVALID, "sha256-hmac-general: mac= is missing: the length of the MAC in bytes"},
		{"sha256-hmac-general,mac=33", CKR_MECHANISM_PARAM_INVALID, "sha256-hmac-general: mac= is 1 to 32 bytes, not 33"},
		{"aes-cmac-general,mac=0", CKR_MECHANISM_PARAM_INVALID, "aes-cmac-general: mac= is 1 to 16 bytes, not 0"},
		{"ecdh1-derive,kdf=rot13", CKR_MECHANISM_PARAM_INVALID, `ecdh1-derive: unknown key derivation function "rot13"`},
		{"ecdh1-derive,kdf=0x99", CKR_MECHANISM_PARAM_INVALID, "ecdh1-derive: kdf= is not known: 0x99"},
		{"ecdh1-derive,shared=00", CKR_MECHANISM_PARAM_INVALID, "ecdh1-derive: shared= needs a kdf="},
		{"rsa-aes-key-wrap,bits=100", CKR_MECHANISM_PARAM_INVALID, "rsa-aes-key-wrap: bits= is 128, 192 or 256, not 100"},
		{"hkdf-derive,expand=no", CKR_MECHANISM_PARAM_INVALID, "hkdf-derive: expand= is true or false"},
		{"extract-key-from-key", CKR_MECHANISM_PARAM_INVALID, "extract-key-from-key: bit= is missing: how many bits stand in front of the key"},
		{"pkcs5-pbkd2,salt=00", CKR_MECHANISM_PARAM_INVALID, "pkcs5-pbkd2: iterations= and password= are missing"},
		{"pkcs5-pbkd2,salt=00,iterations=0,password=00", CKR_MECHANISM_PARAM_INVALID, "pkcs5-pbkd2: iterations= is 1 to 10000000, not 0"},
		{"pkcs5-pbkd2,password=secret,salt=00,iterations=1", CKR_MECHANISM_PARAM_INVALID, "pkcs5-pbkd2: password= wants hexadecimal digits in pairs"},
		{"xor-base-and-data", CKR_MECHANISM_PARAM_INVALID, "xor-base-and-data: data= is missing"},
		{"xor-base-and-data,data=xyzzy", CKR_MECHANISM_PARAM_INVALID, "xor-base-and-data: data= wants hexadecimal digits in pairs"},
		{"aes-cbc-encrypt-data", CKR_MECHANISM_PARAM_INVALID, "aes-cbc-encrypt-data: iv= and data= are missing"},
		{"aes-cbc-encrypt-data,iv=" + iv16 + ",data=00", CKR_MECHANISM_PARAM_INVALID, "aes-cbc-encrypt-data: data= has a multiple of 16 bytes, not 1"},
	} {
		t.Run(c.in, func(t *testing.T) {
			m, err := ParseMechanism(c.in)
			if err == nil {
				t.Fatalf("parses as %v", m)
			}
			if err.Error() != c.text || RVOf(err) != c.rv {
				t.Errorf("error %v\n%s, want %v\n%s", RVOf(err), err, c.rv, c.text)
			}
		})
	}
}

func TestParseOperation(t *testing.T) {
	for _, c := range []struct{ in, mechanism, template string }{
		{"aes-key-wrap,class=secret-key,key-type=aes,label=x", "aes-key-wrap", "class=secret-key key-type=aes label=x"},
		{"aes-key-wrap class=secret-key iv=" + iv8 + " label=\"x y\"", "aes-key-wrap,iv=" + iv8, `class=secret-key label="x y"`},
		{"ecdh1-derive,public=0x04,class=secret-key,value-len=32", "ecdh1-derive,public=0x04", "class=secret-key value-len=32"},
		{"rsa-pkcs", "rsa-pkcs", ""},
		{"aes-cbc-pad,value=0x01,iv=" + iv16, "aes-cbc-pad,iv=" + iv16, ""},
	} {
		t.Run(c.in, func(t *testing.T) {
			m, a, err := ParseOperation(c.in)
			if err != nil {
				t.Fatal(err)
			}
			if m.String() != c.mechanism || a.Text() != c.template {
				t.Errorf("%s | %s, want %s | %s", m, a.Text(), c.mechanism, c.template)
			}
		})
	}
	for in, rv := range map[string]RV{
		"aes-key-wrap,class=secret-key,class=data": CKR_TEMPLATE_INCONSISTENT,
		"aes-key-wrap,class":                       CKR_ARGUMENTS_BAD,
		"aes-key-wrap,class=secret-key,iv=00":      CKR_MECHANISM_PARAM_INVALID,
		"class=secret-key":                         CKR_ARGUMENTS_BAD,
		"":                                         CKR_ARGUMENTS_BAD,
	} {
		if m, a, err := ParseOperation(in); RVOf(err) != rv {
			t.Errorf("ParseOperation(%q) = %v, %v, %v; want %v", in, m, a, err, rv)
		}
	}
}

// What ParseMechanism lets be absent, and wrong types of parameters, Validate
// refuses.
func TestMechanismValidate(t *testing.T) {
	oaep := &OAEPParams{CKM_SHA256, CKG_MGF1_SHA256, nil}
	for _, c := range []struct {
		name string
		m    Mechanism
		ok   bool
	}{
		{"no parameter", Mechanism{CKM_SHA256_RSA_PKCS, nil}, true},
		{"an empty one", Mechanism{CKM_SHA256_RSA_PKCS, RawParam{}}, true},
		{"one too many", Mechanism{CKM_SHA256_RSA_PKCS, IV{1}}, false},
		{"iv", Mechanism{CKM_AES_CBC, IV(bytesTo(16))}, true},
		{"iv absent", Mechanism{CKM_AES_CBC, nil}, false},
		{"iv short", Mechanism{CKM_AES_CBC, IV{}}, false},
		{"iv of another type", Mechanism{CKM_AES_CBC, MACLength(16)}, false},
		{"wrap without iv", Mechanism{CKM_AES_KEY_WRAP, nil}, true},
		{"gmac", Mechanism{CKM_AES_GMAC, IV(bytesTo(12))}, true},
		{"gmac without", Mechanism{CKM_AES_GMAC, IV{}}, false},
		{"gcm", Mechanism{CKM_AES_GCM, &GCMParams{bytesTo(12), nil, 128}}, true},
		{"gcm without iv", Mechanism{CKM_AES_GCM, &GCMParams{nil, nil, 128}}, false},
		{"gcm without all", Mechanism{CKM_AES_GCM, nil}, false},
		{"gcm with an iv only", Mechanism{CKM_AES_GCM, IV(bytesTo(12))}, false},
		{"pss", Mechanism{CKM_RSA_PKCS_PSS, &PSSParams{CKM_SHA256, CKG_MGF1_SHA256, 32}}, true},
		{"pss without", Mechanism{CKM_RSA_PKCS_PSS, nil}, false},
		{"pss zero", Mechanism{CKM_RSA_PKCS_PSS, &PSSParams{}}, false},
		{"oaep", Mechanism{CKM_RSA_PKCS_OAEP, oaep}, true},
		{"oaep zero", Mechanism{CKM_RSA_PKCS_OAEP, &OAEPParams{}}, false},
		{"key wrap", Mechanism{CKM_RSA_AES_KEY_WRAP, &RSAAESKeyWrapParams{256, oaep}}, true},
		{"key wrap without oaep", Mechanism{CKM_RSA_AES_KEY_WRAP, &RSAAESKeyWrapParams{256, nil}}, false},
		{"ctr", Mechanism{CKM_AES_CTR, &CTRParams{1, [16]byte{}}}, true},
		{"ctr zero", Mechanism{CKM_AES_CTR, &CTRParams{}}, false},
		{"ecdh", Mechanism{CKM_ECDH1_DERIVE, &ECDH1Params{CKD_NULL, nil, []byte{4}}}, true},
		{"ecdh without public", Mechanism{CKM_ECDH1_DERIVE, &ECDH1Params{CKD_NULL, nil, nil}}, false},
		{"ecdh zero", Mechanism{CKM_ECDH1_DERIVE, &ECDH1Params{}}, false},
		{"dh", Mechanism{CKM_DH_PKCS_DERIVE, RawParam{5}}, true},
		{"dh without", Mechanism{CKM_DH_PKCS_DERIVE, nil}, false},
		{"dh empty", Mechanism{CKM_DH_PKCS_DERIVE, RawParam{}}, false},
		{"mac", Mechanism{CKM_SHA_1_HMAC_GENERAL, MACLength(20)}, true},
		{"mac long", Mechanism{CKM_SHA_1_HMAC_GENERAL, MACLength(21)}, false},
		{"raw", Mechanism{CKM_XEDDSA, RawParam{1}}, true},
		{"raw absent", Mechanism{CKM_XEDDSA, nil}, true},
		{"raw of another type", Mechanism{CKM_XEDDSA, IV{1}}, false},
		{"other key", Mechanism{CKM_CONCATENATE_BASE_AND_KEY, OtherKey(1)}, true},
		{"no other key", Mechanism{CKM_CONCATENATE_BASE_AND_KEY, OtherKey(0)}, false},
		{"not known", Mechanism{0x80099999, RawParam{1}}, true},
		{"not known with a type", Mechanism{0x80099999, IV{1}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			switch err := c.m.Validate(); {
			case c.ok && err != nil:
				t.Error(err)
			case !c.ok && RVOf(err) != CKR_MECHANISM_PARAM_INVALID:
				t.Errorf("error %v", err)
			}
		})
	}
}

// Each mechanism's text reads back, and the facts agree with its name.
func TestMechanismFacts(t *testing.T) {
	for _, typ := range AllMechanismTypes() {
		t.Run(typ.String(), func(t *testing.T) {
			f, ok := MechanismFacts(typ)
			if !ok {
				if typ != CKM_VENDOR_DEFINED {
					t.Fatal("no facts")
				}
				return
			}
			if f.Functions == 0 {
				t.Error("serves no function")
			}
			if f.Hash != 0 && HashSize(f.Hash) == 0 && f.Hash != CKM_SHA512_T { // its size is a parameter
				t.Errorf("its hash %v has no size", f.Hash)
			}
			if f.Functions&CKF_DIGEST != 0 && f.Functions&CKF_SIGN == 0 && HashSize(typ) == 0 && f.Param != ParamRaw && typ != CKM_FASTHASH {
				t.Error("a digest without a size")
			}
			m := Mechanism{typ, SampleParam(typ)}
			again, err := ParseMechanism(m.text(true))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(m, again); diff != "" {
				t.Errorf("%s reads back otherwise:\n%s", m, diff)
			}
		})
	}
	for _, c := range []struct {
		typ  MechanismType
		want Facts
	}{
		{CKM_SHA256_RSA_PKCS, Facts{Functions: CKF_SIGN | CKF_VERIFY, Hash: CKM_SHA256, KeyTypes: []KeyType{CKK_RSA}}},
		{CKM_RSA_PKCS_PSS, Facts{Functions: CKF_SIGN | CKF_VERIFY, KeyTypes: []KeyType{CKK_RSA}, Param: ParamPSS, SinglePart: true}},
		{CKM_ECDSA, Facts{Functions: CKF_SIGN | CKF_VERIFY, KeyTypes: []KeyType{CKK_EC}, SinglePart: true}},
		{CKM_ECDSA_SHA1, Facts{Functions: CKF_SIGN | CKF_VERIFY, Hash: CKM_SHA_1, KeyTypes: []KeyType{CKK_EC}}},
		{CKM_SHA512_HMAC, Facts{Functions: CKF_SIGN | CKF_VERIFY, Hash: CKM_SHA512, KeyTypes: []KeyType{CKK_GENERIC_SECRET, CKK_SHA512_HMAC}}},
		{CKM_SHA512, Facts{Functions: CKF_DIGEST}},
		{CKM_AES_GCM, Facts{Functions: CKF_MESSAGE_ENCRYPT | CKF_MESSAGE_DECRYPT | CKF_ENCRYPT | CKF_DECRYPT | CKF_WRAP | CKF_UNWRAP, KeyTypes: []KeyType{CKK_AES}, Param: ParamGCM}},
		{CKM_AES_KEY_GEN, Facts{Functions: CKF_GENERATE, KeyTypes: []KeyType{CKK_AES}}},
		{CKM_DES3_CBC_PAD, Facts{Functions: CKF_ENCRYPT | CKF_DECRYPT | CKF_WRAP | CKF_UNWRAP, KeyTypes: []KeyType{CKK_DES3, CKK_DES2}, Param: ParamIV, IVLen: 8}},
	} {
		got, _ := MechanismFacts(c.typ)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", c.typ, diff)
		}
	}
}

// A sample is good but for what depends on a key.
func TestSampleParam(t *testing.T) {
	for _, typ := range AllMechanismTypes() {
		f, _ := MechanismFacts(typ)
		m := Mechanism{typ, SampleParam(typ)}
		if takes := f.Param != ParamNone && f.Param != ParamRaw && f.Param != ParamPublic && !f.Optional; takes != (m.Param != nil) {
			t.Errorf("%v: sample %#v", typ, m.Param)
		}
		err := m.check(true)
		if f.Param != ParamECDH1 && f.Param != ParamPublic && f.Param != ParamIBMMLKEMECDH {
			err = m.Validate()
		}
		if err != nil {
			t.Errorf("%v: %v", typ, err)
		}
	}
	want := &PSSParams{CKM_SHA_1, CKG_MGF1_SHA1, 20}
	if diff := cmp.Diff(want, SampleParam(CKM_RSA_PKCS_PSS)); diff != "" {
		t.Error(diff)
	}
}

// The table of hashes and the rows of mechanisms say the same.
func TestHashes(t *testing.T) {
	for _, h := range Hashes() {
		if f, _ := MechanismFacts(h.Type); f.Functions&CKF_DIGEST == 0 {
			t.Errorf("%v is no digest", h.Type)
		}
		for _, m := range []MechanismType{h.HMAC, h.HMACGeneral, h.PKCS1, h.PSS, h.ECDSA} {
			if f, _ := MechanismFacts(m); m != 0 && f.Hash != h.Type {
				t.Errorf("%v is over %v, not %v", m, f.Hash, h.Type)
			}
		}
		if h.Go != 0 && uint64(h.Go.Size()) != h.Size {
			t.Errorf("%v has %d bytes, %v has %d", h.Type, h.Size, h.Go, h.Go.Size())
		}
		if h.MGF != 0 && h.MGF.HashOf() != h.Type || h.KDF != 0 && h.KDF.HashOf() != h.Type || h.SP800 != 0 && h.SP800.HashOf() != h.Type {
			t.Errorf("%v: %v, %v", h.Type, h.MGF, h.KDF)
		}
	}
	h, _ := HashOf(CKM_SHA_1)
	want := Hash{
		Type: CKM_SHA_1, Size: 20, OID: "1.3.14.3.2.26", MGF: CKG_MGF1_SHA1, KDF: CKD_SHA1_KDF, SP800: CKD_SHA1_KDF_SP800, HMAC: CKM_SHA_1_HMAC, HMACGeneral: CKM_SHA_1_HMAC_GENERAL,
		PKCS1: CKM_SHA1_RSA_PKCS, PSS: CKM_SHA1_RSA_PKCS_PSS, ECDSA: CKM_ECDSA_SHA1, DSA: CKM_DSA_SHA1, KeyGen: CKM_SHA_1_KEY_GEN, Derive: CKM_SHA1_KEY_DERIVATION, Go: crypto.SHA1,
	}
	if h != want {
		t.Errorf("%+v, want %+v", h, want)
	}
}

func TestCurveTable(t *testing.T) {
	for _, c := range Curves() {
		for _, name := range []string{c.Name, strings.ToUpper(c.Name), c.NIST} {
			if got, ok := CurveNamed(name); name != "" && (!ok || got.Name != c.Name) {
				t.Errorf("%q is %q, not %q", name, got.Name, c.Name)
			}
		}
		printable := append([]byte{0x13, byte(len(c.Name))}, c.Name...)
		for _, params := range [][]byte{c.Params(), printable} {
			if got, _ := CurveOf(params); got.Name != c.Name {
				t.Errorf("%x is %q, not %q", params, got.Name, c.Name)
			}
		}
		if CurveName(c.Params()) != c.Name || CurveName(printable) != "" {
			t.Errorf("%s: %q, %q", c.Name, CurveName(c.Params()), CurveName(printable))
		}
		if c.Elliptic != nil && (c.Elliptic.Params().BitSize != c.Bits || c.Elliptic.Params().Name != c.NIST) {
			t.Errorf("%s is %+v", c.Name, c.Elliptic.Params())
		}
		if c.ECDH != nil && c.NIST != "" && fmt.Sprint(c.ECDH) != c.NIST {
			t.Errorf("%s is %v", c.Name, c.ECDH)
		}
	}
	for _, params := range [][]byte{nil, {}, {0x13}, {0x13, 0}, {0x13, 200, 'p'}, {6, 1, 1}, []byte("secp256r1")} {
		if c, ok := CurveOf(params); ok {
			t.Errorf("%x is %s", params, c.Name)
		}
	}
	if _, ok := CurveNamed(""); ok {
		t.Error("a curve without a name")
	}
	if c, _ := CurveOf(append([]byte{0x13, 10}, "prime256v1"...)); c.NIST != "P-256" || c.Size() != 32 || c.KeyType != CKK_EC {
		t.Errorf("%+v", c)
	}
}

func TestHash(t *testing.T) {
	for _, m := range AllMGFs() {
		h := m.HashOf()
		if h == 0 {
			if !strings.Contains(m.String(), "IBM") && m != CKG_VENDOR_DEFINED {
				t.Errorf("%v has no hash", m)
			}
			continue
		}
		if MGFOf(h) != m || HashSize(h) == 0 {
			t.Errorf("%v is over %v, whose MGF is %v", m, h, MGFOf(h))
		}
	}
	for typ, want := range map[MechanismType]uint64{CKM_SHA_1: 20, CKM_SHA256: 32, CKM_SHA512: 64, CKM_MD5: 16, CKM_RSA_PKCS: 0, 0: 0} {
		if got := HashSize(typ); got != want {
			t.Errorf("HashSize(%v) = %d, want %d", typ, got, want)
		}
	}
}
