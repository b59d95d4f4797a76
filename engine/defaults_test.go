package engine

import (
	"os"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// What is true of a key whose template is silent, for people and for programs, by
// whatever way it comes to be.
func TestKeyDefaults(t *testing.T) {
	ctx := t.Context()
	flags := strings.Fields("private sensitive extractable encrypt decrypt sign verify sign-recover verify-recover wrap unwrap derive")
	const rsaPublic, rsaPrivate = "encrypt verify verify-recover", "private sensitive decrypt sign sign-recover"
	for _, who := range []struct {
		name     string
		defaults Defaults
		want     map[string]string
	}{
		{"people", ForPeople, map[string]string{
			"aes": "private sensitive encrypt decrypt", "generic": "private sensitive sign verify", "hmac": "private sensitive sign verify",
			"unwrapped": "private sensitive encrypt decrypt", "derived": "private sensitive encrypt decrypt",
			"rsa public": rsaPublic, "rsa private": rsaPrivate, "ec public": "verify", "ec private": "private sensitive sign",
		}},
		{"programs", ForPrograms, map[string]string{
			"aes":        "private encrypt decrypt sign verify wrap unwrap",
			"generic":    "private sign verify wrap unwrap",
			"hmac":       "private sign verify wrap unwrap",
			"unwrapped":  "private extractable encrypt decrypt sign verify wrap unwrap",
			"derived":    "private encrypt decrypt sign verify wrap unwrap",
			"rsa public": rsaPublic + " wrap", "rsa private": rsaPrivate + " unwrap", "ec public": "verify", "ec private": "private sensitive sign",
		}},
	} {
		t.Run(who.name, func(t *testing.T) {
			b := newBench(t, hooks.Options{})
			s := b.session(t, b.NewApplication(Owner{UID: 1}, who.defaults), rw)
			logIn(t, s, p11.CKU_USER, "1234")
			made := func(h p11.ObjectHandle, err error) p11.ObjectHandle {
				t.Helper()
				want(t, err, p11.CKR_OK)
				return h
			}
			keys := map[string]p11.ObjectHandle{
				"aes":     made(s.GenerateKey(ctx, mech(t, "aes-key-gen"), tmpl(t, "value-len=16"))),
				"generic": create(t, s, macKey),
				"hmac":    create(t, s, "class=secret-key key-type=sha256-hmac value=0x00010203"),
			}
			var err error
			keys["rsa public"], keys["rsa private"], err = s.GenerateKeyPair(ctx, mech(t, "rsa-pkcs-key-pair-gen"), tmpl(t, "modulus-bits=1024"), nil)
			want(t, err, p11.CKR_OK)
			keys["ec public"], keys["ec private"] = generateEC(t, s, "", "")
			cbc := mech(t, "aes-cbc,iv="+zeroIV)
			kek := create(t, s, aesKey+" wrap=true unwrap=true")
			wrapped, err := s.WrapKey(ctx, cbc, kek, create(t, s, aesKey+" extractable=true"))
			want(t, err, p11.CKR_OK)
			keys["unwrapped"] = made(s.UnwrapKey(ctx, cbc, kek, wrapped, tmpl(t, "class=secret-key key-type=aes")))
			_, base := generateEC(t, s, "", "derive=true")
			derive := mech(t, "ecdh1-derive,kdf=null,public=0x00")
			derive.Param.(*p11.ECDH1Params).PublicData = get(t, s, keys["ec public"], p11.CKA_EC_POINT).Value
			keys["derived"] = made(s.DeriveKey(ctx, derive, base, tmpl(t, "class=secret-key key-type=aes value-len=16")))
			for name, h := range keys {
				var got []string
				for _, f := range flags {
					a, err := p11.ParseAttributeType(f)
					if err != nil {
						t.Fatal(err)
					}
					if r := get(t, s, h, a); r.Err == nil && r.Value[0] == 1 {
						got = append(got, f)
					}
				}
				if text := strings.Join(got, " "); text != who.want[name] {
					t.Errorf("%s: %s, want %s", name, text, who.want[name])
				}
			}
		})
	}
}

// The table of the documents is this one.
func TestKeyDefaultsAreDocumented(t *testing.T) {
	var b strings.Builder
	b.WriteString("| keys | always | in the tree also | through the modules also |\n|---|---|---|---|\n")
	for _, one := range keyDefaults() {
		b.WriteString("| " + one.name)
		for _, list := range [][]p11.AttributeType{one.both, one.people, one.programs} {
			var names []string
			for _, a := range list {
				names = append(names, a.Short())
			}
			b.WriteString(strings.TrimRight(" | "+strings.Join(names, ", "), " "))
		}
		b.WriteString(" |\n")
	}
	tree, err := os.ReadFile("../docs/tree.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(tree), b.String()) {
		t.Errorf("docs/tree.md has not this table:\n%s", b.String())
	}
}
