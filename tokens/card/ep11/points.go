package ep11

import (
	"strconv"
	"strings"

	"p11fs/p11"
)

// ControlPointBytes is the length of the control points' bits, of which the first is bit 0x80
// of byte 0.
const ControlPointBytes = 16

// morePoints is how many control points a filter may name: more than cards have now.
const morePoints = 1024

// A Point is a control point: what a domain allows while it is on.
type Point struct {
	Name   string // as openCryptoki's ep11cpfilter.conf has it behind XCP_CPB_
	Number int
}

// Points are the control points that have names (EP11 wire format, "Control points").
func Points() []Point {
	return []Point{
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

// PointOf is the number of the control point of that name, with XCP_CPB_ before it or
// without, or number.
func PointOf(s string) (int, bool) {
	name := strings.TrimPrefix(s, "XCP_CPB_")
	for _, p := range Points() {
		if p.Name == name {
			return p.Number, true
		}
	}
	n, err := strconv.ParseUint(s, 0, 16)
	return int(n), err == nil && n < morePoints
}

// HasPoint says whether control point n is on. One that the card does not tell of is off.
func HasPoint(points []byte, n int) bool {
	return n >= 0 && n/8 < len(points) && points[n/8]&(0x80>>(n%8)) != 0
}

// SetPoint switches control point n, which is one of points, on or off.
func SetPoint(points []byte, n int, on bool) {
	points[n/8] &^= 0x80 >> (n % 8)
	if on {
		points[n/8] |= 0x80 >> (n % 8)
	}
}

// The control points of strength: below 80 bits, 80 to 111, 112 to 127, 128 to 191, 192 to 255,
// and 256 bits and more.
const (
	pointBelow80 = 23
	strengths    = 6
)

// leastSizes are the sizes at which keys of a type are stronger: of 80, 112, 128, 192 and 256
// bits (NIST SP 800-57 part 1, table 2). They are bits of a modulus, a group or a curve, or
// bytes of a secret key, as in the sizes of mechanisms.
func leastSizes(kt p11.KeyType) [strengths - 1]uint64 {
	const none = ^uint64(0)
	switch kt {
	case p11.CKK_RSA, p11.CKK_DSA, p11.CKK_DH:
		return [...]uint64{1024, 2048, 3072, 7680, 15360}
	case p11.CKK_EC, p11.CKK_EC_EDWARDS, p11.CKK_EC_MONTGOMERY:
		return [...]uint64{160, 224, 255, 384, 512} // 255 are those of RFC 7748
	case p11.CKK_DES, p11.CKK_DES2, p11.CKK_DES3:
		return [...]uint64{16, 24, none, none, none}
	}
	return [...]uint64{10, 14, 16, 24, 32}
}

// StrengthPoint is the control point that has to be on for keys of that type and size.
func StrengthPoint(kt p11.KeyType, size uint64) int {
	n := pointBelow80
	for _, least := range leastSizes(kt) {
		if size >= least {
			n++
		}
	}
	return n
}

// Sizes are the least and the greatest size, of those from least to most, that keys of a type
// may have by the control points of strength. ok is false for none.
func Sizes(points []byte, kt p11.KeyType, least, most uint64) (from, to uint64, ok bool) {
	may := func(low, high uint64) {
		if low < least {
			low = least
		}
		if high > most {
			high = most
		}
		if low > high || !HasPoint(points, StrengthPoint(kt, low)) {
			return
		}
		if !ok {
			from, ok = low, true
		}
		to = high
	}
	if lengths := p11.KeyLengths(kt); len(lengths) > 0 {
		for _, n := range lengths {
			may(n, n)
		}
		return from, to, ok
	}
	low := uint64(0)
	for _, next := range leastSizes(kt) {
		may(low, next-1)
		low = next
	}
	may(low, most)
	return from, to, ok
}

// Bounded is a mechanism as the control points of strength leave it. ok is false where they
// leave no key for it.
func Bounded(points []byte, m p11.MechanismInfo) (bounded p11.MechanismInfo, ok bool) {
	facts, _ := p11.MechanismFacts(m.Type)
	if m.MaxKeySize == 0 || len(facts.KeyTypes) == 0 {
		return m, true
	}
	bounded = m
	for _, kt := range facts.KeyTypes {
		from, to, some := Sizes(points, kt, m.MinKeySize, m.MaxKeySize)
		switch {
		case !some:
		case !ok:
			bounded.MinKeySize, bounded.MaxKeySize, ok = from, to, true
		default:
			bounded.MinKeySize, bounded.MaxKeySize = min(bounded.MinKeySize, from), max(bounded.MaxKeySize, to)
		}
	}
	return bounded, ok
}
