package fs

import (
	"strings"
	"syscall"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest/hooks"
)

func TestParseRecipe(t *testing.T) {
	p256 := "ec-params=secp256r1"
	for line, want := range map[string]string{
		"rsa:2048 label=web id=01":                "rsa-pkcs-key-pair-gen pair label=web id=0x01 modulus-bits=2048",
		"rsa bits=2048,label=web":                 "rsa-pkcs-key-pair-gen pair label=web modulus-bits=2048",
		"rsa label=web bits=2048":                 "rsa-pkcs-key-pair-gen pair label=web modulus-bits=2048",
		"rsa modulus-bits=2048":                   "rsa-pkcs-key-pair-gen pair modulus-bits=2048",
		"  ec:p256  ":                             "ec-key-pair-gen pair " + p256,
		"ec curve=P-256 label=\"bits=3 curve=x\"": "ec-key-pair-gen pair label=\"bits=3 curve=x\" " + p256,
		"aes:256":                              "aes-key-gen value-len=32",
		"aes bits=128, sign=true":              "aes-key-gen sign=true value-len=16",
		"generic:512 label=mac":                "generic-secret-key-gen label=mac value-len=64",
		"CKM_AES_KEY_GEN value-len=32 label=x": "aes-key-gen value-len=32 label=x",
		"aes-key-gen bits=256":                 "aes-key-gen value-len=32",
		"CKM_EC_KEY_PAIR_GEN curve=p256":       "ec-key-pair-gen pair " + p256,
		"ed25519 label=ssh":                    "ec-edwards-key-pair-gen pair label=ssh ec-params=ed25519",
		"ed448":                                "ec-edwards-key-pair-gen pair ec-params=ed448",
		"x25519 derive=true":                   "ec-montgomery-key-pair-gen pair derive=true ec-params=x25519",
		"CKM_DH_PKCS_PARAMETER_GEN bits=512":   "dh-pkcs-parameter-gen prime-bits=512",
		"dh prime=0x17 base=0x05":              "dh-pkcs-key-pair-gen pair prime=0x17 base=0x05",
		"dsa:2048 label=old":                   "dsa-key-pair-gen pair label=old",
		"ml-dsa-65 label=sign":                 "ml-dsa-key-pair-gen pair label=sign parameter-set=2",
		"slh-dsa-sha2-128f":                    "slh-dsa-key-pair-gen pair parameter-set=3",
		"ml-kem-768":                           "ml-kem-key-pair-gen pair parameter-set=2",
		"CKM_ML_KEM_KEY_PAIR_GEN parameter-set=ml-kem-1024": "ml-kem-key-pair-gen pair parameter-set=3",
		`aes:256 label="my key"`:                            `aes-key-gen label="my key" value-len=32`,
		`aes:256,label='my key'`:                            `aes-key-gen label="my key" value-len=32`,
		"aes\tbits=256\tlabel=x":                            "aes-key-gen label=x value-len=32",
		`pkcs5-pbkd2,password="a b",salt=0x01,iterations=1000 label="my key" bits=128`:      `pkcs5-pbkd2 label="my key" value-len=16`,
		`pkcs5-pbkd2 label='my key' password='a b' salt=0x01 iterations=1000, value-len=16`: `pkcs5-pbkd2 label="my key" value-len=16`,
		"chacha20 label=x":         "chacha20-key-gen label=x",
		"chacha20:256 label=x":     "chacha20-key-gen label=x value-len=32",
		"aes-xts:512":              "aes-xts-key-gen value-len=64",
		"sha512-256-hmac bits=128": "sha512-256-key-gen value-len=16",
		"ibm-ml-kem-768 label=x":   "ibm-ml-kem-key-pair-gen pair label=x ibm-parameter-set=2",
		"ibm-ml-dsa-87":            "ibm-ml-dsa-key-pair-gen pair ibm-parameter-set=3",
		"x448":                     "ec-montgomery-key-pair-gen pair ec-params=x448",
	} {
		r, err := parseRecipe(line)
		if err != nil {
			t.Errorf("%q: %v", line, err)
			continue
		}
		got := r.mechanism.Type.Short()
		if r.pair() {
			got += " pair"
		}
		if text := r.template.Text(); text != "" {
			got += " " + text
		}
		wantTemplate, err := p11.ParseTemplate(strings.TrimPrefix(strings.TrimPrefix(want, r.mechanism.Type.Short()), " pair"))
		if err != nil {
			t.Fatal(err)
		}
		want = strings.TrimSpace(r.mechanism.Type.Short() + map[bool]string{true: " pair"}[r.pair()] + " " + wantTemplate.Text())
		if got != want {
			t.Errorf("%q is %q, want %q", line, got, want)
		}
	}
}

func TestParseRecipeErrors(t *testing.T) {
	for line, want := range map[string]p11.RV{
		"ed25519:256":                p11.CKR_MECHANISM_INVALID,
		"dh":                         p11.CKR_TEMPLATE_INCOMPLETE,
		"dsa":                        p11.CKR_TEMPLATE_INCOMPLETE,
		"dh:2048":                    p11.CKR_DOMAIN_PARAMS_INVALID,
		"dh bits=2048":               p11.CKR_TEMPLATE_INCONSISTENT,
		"dh:ffdhe2048 bits=2048":     p11.CKR_TEMPLATE_INCONSISTENT,
		"dh:ffdhe2048 prime=0x17":    p11.CKR_TEMPLATE_INCONSISTENT,
		"dsa group=ffdhe2048":        p11.CKR_DOMAIN_PARAMS_INVALID,
		"dsa:long":                   p11.CKR_ATTRIBUTE_VALUE_INVALID,
		"ml-dsa-65:256":              p11.CKR_MECHANISM_INVALID,
		"ml-dsa-66":                  p11.CKR_MECHANISM_INVALID,
		"ml-dsa-65 bits=65":          p11.CKR_TEMPLATE_INCONSISTENT,
		"ml-kem-768 curve=p256":      p11.CKR_TEMPLATE_INCONSISTENT,
		"ml-kem-768 parameter-set=3": p11.CKR_TEMPLATE_INCONSISTENT,
		"ed25519 curve=ed448":        p11.CKR_ARGUMENTS_BAD,
		"x448 ec-params=x448":        p11.CKR_TEMPLATE_INCONSISTENT,
		"x25519 bits=255":            p11.CKR_TEMPLATE_INCONSISTENT,
		"ec:p256 curve=p256":         p11.CKR_ARGUMENTS_BAD,
		"hkdf":                       p11.CKR_TEMPLATE_INCOMPLETE,
		"ibm-ml-kem-768:3":           p11.CKR_MECHANISM_INVALID,
		"ibm-slh-dsa-sha2-128f":      p11.CKR_MECHANISM_INVALID,
		"rsa:999":                    p11.CKR_KEY_SIZE_RANGE,
		"rsa bits=2047":              p11.CKR_KEY_SIZE_RANGE,
		"aes:100":                    p11.CKR_KEY_SIZE_RANGE,
		"aes-key-gen iv=00":          p11.CKR_MECHANISM_PARAM_INVALID,
		`aes:256 label="my key`:      p11.CKR_ARGUMENTS_BAD,
		`aes:256 label='my key`:      p11.CKR_ARGUMENTS_BAD,
	} {
		if _, err := parseRecipe(line); p11.RVOf(err) != want {
			t.Errorf("%q: %v, want %v", line, err, want)
		}
	}
}

// Every mechanism that makes keys has a word, but for those that take a parameter and so are
// written out; and the words make keys.
func TestWordsForKeys(t *testing.T) {
	listed := swtok.NewCrypto(swtok.GoProvider(), nil).Mechanisms()
	words := map[p11.MechanismType][]string{}
	for word, k := range keyKinds() {
		words[k.mechanism] = append(words[k.mechanism], word)
	}
	var also []p11.MechanismType
	makers := 0
	for _, m := range listed {
		if m.Flags&(p11.CKF_GENERATE|p11.CKF_GENERATE_KEY_PAIR) == 0 {
			continue
		}
		also = append(also, m.Type)
		f, _ := p11.MechanismFacts(m.Type)
		switch m.Type {
		case p11.CKM_DH_PKCS_PARAMETER_GEN, p11.CKM_DSA_PARAMETER_GEN: // which make no keys
		case p11.CKM_PKCS5_PBKD2, p11.CKM_SSL3_PRE_MASTER_KEY_GEN, p11.CKM_TLS_PRE_MASTER_KEY_GEN:
			if f.Param == p11.ParamNone {
				t.Errorf("%s takes no parameter", m.Type)
			}
		default:
			if makers++; len(words[m.Type]) == 0 {
				t.Errorf("%s has no word", m.Type)
			}
		}
	}
	if makers < 25 {
		t.Errorf("%d mechanisms make keys: the test tests nothing", makers)
	}
	w := newWorld(t, hooks.Options{Also: append(also, p11.CKM_IBM_ML_DSA, p11.CKM_IBM_ML_KEM)}) // keys without a use are refused
	p := w.person(1000, 100)
	p.must(p.echo(userPIN, "tok/login"))
	for _, word := range []string{"aes-xts:256", "aes-xts:512", "des", "des2", "des3:192", "chacha20", "chacha20:256", "poly1305", "hkdf:256", "sha-1-hmac:160", "sha3-512-hmac:512", "ibm-ml-dsa-44", "ibm-ml-kem-1024"} {
		if errno := p.echo(word+" label="+strings.ReplaceAll(word, ":", "-"), "tok/generate"); errno != 0 {
			text, _ := p.cat("tok/error")
			t.Errorf("%s: %v: %s", word, errno, text)
		}
	}
	p.reads("tok/objects/ibm-ml-kem-1024.pub/attr/ibm-parameter-set", "ml-kem-1024\n")
	wantErrno(t, "a ChaCha20 key of 128 bits", p.echo("chacha20:128", "tok/generate"), syscall.EINVAL)
}

func FuzzParseRecipe(f *testing.F) {
	for _, s := range []string{"rsa:2048 label=web id=01", "ec curve=p256", "aes bits=128,sign=true", `x "`, "CKM_AES_KEY_GEN value-len=32", "aes:256 label={", "rsa bits= curve="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		r, err := parseRecipe(line)
		if err != nil {
			if p11.RVOf(err) == p11.CKR_GENERAL_ERROR {
				t.Errorf("%q: %v carries no CK_RV", line, err)
			}
			return
		}
		if _, secret := r.mechanism.Param.(*p11.PBKD2Params); secret {
			return // of which the password is not printed
		}
		// What parses prints back as something that parses to the same.
		again, err := parseRecipe(r.mechanism.String() + " " + r.template.Text())
		if err != nil || again.template.Text() != r.template.Text() || again.pair() != r.pair() {
			t.Errorf("%q is %v, and that is %v, %v", line, r.template, again.template, err)
		}
	})
}

func TestParseImport(t *testing.T) {
	for spec, want := range map[string]struct {
		kind     pkix.Kind
		template string
	}{
		"":                          {pkix.Auto, ""},
		"auto":                      {pkix.Auto, ""},
		"pem":                       {pkix.PEM, ""},
		"label=web":                 {pkix.Auto, "label=web"},
		"pkcs12,label=web,id=0x01":  {pkix.PKCS12, "label=web id=0x01"},
		`cert,label="a, b" id=01`:   {pkix.Certificate, `label="a, b" id=0x01`},
		`label="x y",private=false`: {pkix.Auto, `label="x y" private=false`},
	} {
		kind, template, err := parseImport(spec)
		if err != nil || kind.Kind != want.kind || kind.secret || template.Text() != want.template {
			t.Errorf("%q is %v %q, %v; want %v %q", spec, kind, template.Text(), err, want.kind, want.template)
		}
	}
	for spec, want := range map[string]p11.KeyType{"aes,label=x": p11.CKK_AES, "generic": p11.CKK_GENERIC_SECRET, "sha512-hmac id=01": p11.CKK_SHA512_HMAC, "chacha20": p11.CKK_CHACHA20} {
		if kind, _, err := parseImport(spec); err != nil || !kind.secret || kind.keyType != want {
			t.Errorf("%q is %v, %v; want %v", spec, kind, err, want)
		}
	}
	for _, spec := range []string{"rsa", "ed25519", "ml-dsa-65", "dh", "frob", "pem,frob", "pem label", "pem,colour=red", `label="open`} {
		if _, _, err := parseImport(spec); err == nil {
			t.Errorf("%q is taken", spec)
		}
	}
}

func TestTemplateForClass(t *testing.T) {
	all, err := p11.ParseTemplate("label=x id=01 token=true private=false sensitive=false extractable=true sign=true verify=true modulus-bits=2048 derive=true encrypt=true class=data")
	if err != nil {
		t.Fatal(err)
	}
	for class, want := range map[p11.ObjectClass]string{
		p11.CKO_PUBLIC_KEY:  "label=x id=0x01 token=true verify=true modulus-bits=2048 encrypt=true",
		p11.CKO_PRIVATE_KEY: "label=x id=0x01 token=true private=false sensitive=false extractable=true sign=true derive=true",
		p11.CKO_CERTIFICATE: "label=x id=0x01 token=true",
	} {
		if got := forClass(all, class).Text(); got != want {
			t.Errorf("%s gets %q, want %q", class.Short(), got, want)
		}
	}
}
