package p11

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
)

// A named type, as the tests see it.
type namedType interface {
	~uint64
	String() string
	Short() string
}

func testNames[T namedType](t *testing.T, prefix string, all []T, parse func(string) (T, error)) {
	t.Helper()
	t.Run(prefix, func(t *testing.T) {
		if len(all) == 0 {
			t.Fatal("no names")
		}
		for _, v := range all {
			long, short := v.String(), v.Short()
			if !strings.HasPrefix(long, prefix) {
				t.Errorf("%d prints as %s, want prefix %s", uint64(v), long, prefix)
			}
			if want := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(long, prefix), "_", "-")); short != want {
				t.Errorf("%s is short %s, want %s", long, short, want)
			}
			for _, s := range []string{long, short, strings.ToLower(long), strings.TrimPrefix(long, prefix), hexNumber(uint64(v))} {
				if got, err := parse(s); err != nil || got != v {
					t.Errorf("parse %q = %v, %v; want %v", s, got, err, v)
				}
			}
		}
		unknown := uint64(0x8abcdef012345678)
		if got := T(unknown).String(); got != "0x8abcdef012345678" {
			t.Errorf("unknown number prints as %s", got)
		}
		if got := T(unknown).Short(); got != "0x8abcdef012345678" {
			t.Errorf("unknown number is short %s", got)
		}
		for _, s := range []string{"", "no-such-name", "0x", "0xg", "0x10000000000000000", "12", prefix, " "} {
			if got, err := parse(s); err == nil {
				t.Errorf("parse %q = %v, want an error", s, got)
			}
		}
	})
}

func TestNames(t *testing.T) {
	testNames(t, "CKM_", AllMechanismTypes(), ParseMechanismType)
	testNames(t, "CKA_", AllAttributeTypes(), ParseAttributeType)
	testNames(t, "CKO_", AllObjectClasses(), ParseObjectClass)
	testNames(t, "CKK_", AllKeyTypes(), ParseKeyType)
	testNames(t, "CKC_", AllCertificateTypes(), ParseCertificateType)
	testNames(t, "CKH_", AllHardwareFeatureTypes(), ParseHardwareFeatureType)
	testNames(t, "CKH_", AllHedges(), ParseHedge)
	testNames(t, "CKU_", AllUserTypes(), ParseUserType)
	testNames(t, "CKS_", AllStates(), ParseState)
	testNames(t, "CKS_", AllValidationFlags(), ParseValidationFlags)
	testNames(t, "CKG_", AllMGFs(), ParseMGF)
	testNames(t, "CKG_", AllIVGenerators(), ParseIVGenerator)
	testNames(t, "CKD_", AllKDFs(), ParseKDF)
	testNames(t, "CKZ_", AllOAEPSources(), ParseOAEPSource)
	testNames(t, "CKZ_", AllPBKDF2SaltSources(), ParsePBKDF2SaltSource)
	testNames(t, "CKP_", AllPBKDF2PRFs(), ParsePBKDF2PRF)
	testNames(t, "CKP_", AllProfileIDs(), ParseProfileID)
	testNames(t, "CKP_", AllMLDSAParameterSets(), ParseMLDSAParameterSet)
	testNames(t, "CKP_", AllMLKEMParameterSets(), ParseMLKEMParameterSet)
	testNames(t, "CKP_", AllSLHDSAParameterSets(), ParseSLHDSAParameterSet)
	testNames(t, "CKN_", AllNotifications(), ParseNotification)
	testNames(t, "CKT_", AllTrusts(), ParseTrust)
	testNames(t, "CKV_TYPE_", AllValidationTypes(), ParseValidationType)
	testNames(t, "CKV_AUTHORITY_TYPE_", AllValidationAuthorities(), ParseValidationAuthority)
	testNames(t, "CK_CERTIFICATE_CATEGORY_", AllCertificateCategories(), ParseCertificateCategory)
	testNames(t, "CK_SECURITY_DOMAIN_", AllSecurityDomains(), ParseSecurityDomain)
	testNames(t, "CK_OTP_FORMAT_", AllOTPFormats(), ParseOTPFormat)
	testNames(t, "CK_OTP_PARAM_", AllOTPRequirements(), ParseOTPRequirement)
	testNames(t, "CK_OTP_", AllOTPParams(), ParseOTPParam)
	testNames(t, "CK_SP800_108_", AllSP800108(), ParseSP800108)
	testNames(t, "CK_SP800_108_DKM_LENGTH_", AllDKMLengths(), ParseDKMLength)
	testNames(t, "CKR_", AllRVs(), ParseRV)
}

// Every line of the table is a name that parses to its number, whichever type
// it has.
func TestTableNamesParse(t *testing.T) {
	text, err := os.ReadFile("table.txt")
	if err != nil {
		t.Fatal(err)
	}
	parse := map[string]func(string) (uint64, error){
		"MechanismType": func(s string) (uint64, error) { v, err := ParseMechanismType(s); return uint64(v), err },
		"AttributeType": func(s string) (uint64, error) { v, err := ParseAttributeType(s); return uint64(v), err },
		"ObjectClass":   func(s string) (uint64, error) { v, err := ParseObjectClass(s); return uint64(v), err },
		"KeyType":       func(s string) (uint64, error) { v, err := ParseKeyType(s); return uint64(v), err },
		"RV":            func(s string) (uint64, error) { v, err := ParseRV(s); return uint64(v), err },
	}
	section, prefix, tested := "", "", 0
	numbers := make(map[string]uint64)
	for line := range strings.SplitSeq(string(text), "\n") {
		w := strings.Fields(line)
		switch {
		case len(w) == 0, w[0][0] == '#':
			continue
		case w[0] == "type" || w[0] == "flags" || w[0] == "const":
			section, prefix = w[1], w[2]
			continue
		case parse[section] == nil:
			continue
		}
		spelling, want := w[0], uint64(0)
		if w[0] == "alias" || w[0] == "aka" {
			spelling, want = w[1], numbers[w[2]]
		} else {
			if want, err = strconv.ParseUint(w[1], 0, 64); err != nil {
				t.Fatal(err)
			}
			numbers[w[0]] = want
		}
		for _, s := range []string{spelling, strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(spelling, prefix), "_", "-"))} {
			if got, err := parse[section](s); err != nil || got != want {
				t.Errorf("%s: parse %q = %#x, %v; want %#x", section, s, got, err, want)
			}
		}
		tested++
	}
	if tested < 800 {
		t.Errorf("only %d names", tested)
	}
}

// Numbers from the standard, which the table must not lose.
func TestKnownNumbers(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want uint64
	}{
		{"CKM_RSA_PKCS", uint64(CKM_RSA_PKCS), 1},
		{"CKM_SHA256_RSA_PKCS", uint64(CKM_SHA256_RSA_PKCS), 0x40},
		{"CKM_AES_GCM", uint64(CKM_AES_GCM), 0x1087},
		{"CKM_AES_KEY_WRAP_KWP", uint64(CKM_AES_KEY_WRAP_KWP), 0x210b},
		{"CKM_EDDSA", uint64(CKM_EDDSA), 0x1057},
		{"CKM_ML_DSA", uint64(CKM_ML_DSA), 0x1d},
		{"CKM_CAST5_CBC", uint64(CKM_CAST5_CBC), 0x322},
		{"CKA_ECDSA_PARAMS", uint64(CKA_ECDSA_PARAMS), 0x180},
		{"CKA_WRAP_TEMPLATE", uint64(CKA_WRAP_TEMPLATE), 0x40000211},
		{"CKA_UNIQUE_ID", uint64(CKA_UNIQUE_ID), 4},
		{"CKA_IBM_OPAQUE", uint64(CKA_IBM_OPAQUE), 0x80000001},
		{"CKA_HIDDEN", uint64(CKA_HIDDEN), 0x81000000},
		{"CKA_ENC_AUTHDATA", uint64(CKA_ENC_AUTHDATA), 0x81000001},
		{"CKK_EC", uint64(CKK_EC), 3},
		{"CKR_PIN_INCORRECT", uint64(CKR_PIN_INCORRECT), 0xa0},
		{"CKR_FUNCTION_REJECTED", uint64(CKR_FUNCTION_REJECTED), 0x200},
		{"CKF_TOKEN_INITIALIZED", uint64(CKF_TOKEN_INITIALIZED), 0x400},
		{"CKU_CONTEXT_SPECIFIC", uint64(CKU_CONTEXT_SPECIFIC), 2},
	} {
		if c.got != c.want {
			t.Errorf("%s is %#x, want %#x", c.name, c.got, c.want)
		}
	}
}

func TestParseNameErrors(t *testing.T) {
	for _, c := range []struct {
		name string
		err  func() error
		rv   RV
		text string
	}{
		{"mechanism", func() error { _, err := ParseMechanismType("rot13"); return err }, CKR_MECHANISM_INVALID, `unknown mechanism "rot13"`},
		{"attribute", func() error { _, err := ParseAttributeType("lable"); return err }, CKR_ATTRIBUTE_TYPE_INVALID, `unknown attribute "lable"; did you mean label?`},
		{"attribute in the long spelling", func() error { _, err := ParseAttributeType("KEY_TIPE"); return err }, CKR_ATTRIBUTE_TYPE_INVALID, `unknown attribute "KEY_TIPE"; did you mean key-type?`},
		{"missing letter", func() error { _, err := ParseMechanismType("sha256-rsa-pcks"); return err }, CKR_MECHANISM_INVALID, `unknown mechanism "sha256-rsa-pcks"; did you mean sha256-rsa-pkcs?`},
		{"class", func() error { _, err := ParseObjectClass("key"); return err }, CKR_ATTRIBUTE_VALUE_INVALID, `unknown class "key"`},
		{"number", func() error { _, err := ParseKeyType("0xzz"); return err }, CKR_ATTRIBUTE_VALUE_INVALID, `key type "0xzz" is not a hexadecimal number of 64 bits`},
		{"binary", func() error { _, err := ParseKeyType("a\nb\x00"); return err }, CKR_ATTRIBUTE_VALUE_INVALID, `unknown key type "a\nb\x00"`},
		{"long", func() error { _, err := ParseKeyType(strings.Repeat("x", 5000)); return err }, CKR_ATTRIBUTE_VALUE_INVALID, `unknown key type "` + strings.Repeat("x", 40) + `"…`},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.err()
			if err == nil || err.Error() != c.text || !errors.Is(err, c.rv) {
				t.Errorf("error %q (%v), want %q (%v)", err, RVOf(err), c.text, c.rv)
			}
		})
	}
}

func TestFlagNames(t *testing.T) {
	for _, c := range []struct {
		got  []string
		want string
	}{
		{(CKF_RNG | CKF_LOGIN_REQUIRED | CKF_USER_PIN_LOCKED).TokenNames(), "rng login-required user-pin-locked"},
		{(CKF_SIGN | CKF_ENCRYPT | CKF_HW).MechanismNames(), "hw encrypt sign"},
		{(CKF_RW_SESSION | CKF_SERIAL_SESSION).SessionNames(), "rw-session serial-session"},
		{(CKF_TOKEN_PRESENT | 1<<40).SlotNames(), "token-present 0x10000000000"},
		{Flags(0).SlotNames(), ""},
	} {
		if got := strings.Join(c.got, " "); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	if got := (CKF_SIGN | CKF_VERIFY).String(); got != "0x2800" {
		t.Errorf("String is %s", got)
	}
}
