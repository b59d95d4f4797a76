package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"p11fs/engine/policy"
	"p11fs/p11"
)

// nist is strength.conf with the values that openCryptoki has by default, which are those
// of NIST SP 800-57.
const nist = `# strengths
version strength-0
strength 112 { MOD_EXP = 2048 ECC = 224 SYMMETRIC = 112 digest = 224 signature = 112 }
strength 128
{
	MOD_EXP = 3072 # of RSA
	ECC = 0x100
	SYMMETRIC = 128
	digest = 256
	signature = 128
}
`

func TestParsePolicy(t *testing.T) {
	for _, c := range []struct {
		name, src string
		want      *policy.Policy
		wrong     string // part of the problem
	}{
		{name: "least", src: "version policy-0\nstrength = 0\n", want: &policy.Policy{Name: "p"}},
		{name: "comments and lines", src: "# a\n\nversion policy-1 # b\nstrength = 112 # c\nallowedmechs # d\n( # e\nCKM_SHA256 , # f\nCKM_AES_GCM\n)\n",
			want: &policy.Policy{Name: "p", Strength: 112, Mechanisms: map[p11.MechanismType]bool{p11.CKM_SHA256: true, p11.CKM_AES_GCM: true}}},
		{name: "ends of lines of another system", src: "version policy-0\r\nstrength = 0\r\nallowedkdfs ( )\r\n", want: &policy.Policy{Name: "p", KDFs: map[p11.KDF]bool{}}},
		{name: "every key", src: "version policy-0 strength = 0 allowedcurves (PRIME256V1, CURVE25519) allowedmgfs (CKG_MGF1_SHA256) allowedkdfs (CKD_NULL) allowedprfs (CKP_PKCS5_PBKD2_HMAC_SHA512) allowedmechs ()",
			want: &policy.Policy{Name: "p", Mechanisms: map[p11.MechanismType]bool{}, Curves: map[string]bool{string(curve(t, "p256")): true, string(curve(t, "x25519")): true},
				MGFs: map[p11.MGF]bool{p11.CKG_MGF1_SHA256: true}, KDFs: map[p11.KDF]bool{p11.CKD_NULL: true}, PRFs: map[p11.PBKDF2PRF]bool{p11.CKP_PKCS5_PBKD2_HMAC_SHA512: true}}},
		{name: "a strength between two", src: "version policy-0\nstrength = 113", want: &policy.Policy{Name: "p", Strength: 128}},
		{name: "a strength above all", src: "version policy-0\nstrength = 1000", want: &policy.Policy{Name: "p", Strength: 256}},
		{name: "a small strength", src: "version policy-0\nstrength = 1", want: &policy.Policy{Name: "p", Strength: 112}},

		{name: "empty", src: "", wrong: `p:1: the first word is not "version"`},
		{name: "no version", src: "strength = 0", wrong: `p:1: the first word is not "version"`},
		{name: "version of the other file", src: "version strength-0\nstrength = 0", wrong: `not policy-0`},
		{name: "version without a number", src: "version policy-x\nstrength = 0", wrong: `not policy-0`},
		{name: "version on the next line", src: "version\npolicy-0\nstrength = 0", wrong: `p:1: "version" wants a name in its line`},
		{name: "no strength", src: "version policy-0\nallowedmechs ()\n", wrong: `there is no "strength = NUMBER"`},
		{name: "strength twice", src: "version policy-0\nstrength = 0\nstrength = 0", wrong: `p:3: "strength" stands twice`},
		{name: "a list twice", src: "version policy-0\nstrength = 0\nallowedmechs ()\nallowedmechs ()", wrong: `p:4: "allowedmechs" stands twice`},
		{name: "strength is no number", src: "version policy-0\nstrength = high", wrong: `p:2: "high" is no number`},
		{name: "zeros in front", src: "version policy-0\nstrength = 0112", wrong: `p:2: "0112" is no number`},
		{name: "too great", src: "version policy-0\nstrength = 99999999999999999999", wrong: "is no number"},
		{name: "number on the next line", src: "version policy-0\nstrength =\n112", wrong: `p:2: "" is no number`},
		{name: "strength is a list", src: "version policy-0\nstrength (CKM_RSA_PKCS)", wrong: "p:2: strength has not its form"},
		{name: "list is a number", src: "version policy-0\nstrength = 0\nallowedmechs = 5", wrong: "p:3: allowedmechs has not its form"},
		{name: "unknown key", src: "version policy-0\nstrength = 0\nallowedmechanisms ()", wrong: `p:3: there is no key "allowedmechanisms"`},
		{name: "unknown mechanism", src: "version policy-0\nstrength = 0\nallowedmechs (CKM_SHA256,\nCKM_SHA257)", wrong: `p:4: unknown mechanism "CKM_SHA257"`},
		{name: "short name", src: "version policy-0\nstrength = 0\nallowedmechs (sha256)", wrong: `p:3: "sha256" is not spelt as in the standard`},
		{name: "unknown curve", src: "version policy-0\nstrength = 0\nallowedcurves (P256K)", wrong: `p:3: there is no curve "P256K"`},
		{name: "small letters", src: "version policy-0\nstrength = 0\nallowedcurves (prime256v1)", wrong: `p:3: there is no curve "prime256v1"`},
		{name: "no comma", src: "version policy-0\nstrength = 0\nallowedmechs (CKM_SHA256\nCKM_SHA512)", wrong: `p:4: a comma or ")" is wanted behind "CKM_SHA256"`},
		{name: "comma at the end", src: "version policy-0\nstrength = 0\nallowedmechs (CKM_SHA256,)", wrong: "p:3: the list wants a name"},
		{name: "list without an end", src: "version policy-0\nstrength = 0\nallowedmechs (CKM_SHA256", wrong: `a comma or ")" is wanted`},
		{name: "a stray brace", src: "version policy-0\nstrength = 0\n}", wrong: `p:3: a name is wanted, found "}"`},
		{name: "a block", src: "version policy-0\nstrength = 0\nstrength 112 { }", wrong: `p:3: "strength" stands twice`},
		{name: "a string", src: "version policy-0\nstrength = \"0\"", wrong: `p:2: "" is no number`},
		{name: "names without end", src: "version policy-0\nstrength = 0\nallowedmechs (" + strings.Repeat("CKM_SHA256,", maxItems+1) + "CKM_SHA256)", wrong: "more than 4096 names"},
		{name: "statements without end", src: "version policy-0\n" + strings.Repeat("a = 0 ", maxItems+1), wrong: "more than 4096 statements"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParsePolicy("p", c.src)
			var problem *Problem
			switch {
			case c.wrong == "" && err != nil:
				t.Error(err)
			case c.wrong == "":
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Errorf("(-want +got)\n%s", diff)
				}
			case !errors.As(err, &problem) || !strings.Contains(err.Error(), c.wrong):
				t.Errorf("%v, %v; want %q", got, err, c.wrong)
			}
		})
	}
}

func curve(t *testing.T, name string) []byte {
	t.Helper()
	params, ok := p11.CurveParams(name)
	if !ok {
		t.Fatal(name)
	}
	return params
}

func level(strength, modExp, ecc, symmetric, digest, signature uint64) policy.Level {
	return policy.Level{Strength: strength, ModExp: modExp, ECC: ecc, Symmetric: symmetric, Digest: digest, Signature: signature}
}

func TestParseStrengths(t *testing.T) {
	const n = policy.Never
	for _, c := range []struct {
		name, src string
		want      []policy.Level
		wrong     string
	}{
		{name: "as by default", src: nist, want: []policy.Level{level(112, 2048, 224, 112, 224, 112), level(128, 3072, 256, 128, 256, 128)}},
		{name: "none", src: "version strength-0"},
		{name: "what is absent is never reached", src: "version strength-0 strength 192 { ECC = 1 } strength 256 {}", want: []policy.Level{level(192, n, 1, n, n, n), level(256, n, n, n, n, n)}},
		{name: "another strength", src: "version strength-0\nstrength 80 { ECC = 1 }", wrong: "s:2: only strength 112, 128, 192 and 256"},
		{name: "zero", src: "version strength-0\nstrength 0 { ECC = 1 }", wrong: "s:2: only strength 112"},
		{name: "twice", src: "version strength-0\nstrength 112 { }\nstrength 112 { }", wrong: "s:3: strength 112 stands twice"},
		{name: "no block", src: "version strength-0\nstrength = 112", wrong: "s:2: only strength 112"},
		{name: "another key", src: "version strength-0\nstrength 112 {\nRSA = 5 }", wrong: "s:3: strength 112 has MOD_EXP"},
		{name: "a key twice", src: "version strength-0\nstrength 112 {\nECC = 5\nECC = 5 }", wrong: "s:4: strength 112 has MOD_EXP"},
		{name: "no end", src: "version strength-0\nstrength 112 {\nECC = 5", wrong: `s:3: the file ends where "}" is wanted`},
		{name: "a block in a block", src: "version strength-0\nstrength 112 { strength 128 { } }", wrong: `s:2: "strength" wants "="`},
		{name: "no brace", src: "version strength-0\nstrength 112 ECC = 5", wrong: `s:2: strength 112 wants "{"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseStrengths("s", c.src)
			if c.wrong == "" {
				if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
					t.Errorf("%v (-want +got)\n%s", err, diff)
				}
			} else if err == nil || !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("%v, %v; want %q", got, err, c.wrong)
			}
		})
	}
}

// TestLoadPolicy checks whose files are read.
func TestLoadPolicy(t *testing.T) {
	me := Keeper{UID: os.Geteuid(), Group: -1}
	exact := Keeper{UID: os.Geteuid(), Group: os.Getegid(), Exact: true}
	another := exact
	another.Group++
	for _, c := range []struct {
		name     string
		k        Keeper
		policy   os.FileMode // 0: there is none
		strength os.FileMode
		wrong    string
	}{
		{name: "no policy", k: exact, strength: 0o666},
		{name: "both", k: exact, policy: 0o640, strength: 0o640},
		{name: "a user's", k: me, policy: 0o600, strength: 0o644},
		{name: "no strengths", k: exact, policy: 0o640, wrong: "no such file"},
		{name: "readable by all", k: exact, policy: 0o644, strength: 0o640, wrong: "policy.conf: its mode is 0644: chmod 0640 "},
		{name: "strengths readable by all", k: exact, policy: 0o640, strength: 0o644, wrong: "strength.conf: its mode is 0644"},
		{name: "writable by the group", k: me, policy: 0o660, strength: 0o600, wrong: "others may write to it (mode 0660): chmod go-w "},
		{name: "another group", k: another, policy: 0o640, strength: 0o640, wrong: "its group is "},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			put := func(name, text string, mode os.FileMode) string {
				path := filepath.Join(dir, name)
				if mode == 0 {
					return path
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(os.Chown(path, -1, os.Getegid()), os.Chmod(path, mode)); err != nil {
					t.Fatal(err)
				}
				return path
			}
			p, err := LoadPolicy(put("policy.conf", "version policy-0\nstrength = 112\n", c.policy), put("strength.conf", nist, c.strength), c.k)
			switch {
			case c.wrong != "":
				if err == nil || !strings.Contains(err.Error(), c.wrong) || p != nil && err == nil {
					t.Errorf("%v, want %q", err, c.wrong)
				}
			case err != nil:
				t.Error(err)
			case (p != nil) != (c.policy != 0):
				t.Errorf("the policy is %v", p)
			case p != nil && (p.Strength != 112 || len(p.Levels) != 2):
				t.Errorf("it allows %s, with %d levels", p, len(p.Levels))
			}
		})
	}
	t.Run("a directory", func(t *testing.T) {
		if _, err := LoadPolicy(t.TempDir(), "", me); err == nil || !strings.Contains(err.Error(), "it is no file") {
			t.Error(err)
		}
	})
	t.Run("too long", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "policy.conf")
		if err := os.WriteFile(path, make([]byte, maxPolicy+1), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadPolicy(path, "", me); err == nil || !strings.Contains(err.Error(), "longer than") {
			t.Error(err)
		}
	})
}

// FuzzPolicy gives anything to both parsers: what they refuse has the file and, but for
// what is missing, a line of it; what they take is bounded.
func FuzzPolicy(f *testing.F) {
	f.Add(nist)
	f.Add("version policy-0\nstrength = 112\nallowedmechs ( CKM_SHA256, # x\nCKM_AES_GCM )\nallowedcurves ( PRIME256V1 )\n")
	f.Add("version policy-0\nstrength = 0x70 allowedkdfs (CKD_NULL) allowedprfs () allowedmgfs (CKG_MGF1_SHA1)")
	f.Fuzz(func(t *testing.T, src string) {
		lines := strings.Count(src, "\n") + 1
		p, err := ParsePolicy("f", src)
		checkProblem(t, err, lines)
		if err == nil && (p == nil || p.Strength > 256 || len(p.Mechanisms) > maxItems) {
			t.Errorf("%v", p)
		}
		levels, err := ParseStrengths("f", src)
		checkProblem(t, err, lines)
		if len(levels) > 4 {
			t.Errorf("%d levels", len(levels))
		}
	})
}

func checkProblem(t *testing.T, err error, lines int) {
	t.Helper()
	var problem *Problem
	if err != nil && (!errors.As(err, &problem) || problem.File != "f" || problem.Line > lines || len(err.Error()) > 500) {
		t.Errorf("%v", err)
	}
}
