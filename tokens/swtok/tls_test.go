package swtok

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

// The values for TLS are openssl's (openssl kdf … TLS1-PRF), those for SSL 3.0 were
// computed with Python's hashlib after RFC 6101.
const (
	ssl3Master  = "4a42668a8548c038c8713c578b7655a67796b7b8adb466e1f4d352d0d1064b730426aba1e0f3911c442fbaaa09797f50"
	ssl3Block   = "0801ec649214c619461e817d44776af92582528c072060103040f93ac8a181abbf381d50a63251b98c0180e533882da6098e3945780d90257fea77b053b986d3b52fddf21134fab146f2c0f9dfa1cb6de6623d7686d728b0481a6bb9e7de5a4e3ef7e1838ca33559"
	tls10Master = "472bf4df01d796711a9635dad89343ec5eeb6374434560fb04688aea79b9d57d983baf07a8a54c5a1393072d71853b3a"
	tls10Block  = "501d9858fffa352ee5edc9ce43e16437c5e538d1537f2ab133a43eb69817b8a68627b5468d7403a05a3c8ac163b29f211ca69f56c7dca610a93d00bc2617ef46fc54f07d28388a12bcf0a36480ed21f805d787ddbad008678860a693ef3ac28ec4be5adb2ef63e97"
	tls12Master = "88289488f7fd9f6f4999a0da270e1efff372b4530fb4a0a3a71cf9437eb8f0cafc72aadbe038f36a8864faaeda24fea4"
	tls12Ext    = "3ea210302315754b08a2614d8b587140b907f668adcb8bd3092d8f80c704f7b6f70e266a366babe240d0db2e83290007"
	tls12Block  = "03f8e5f647b0e22a1beee277f64233b14dbd296246ee82c82cbb6bcc4d6401f56f8da9b2cd474e2bfad3c6d87957457f1be8d180c4b07899a14a3c4387740b9ae89040a1a73553ecd6ce3b3dc90244d1aefafa054bb80bd1f3946cd44ffbdce72438b1d85f2006c7274d189546c228def7619377ed2ff2a3d188808362c0593245e7309ff5be28d5"
)

// tlsSecret is the bytes from 0 to 47, whose first two are the version 0.1.
func tlsSecret(t *testing.T) *tokens.Object {
	t.Helper()
	value := make([]byte, 48)
	for i := range value {
		value[i] = byte(i)
	}
	return tokentest.Secret(t, p11.CKK_GENERIC_SECRET, value)
}

func tlsRandom() p11.TLSRandom {
	return p11.TLSRandom{Client: bytes.Repeat([]byte{0xc0}, 32), Server: bytes.Repeat([]byte{0x5e}, 32)}
}

func TestTLSMaster(t *testing.T) {
	old, hashed := &p11.SSL3MasterParams{Random: tlsRandom()}, &p11.TLS12MasterParams{Random: tlsRandom(), Hash: p11.CKM_SHA256}
	extended := &p11.ExtendedMasterParams{Hash: p11.CKM_SHA256, SessionHash: tlsRandom().Client}
	eachProvider(t, func(t *testing.T, c *Crypto) {
		for _, test := range []struct {
			m    p11.MechanismType
			p    p11.Param
			want string
			out  string
		}{
			{p11.CKM_SSL3_MASTER_KEY_DERIVE, old, ssl3Master, "0001"},
			{p11.CKM_SSL3_MASTER_KEY_DERIVE_DH, old, ssl3Master, "0000"},
			{p11.CKM_TLS_MASTER_KEY_DERIVE, old, tls10Master, "0001"},
			{p11.CKM_TLS_MASTER_KEY_DERIVE_DH, old, tls10Master, "0000"},
			{p11.CKM_TLS12_MASTER_KEY_DERIVE, hashed, tls12Master, "0001"},
			{p11.CKM_TLS12_MASTER_KEY_DERIVE_DH, hashed, tls12Master, "0000"},
			{p11.CKM_TLS12_EXTENDED_MASTER_KEY_DERIVE, extended, tls12Ext, "0001"},
			{p11.CKM_TLS12_EXTENDED_MASTER_KEY_DERIVE_DH, extended, tls12Ext, "0000"},
		} {
			m := p11.Mechanism{Type: test.m, Param: test.p}
			derive := func(base *tokens.Object, n uint64) ([]p11.Attributes, []byte, error) {
				return c.JoinKeys(t.Context(), m, []*tokens.Object{base}, []p11.Attributes{secretTemplate(p11.CKK_GENERIC_SECRET, n)})
			}
			a, out, err := derive(tlsSecret(t), 0)
			if err != nil {
				t.Errorf("%s: %v", test.m, err)
				continue
			}
			if got := value(t, a[0], p11.CKA_VALUE); fmt.Sprintf("%x %x", got, out) != test.want+" "+test.out {
				t.Errorf("%s: %x %x", test.m, got, out)
			}
			if _, _, err := derive(tlsSecret(t), 47); p11.RVOf(err) != p11.CKR_TEMPLATE_INCONSISTENT {
				t.Errorf("%s of 47 bytes: %v", test.m, err)
			}
			_, _, err = derive(tokentest.Secret(t, p11.CKK_GENERIC_SECRET, make([]byte, 32)), 0)
			if want := map[bool]p11.RV{true: p11.CKR_OK, false: p11.CKR_KEY_SIZE_RANGE}[strings.HasSuffix(test.m.Short(), "-dh")]; p11.RVOf(err) != want {
				t.Errorf("%s of 32 bytes: %v", test.m, err)
			}
		}
	})
}

func TestTLSKeyMaterial(t *testing.T) {
	old := &p11.SSL3KeyMatParams{MACBits: 160, KeyBits: 128, IVBits: 128, Random: tlsRandom()}
	hashed := &p11.TLS12KeyMatParams{MACBits: 384 - 128, KeyBits: 256, IVBits: 32, Random: tlsRandom(), Hash: p11.CKM_SHA384}
	aead := &p11.TLS12KeyMatParams{KeyBits: 256, IVBits: 32, Random: tlsRandom(), Hash: p11.CKM_SHA384}
	eachProvider(t, func(t *testing.T, c *Crypto) {
		for _, test := range []struct {
			m     p11.MechanismType
			p     p11.Param
			block string
			sizes [5]int // of the keys, and of both vectors
		}{
			{p11.CKM_SSL3_KEY_AND_MAC_DERIVE, old, ssl3Block, [5]int{20, 20, 16, 16, 32}},
			{p11.CKM_TLS_KEY_AND_MAC_DERIVE, old, tls10Block, [5]int{20, 20, 16, 16, 32}},
			{p11.CKM_TLS12_KEY_AND_MAC_DERIVE, hashed, tls12Block, [5]int{32, 32, 32, 32, 8}},
			{p11.CKM_TLS12_KEY_AND_MAC_DERIVE, aead, tls12Block, [5]int{0, 0, 32, 32, 8}},
			{p11.CKM_TLS12_KEY_SAFE_DERIVE, aead, tls12Block, [5]int{0, 0, 32, 32, 0}},
		} {
			m := p11.Mechanism{Type: test.m, Param: test.p}
			template := p11.Attributes{{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_SECRET_KEY)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(p11.CKK_AES)}}
			templates, own := test.p.(p11.KeyMaker).Makes(template)
			a, out, err := c.JoinKeys(t.Context(), m, []*tokens.Object{tlsSecret(t)}, templates)
			if err != nil || own {
				t.Errorf("%s: %v, %v", test.m, own, err)
				continue
			}
			block := tokentest.Hex(t, test.block)
			for i, n := range test.sizes[:4] {
				if n == 0 {
					if a[i] != nil {
						t.Errorf("%s: key %d is made", test.m, i)
					}
					continue
				}
				got := value(t, a[i], p11.CKA_VALUE)
				if kt, _ := a[i].KeyType(); !bytes.Equal(got, block[:n]) || (kt == p11.CKK_AES) != (i > 1) {
					t.Errorf("%s: key %d, %s, is %x", test.m, i, kt.Short(), got)
				}
				block = block[n:]
			}
			if !bytes.Equal(out, block[:test.sizes[4]]) {
				t.Errorf("%s: the vectors are %x", test.m, out)
			}
		}
		for name, p := range map[string]*p11.SSL3KeyMatParams{
			"export":    {KeyBits: 128, Export: true, Random: tlsRandom()},
			"half byte": {KeyBits: 132, Random: tlsRandom()},
		} {
			templates, _ := p.Makes(secretTemplate(p11.CKK_GENERIC_SECRET, 0))
			m := p11.Mechanism{Type: p11.CKM_TLS_KEY_AND_MAC_DERIVE, Param: p}
			if _, _, err := c.JoinKeys(t.Context(), m, []*tokens.Object{tlsSecret(t)}, templates); p11.RVOf(err) != p11.CKR_MECHANISM_PARAM_INVALID {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestTLSExportAndFinished(t *testing.T) {
	export := p11.TLSKDFParams{PRF: p11.CKM_SHA256, Label: []byte("EXPORTER-x"), Random: tlsRandom(), Context: []byte("abc")}
	reserved := export
	reserved.Label = []byte("key expansion")
	eachProvider(t, func(t *testing.T, c *Crypto) {
		kdf := func(p *p11.TLSKDFParams) (p11.Attributes, error) {
			return c.DeriveKey(t.Context(), p11.Mechanism{Type: p11.CKM_TLS12_KDF, Param: p}, tlsSecret(t), secretTemplate(p11.CKK_GENERIC_SECRET, 20))
		}
		a, err := kdf(&export)
		if got, _ := a.Get(p11.CKA_VALUE); err != nil || fmt.Sprintf("%x", got) != "139438aac4cefe06e67e192ff6f3f68b3370bda0" {
			t.Errorf("%x, %v", got, err)
		}
		if _, err := kdf(&reserved); p11.RVOf(err) != p11.CKR_MECHANISM_PARAM_INVALID {
			t.Errorf("a label of TLS's own: %v", err)
		}
		for _, test := range []struct {
			m    p11.Mechanism
			data []byte
			want string
		}{
			{p11.Mechanism{Type: p11.CKM_TLS12_MAC, Param: &p11.TLSMACParams{PRF: p11.CKM_SHA256, Length: 12, Side: 2}}, tlsRandom().Client, "11b4a8a4405fe65dae80c627"},
			{p11.Mechanism{Type: p11.CKM_TLS_MAC, Param: &p11.TLSMACParams{PRF: p11.CKM_TLS_PRF, Length: 12, Side: 1}}, tlsRandom().Client, "0541dda44d35067e592112c9"},
			{p11.Mechanism{Type: p11.CKM_SSL3_MD5_MAC, Param: p11.MACLength(16)}, []byte("data to sign"), "aa8c18a1cf3e477d78d8c083c99bb77c"},
			{p11.Mechanism{Type: p11.CKM_SSL3_SHA1_MAC, Param: p11.MACLength(8)}, []byte("data to sign"), "53aef3b522240af1"},
		} {
			got, err := signAll(c, test.m, tlsSecret(t), test.data)
			if err != nil || fmt.Sprintf("%x", got) != test.want {
				t.Errorf("%s: %x, %v", test.m, got, err)
			}
		}
		long := make([]byte, maxFinished+1)
		m := p11.Mechanism{Type: p11.CKM_TLS12_MAC, Param: &p11.TLSMACParams{PRF: p11.CKM_SHA256, Length: 12, Side: 1}}
		if _, err := signAll(c, m, tlsSecret(t), long); p11.RVOf(err) != p11.CKR_DATA_LEN_RANGE {
			t.Errorf("a long digest: %v", err)
		}
	})
}

func TestPremaster(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		var last []byte
		for _, mt := range []p11.MechanismType{p11.CKM_SSL3_PRE_MASTER_KEY_GEN, p11.CKM_TLS_PRE_MASTER_KEY_GEN} {
			m := p11.Mechanism{Type: mt, Param: p11.TLSVersion{3, 1}}
			a, err := c.GenerateKey(t.Context(), m, secretTemplate(p11.CKK_GENERIC_SECRET, 0))
			if err != nil {
				t.Fatal(err)
			}
			got := value(t, a, p11.CKA_VALUE)
			if len(got) != 48 || !bytes.HasPrefix(got, []byte{3, 1}) || slices.Equal(got, last) {
				t.Errorf("%s: %x", mt, got)
			}
			last = got
			if _, err := c.GenerateKey(t.Context(), m, secretTemplate(p11.CKK_GENERIC_SECRET, 16)); p11.RVOf(err) != p11.CKR_TEMPLATE_INCONSISTENT {
				t.Errorf("%s of 16 bytes: %v", mt, err)
			}
		}
	})
}
