package swtok

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"p11fs/p11"
)

// A currentRow is a mechanism of current openCryptoki, as a line of
// testdata/opencryptoki-3.27.txt has it.
type currentRow struct {
	p11.MechanismInfo
	name string
	// newLibrary: openCryptoki has it with OpenSSL 3.5 only.
	newLibrary bool
}

// A lack is what our list has not of theirs, a line for each, and why. provider is the
// provider that has not got it; empty is each.
type lack struct{ provider, why, what string }

// behind are all of them. One that is none any more fails the test.
var behind = []lack{
	{"go", "Go's library has no such mode, nor CMAC", `
DES3_CMAC
DES3_CMAC_GENERAL
AES_CMAC
AES_CMAC_GENERAL
AES_XTS
`},
	{"", "the standard's header has 0x108b; theirs is CKM_AES_CTS there", `
AES_CMAC_GENERAL number
`},
	{"", "theirs are the lengths of keys for XTS; these have 16 to 32 bytes, which ours say", `
AES_KEY_WRAP 32-64
AES_KEY_WRAP_PAD 32-64
AES_KEY_WRAP_KWP 32-64
AES_KEY_WRAP_PKCS7 32-64
`},
	{"go", "Go's library has the curves of NIST from P-224 on", `
EC_KEY_PAIR_GEN 160-521
ECDSA 160-521
ECDSA_SHA1 160-521
ECDSA_SHA224 160-521
ECDSA_SHA256 160-521
ECDSA_SHA384 160-521
ECDSA_SHA512 160-521
ECDSA_SHA3_224 160-521
ECDSA_SHA3_256 160-521
ECDSA_SHA3_384 160-521
ECDSA_SHA3_512 160-521
ECDH1_DERIVE 160-521
ECDH1_COFACTOR_DERIVE 160-521
ECDH_AES_KEY_WRAP 160-521
ECDH_COF_AES_KEY_WRAP 160-521
`},
}

// readCurrent reads the list of current openCryptoki.
func readCurrent(t *testing.T) []currentRow {
	t.Helper()
	text, err := os.ReadFile("testdata/opencryptoki-3.27.txt")
	if err != nil {
		t.Fatal(err)
	}
	uses := map[string]p11.Flags{
		"crypt": flagsCipher, "sign": flagsSign, "recover": p11.CKF_SIGN_RECOVER | p11.CKF_VERIFY_RECOVER, "wrap": flagsWrap,
		"derive": p11.CKF_DERIVE, "digest": p11.CKF_DIGEST, "gen": p11.CKF_GENERATE, "genpair": p11.CKF_GENERATE_KEY_PAIR,
		"encap": p11.CKF_ENCAPSULATE | p11.CKF_DECAPSULATE,
		// No use: software is no hardware, and the curves are the business of another test.
		"HW": 0, "EC": 0,
	}
	var rows []currentRow
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] == "#" {
			continue
		}
		if len(f) < 4 {
			t.Fatalf("%q has too few words", line)
		}
		number, err := strconv.ParseUint(f[1], 0, 64)
		if err != nil {
			t.Fatal(err)
		}
		r := currentRow{name: f[0], newLibrary: len(f) > 4}
		r.Type = p11.MechanismType(number)
		if _, err := fmt.Sscanf(f[2], "%d-%d", &r.MinKeySize, &r.MaxKeySize); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		for u := range strings.SplitSeq(f[3], ",") {
			flags, known := uses[u]
			if !known {
				t.Fatalf("%q: no use %s", line, u)
			}
			r.Flags |= flags
		}
		rows = append(rows, r)
	}
	return rows
}

// behindIn compares a row of theirs with ours of the same name: whether it is there, and
// has the number, all their sizes and all their uses. Sizes of 0 say that there is no
// limit.
func behindIn(theirs currentRow, list []p11.MechanismInfo) []string {
	t, err := p11.ParseMechanismType("CKM_" + theirs.name)
	if err != nil {
		return []string{theirs.name + " name"}
	}
	var found []string
	if t != theirs.Type {
		found = append(found, theirs.name+" number")
	}
	i := slices.IndexFunc(list, func(m p11.MechanismInfo) bool { return m.Type == t })
	if i < 0 {
		return append(found, theirs.name)
	}
	ours := list[i]
	if ours.MaxKeySize != 0 && (ours.MinKeySize > theirs.MinKeySize || ours.MaxKeySize < theirs.MaxKeySize) {
		found = append(found, fmt.Sprintf("%s %d-%d", theirs.name, theirs.MinKeySize, theirs.MaxKeySize))
	}
	if missing := theirs.Flags &^ ours.Flags; missing != 0 {
		found = append(found, theirs.name+" "+strings.Join(missing.MechanismNames(), ","))
	}
	return found
}

// TestCurrent walks the list of current openCryptoki: what its software token has, ours
// has too.
func TestCurrent(t *testing.T) {
	rows := readCurrent(t)
	if len(rows) != 175 {
		t.Fatalf("%d rows, where C_GetMechanismList gave 175", len(rows))
	}
	eachProvider(t, func(t *testing.T, c *Crypto) {
		provider := c.provider.Name()
		known := map[string]bool{}
		for _, l := range behind {
			if l.provider != "" && l.provider != provider {
				continue
			}
			for what := range strings.SplitSeq(strings.TrimSpace(l.what), "\n") {
				if _, twice := known[what]; twice {
					t.Errorf("%s is listed twice", what)
				}
				known[what] = false
			}
		}
		for _, r := range rows {
			for _, what := range behindIn(r, c.Mechanisms()) {
				if _, ok := known[what]; !ok {
					t.Errorf("missing: %s", what)
				}
				known[what] = true
			}
		}
		for what, found := range known {
			if !found {
				t.Errorf("%s is there now: take it off the list", what)
			}
		}
	})
}
