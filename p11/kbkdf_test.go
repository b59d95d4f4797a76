package p11

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSP800108Params(t *testing.T) {
	counter := KDFField{Type: CK_SP800_108_ITERATION_VARIABLE, Width: 32}
	for _, c := range []struct {
		in, text string // text "" for the same
		want     *SP800108Params
	}{
		{"sp800-108-counter-kdf,fields=iteration:32", "", &SP800108Params{PRF: CKM_SHA256_HMAC, Fields: []KDFField{counter}}},
		{"sp800-108-counter-kdf,prf=aes-cmac,fields=0xFF+iteration:32+segments:16le+key:0x10,more=16+aes:32+des3",
			"sp800-108-counter-kdf,prf=aes-cmac,fields=0xff+iteration:32+segments:16le+key:16,more=generic-secret:16+aes:32+des3",
			&SP800108Params{PRF: CKM_AES_CMAC, Fields: []KDFField{
				{Type: CK_SP800_108_BYTE_ARRAY, Data: []byte{0xff}}, counter,
				{Type: CK_SP800_108_DKM_LENGTH, Method: CK_SP800_108_DKM_LENGTH_SUM_OF_SEGMENTS, Width: 16, LittleEndian: true},
				{Type: CK_SP800_108_KEY_HANDLE, Key: 16},
			}, Keys: []Attributes{
				{{CKA_KEY_TYPE, Ulong(uint64(CKK_GENERIC_SECRET))}, {CKA_VALUE_LEN, Ulong(uint64(16))}},
				{{CKA_KEY_TYPE, Ulong(uint64(CKK_AES))}, {CKA_VALUE_LEN, Ulong(uint64(32))}},
				{{CKA_KEY_TYPE, Ulong(uint64(CKK_DES3))}},
			}}},
		{"sp800-108-feedback-kdf,fields=iteration+counter:8+length:64,iv=0x01", "", &SP800108Params{PRF: CKM_SHA256_HMAC, IV: []byte{1}, Fields: []KDFField{
			{Type: CK_SP800_108_ITERATION_VARIABLE}, {Type: CK_SP800_108_OPTIONAL_COUNTER, Width: 8},
			{Type: CK_SP800_108_DKM_LENGTH, Method: CK_SP800_108_DKM_LENGTH_SUM_OF_KEYS, Width: 64},
		}}},
	} {
		m, err := ParseMechanism(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if diff := cmp.Diff(c.want, m.Param); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.in, diff)
		}
		if want := c.text; m.String() != want && (want != "" || m.String() != c.in) {
			t.Errorf("%s prints as %s", c.in, m)
		}
	}
	for _, in := range []string{
		"sp800-108-counter-kdf", "sp800-108-counter-kdf,fields=", "sp800-108-counter-kdf,fields=0x00", "sp800-108-counter-kdf,fields=iteration",
		"sp800-108-counter-kdf,fields=iteration:32+counter:8", "sp800-108-counter-kdf,fields=iteration:32+iteration:32",
		"sp800-108-counter-kdf,fields=iteration:12", "sp800-108-counter-kdf,fields=iteration:40", "sp800-108-counter-kdf,fields=iteration:8,iv=00",
		"sp800-108-counter-kdf,fields=iteration:8+length:72", "sp800-108-counter-kdf,fields=iteration:8+length:8+segments:8",
		"sp800-108-counter-kdf,fields=iteration:8+key:0", "sp800-108-counter-kdf,fields=iteration:8+0x", "sp800-108-counter-kdf,fields=iteration:8+what",
		"sp800-108-feedback-kdf,fields=iteration:8", "sp800-108-feedback-kdf,fields=counter:8", "sp800-108-double-pipeline-kdf,fields=iteration,iv=00",
		"sp800-108-feedback-kdf,fields=iteration,more=", "sp800-108-feedback-kdf,fields=iteration,more=aes:x", "sp800-108-feedback-kdf,fields=iteration,more=what:16",
		"sp800-108-feedback-kdf,fields=iteration,more=1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1",
	} {
		if m, err := ParseMechanism(in); RVOf(err) != CKR_MECHANISM_PARAM_INVALID && RVOf(err) != CKR_ATTRIBUTE_VALUE_INVALID {
			t.Errorf("%s is %v, %v", in, m, err)
		}
	}
}
