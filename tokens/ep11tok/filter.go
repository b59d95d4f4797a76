package ep11tok

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"p11fs/p11"
	"p11fs/tokens/card/cardway"
)

// filterFile is the control-point filter of a configuration that names none.
const filterFile = "ep11cpfilter.conf"

// A filter says which mechanisms control points of a card switch off. Each of its lines is
// "POINT: MECHANISM, MECHANISM …", by name or by number.
type filter []filterLine

type filterLine struct {
	point      int
	mechanisms []p11.MechanismType
}

// points are how many control points there may be, and maxListed the mechanisms of one line.
const (
	points    = 1024
	maxListed = 1024
)

// controlPoints has the names that lines have for control points (EP11 wire format,
// "Control points").
func controlPoints() []struct {
	name  string
	point int
} {
	return []struct {
		name  string
		point int
	}{
		{"ADD_CPBS", 0}, {"DELETE_CPBS", 1}, {"SIGN_ASYMM", 2}, {"SIGN_SYMM", 3}, {"SIGVERIFY_SYMM", 4},
		{"ENCRYPT_SYMM", 5}, {"DECRYPT_ASYMM", 6}, {"DECRYPT_SYMM", 7}, {"WRAP_ASYMM", 8}, {"WRAP_SYMM", 9},
		{"UNWRAP_ASYMM", 10}, {"UNWRAP_SYMM", 11}, {"KEYGEN_ASYMM", 12}, {"KEYGEN_SYMM", 13}, {"RETAINKEYS", 14},
		{"SKIP_KEYTESTS", 15}, {"NON_ATTRBOUND", 16}, {"MODIFY_OBJECTS", 17}, {"RNG_SEED", 18}, {"ALG_RAW_RSA", 19},
		{"ALG_NFIPS2009", 20}, {"ALG_NBSI2009", 21}, {"KEYSZ_HMAC_ANY", 22}, {"KEYSZ_BELOW80BIT", 23},
		{"KEYSZ_80BIT", 24}, {"KEYSZ_112BIT", 25}, {"KEYSZ_128BIT", 26}, {"KEYSZ_192BIT", 27}, {"KEYSZ_256BIT", 28},
		{"KEYSZ_RSA65536", 29}, {"ALG_RSA", 30}, {"ALG_DSA", 31}, {"ALG_EC", 32}, {"ALG_EC_BPOOLCRV", 33},
		{"ALG_EC_NISTCRV", 34}, {"ALG_NFIPS2011", 35}, {"ALG_NBSI2011", 36}, {"USER_SET_TRUSTED", 37},
		{"ALG_SKIP_CROSSCHK", 38}, {"WRAP_CRYPT_KEYS", 39}, {"SIGN_CRYPT_KEYS", 40}, {"WRAP_SIGN_KEYS", 41},
		{"USER_SET_ATTRBOUND", 42}, {"ALLOW_PASSPHRASE", 43}, {"WRAP_STRONGER_KEY", 44}, {"WRAP_WITH_RAW_SPKI", 45},
		{"ALG_DH", 46}, {"DERIVE", 47}, {"ALLOW_NONSESSION", 48}, {"ALG_EC_25519", 55}, {"ALG_NBSI2017", 61},
		{"CPACF_PK", 64}, {"ALG_PQC", 65}, {"ALG_ML_DSA", 79}, {"ALG_ML_KEM", 80},
	}
}

// parseFilter reads a filter.
func parseFilter(src string) (filter, error) {
	var f filter
	n := 0
	for line := range strings.Lines(src) {
		n++
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		bad := func(format string, args ...any) error {
			return cardway.Word{Line: n}.Bad(fmt.Sprintf(format, args...))
		}
		name, list, ok := strings.Cut(line, ":")
		point, known := pointOf(strings.TrimSpace(name))
		if !ok || !known {
			return nil, bad("it is CONTROL POINT: MECHANISM, MECHANISM, not %s", cardway.Clip(line))
		}
		one := filterLine{point: point}
		for m := range strings.SplitSeq(list, ",") {
			m = strings.TrimSpace(m)
			mt, err := p11.ParseMechanismType(m)
			if number, nerr := strconv.ParseUint(m, 0, 64); nerr == nil {
				mt, err = p11.MechanismType(number), nil
			}
			if err != nil {
				return nil, bad("there is no mechanism %s", cardway.Clip(m))
			}
			if one.mechanisms = append(one.mechanisms, mt); len(one.mechanisms) > maxListed {
				return nil, bad("there are more than %d mechanisms", maxListed)
			}
		}
		f = append(f, one)
	}
	return f, nil
}

// pointOf is the control point of that name or number.
func pointOf(s string) (int, bool) {
	name := strings.TrimPrefix(s, "XCP_CPB_")
	for _, p := range controlPoints() {
		if p.name == name {
			return p.point, true
		}
	}
	n, err := strconv.ParseUint(s, 0, 16)
	return int(n), err == nil && n < points
}

// admits says whether the control points of a card, of which the first is bit 0x80 of byte 0,
// leave a mechanism: none that names it is off.
func (f filter) admits(m p11.MechanismType, on []byte) bool {
	return !slices.ContainsFunc(f, func(l filterLine) bool {
		return slices.Contains(l.mechanisms, m) && !isOn(on, l.point)
	})
}

// isOn says whether a control point is on. One that the card does not tell of is off.
func isOn(on []byte, point int) bool {
	return point/8 < len(on) && on[point/8]&(0x80>>(point%8)) != 0
}

// readFilter reads the filter of a configuration: without a name there is none.
func readFilter(path string) (filter, error) {
	if path == "" {
		return nil, nil
	}
	src, err := cardway.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := parseFilter(src)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "%s, %w", path, err)
	}
	return f, nil
}
