package swtok

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

// parsed is a mechanism of a test's own text.
func parsed(t *testing.T, text string) p11.Mechanism {
	t.Helper()
	m, err := p11.ParseMechanism(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return m
}

// derivedValues are the values of the keys that a mechanism makes of base, the first of
// which is a generic secret of n bytes.
func derivedValues(t *testing.T, c *Crypto, m p11.Mechanism, base *tokens.Object, n uint64, others ...*tokens.Object) (list [][]byte, err error) {
	t.Helper()
	templates := []p11.Attributes{secretTemplate(p11.CKK_GENERIC_SECRET, n)}
	if maker, ok := m.Param.(p11.KeyMaker); ok {
		templates, _ = maker.Makes(templates[0])
	}
	made, _, err := c.JoinKeys(t.Context(), m, append([]*tokens.Object{base}, others...), templates)
	for _, a := range made {
		list = append(list, value(t, a, p11.CKA_VALUE))
	}
	return list, err
}

// kdfBase is a base key for a PRF.
func kdfBase(t *testing.T, prf p11.MechanismType, value []byte) *tokens.Object {
	t.Helper()
	kt := p11.KeyType(p11.CKK_GENERIC_SECRET)
	switch prf {
	case p11.CKM_AES_CMAC:
		kt = p11.CKK_AES
	case p11.CKM_DES3_CMAC:
		kt = p11.CKK_DES3
	}
	return tokentest.Secret(t, kt, value)
}

func TestKBKDFVectors(t *testing.T) {
	text, err := os.ReadFile("testdata/acvp_kdf.txt")
	if err != nil {
		t.Fatal(err)
	}
	eachProvider(t, func(t *testing.T, c *Crypto) {
		run := 0
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) != 7 || f[0] == "#" {
				continue
			}
			spec := fmt.Sprintf("sp800-108-%s-kdf,prf=%s,fields=%s", f[0], f[1], strings.ReplaceAll(f[2], "FIXED", "0x"+f[5]))
			if f[3] != "-" {
				spec += ",iv=0x" + f[3]
			}
			m := parsed(t, spec)
			prf := m.Param.(*p11.SP800108Params).PRF
			if prf == p11.CKM_AES_CMAC && !c.provider.HasMode("CMAC") {
				continue
			}
			want := tokentest.Hex(t, f[6])
			got, err := derivedValues(t, c, m, kdfBase(t, prf, tokentest.Hex(t, f[4])), uint64(len(want)))
			if err != nil || !bytes.Equal(got[0], want) {
				t.Errorf("%s: %x, %v, want %x", spec, got, err, want)
			}
			run++
		}
		if run < 11 {
			t.Errorf("only %d vectors", run)
		}
	})
}

// TestKBKDFOfOpenSSL compares all functions, in the forms that openssl(1) has: counter and
// feedback mode with label, a zero, context and length.
func TestKBKDFOfOpenSSL(t *testing.T) {
	program, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl")
	}
	const n = 100
	key, label, context := []byte("0123456789abcdef01234567"), []byte("label"), []byte("context")
	openssl := func(args ...string) []byte {
		t.Helper()
		list := []string{"kdf", "-binary", "-keylen", fmt.Sprint(n), "-kdfopt", fmt.Sprintf("hexkey:%x", key),
			"-kdfopt", "hexsalt:" + fmt.Sprintf("%x", label), "-kdfopt", fmt.Sprintf("hexinfo:%x", context)}
		for _, a := range args {
			list = append(list, "-kdfopt", a)
		}
		out, err := exec.Command(program, append(list, "KBKDF")...).CombinedOutput()
		if err != nil {
			t.Fatalf("openssl %v: %v: %s", args, err, out)
		}
		return out
	}
	macs := map[p11.MechanismType][]string{
		p11.CKM_AES_CMAC:  {"mac:CMAC", "cipher:AES-192-CBC"},
		p11.CKM_DES3_CMAC: {"mac:CMAC", "cipher:DES-EDE3-CBC"},
	}
	for _, h := range p11.Hashes() {
		if h.Go != 0 && h.MGF != 0 {
			macs[h.HMAC] = []string{"mac:HMAC", "digest:" + strings.Replace(h.Go.String(), "SHA-", "SHA", 1)}
		}
	}
	if len(macs) != 11 {
		t.Errorf("%d functions, and PKCS#11 has 11", len(macs))
	}
	eachProvider(t, func(t *testing.T, c *Crypto) {
		for prf, args := range macs {
			facts, _ := p11.MechanismFacts(prf)
			seed := bytes.Repeat([]byte("s"), max(int(p11.HashSize(facts.Hash)), facts.KeyTypes[0].BlockSize())) // it has no other
			if facts.Hash == 0 && !c.provider.HasMode("CMAC") {
				continue
			}
			for mode, field := range map[string]string{"counter": "iteration:32", "feedback": "iteration+counter:32"} {
				options := append([]string{"mode:" + mode}, args...)
				spec := fmt.Sprintf("sp800-108-%s-kdf,prf=%s,fields=%s+0x%x+0x00+0x%x+length:32", mode, prf.Short(), field, label, context)
				if mode == "feedback" {
					options = append(options, fmt.Sprintf("hexseed:%x", seed))
					spec += fmt.Sprintf(",iv=%x", seed)
				}
				want := openssl(options...)
				got, err := derivedValues(t, c, parsed(t, spec), kdfBase(t, prf, key), n)
				if err != nil || !bytes.Equal(got[0], want) {
					t.Errorf("%s: %x, %v, want %x", spec, got, err, want)
				}
			}
		}
	})
}

// More keys come of segments of their own, after the first one's, and the length counts
// the keys or the segments (PKCS#11 v3.1 §6.42.6, whose example this is).
func TestKBKDFMoreKeys(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	base := tokentest.Secret(t, p11.CKK_GENERIC_SECRET, []byte("a base key"))
	for length, bits := range map[string]string{"length:16": "0200", "segments:16": "0300", "length:16le": "0002", "segments:24le": "000300"} {
		fields := "fields=0x6c61+iteration:8+"
		got, err := derivedValues(t, c, parsed(t, "sp800-108-counter-kdf,"+fields+length+",more=aes:16"), base, 48)
		if err != nil || len(got) != 2 {
			t.Fatalf("%s: %d keys, %v", length, len(got), err)
		}
		all, err := derivedValues(t, c, parsed(t, "sp800-108-counter-kdf,"+fields+"0x"+bits), base, 96)
		if err != nil || !bytes.Equal(got[0], all[0][:48]) || !bytes.Equal(got[1], all[0][64:80]) {
			t.Errorf("%s: %x and %x of %x, %v", length, got[0], got[1], all, err)
		}
	}
	// The value of a key among the fields.
	other := tokentest.Secret(t, p11.CKK_GENERIC_SECRET, []byte("other"))
	got, err := derivedValues(t, c, parsed(t, "sp800-108-counter-kdf,fields=iteration:8+key:7"), base, 32, other)
	want, err2 := derivedValues(t, c, parsed(t, "sp800-108-counter-kdf,fields=iteration:8+0x6f74686572"), base, 32)
	if err != nil || err2 != nil || !bytes.Equal(got[0], want[0]) {
		t.Errorf("%x, %v, want %x, %v", got, err, want, err2)
	}
}

func TestKBKDFRefuses(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		base := tokentest.Secret(t, p11.CKK_GENERIC_SECRET, []byte("0123456789abcdef"))
		aes := tokentest.Secret(t, p11.CKK_AES, []byte("0123456789abcdef"))
		for _, v := range []struct {
			spec string
			base *tokens.Object
			n    uint64
			want p11.RV
		}{
			{"sp800-108-counter-kdf,fields=iteration:8", base, 255 * 32, p11.CKR_OK},
			{"sp800-108-counter-kdf,fields=iteration:8", base, 255*32 + 1, p11.CKR_KEY_SIZE_RANGE},
			{"sp800-108-feedback-kdf,fields=iteration", base, maxSecret, p11.CKR_OK},
			{"sp800-108-feedback-kdf,fields=iteration,more=1", base, maxSecret, p11.CKR_KEY_SIZE_RANGE},
			{"sp800-108-feedback-kdf,fields=iteration+counter:8", base, 256 * 32, p11.CKR_KEY_SIZE_RANGE},
			{"sp800-108-counter-kdf,fields=iteration:16+length:8", base, 31, p11.CKR_OK},
			{"sp800-108-counter-kdf,fields=iteration:16+length:8", base, 32, p11.CKR_KEY_SIZE_RANGE},
			{"sp800-108-counter-kdf,fields=iteration:16", base, 0, p11.CKR_TEMPLATE_INCOMPLETE},
			{"sp800-108-counter-kdf,prf=md5-hmac,fields=iteration:16", base, 16, p11.CKR_MECHANISM_PARAM_INVALID},
			{"sp800-108-counter-kdf,prf=sha256,fields=iteration:16", base, 16, p11.CKR_MECHANISM_PARAM_INVALID},
			{"sp800-108-counter-kdf,prf=des3-cmac,fields=iteration:16", aes, 16, p11.CKR_KEY_TYPE_INCONSISTENT},
			{"sp800-108-counter-kdf,prf=aes-cmac,fields=iteration:16", base, 16, p11.CKR_KEY_TYPE_INCONSISTENT},
			{"sp800-108-counter-kdf,fields=iteration:16" + strings.Repeat("+0x"+strings.Repeat("00", 4096), 3), base, 16, p11.CKR_MECHANISM_PARAM_INVALID},
		} {
			m := parsed(t, v.spec)
			if strings.Contains(v.spec, "cmac") && !c.provider.HasMode("CMAC") {
				v.want = p11.CKR_MECHANISM_PARAM_INVALID
			}
			if _, err := derivedValues(t, c, m, v.base, v.n); p11.RVOf(err) != v.want {
				t.Errorf("%.80s: %v, want %v", v.spec, err, v.want)
			}
		}
	})
}
