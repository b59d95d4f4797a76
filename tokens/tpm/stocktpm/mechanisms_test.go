package stocktpm

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestMechanisms compares the list with stock's.
func TestMechanisms(t *testing.T) {
	t.Parallel()
	const stock = `RSA_PKCS_KEY_PAIR_GEN 512 2048 0x10000
DES_KEY_GEN 0 0 0x8000
DES3_KEY_GEN 0 0 0x8000
RSA_PKCS 512 2048 0x67b01
MD5_RSA_PKCS 512 2048 0x2801
SHA1_RSA_PKCS 512 2048 0x2801
DES_ECB 0 0 0x60300
DES_CBC 0 0 0x60300
DES_CBC_PAD 0 0 0x60300
DES3_ECB 0 0 0x60300
DES3_CBC 0 0 0x60300
DES3_CBC_PAD 0 0 0x60300
SHA_1 0 0 0x400
SHA_1_HMAC 0 0 0x2800
SHA_1_HMAC_GENERAL 0 0 0x2800
MD5 0 0 0x400
MD5_HMAC 0 0 0x2800
MD5_HMAC_GENERAL 0 0 0x2800
SSL3_PRE_MASTER_KEY_GEN 48 48 0x8000
SSL3_MASTER_KEY_DERIVE 48 48 0x80000
SSL3_KEY_AND_MAC_DERIVE 48 48 0x80000
SSL3_MD5_MAC 384 384 0x2800
SSL3_SHA1_MAC 384 384 0x2800
AES_KEY_GEN 16 32 0x8000
AES_ECB 16 32 0x60300
AES_CBC 16 32 0x60300
AES_CBC_PAD 16 32 0x60300`
	var got []string
	for _, m := range open(t, t.TempDir(), "/nonexistent").Mechanisms() {
		got = append(got, fmt.Sprintf("%s %d %d %#x", strings.TrimPrefix(m.Type.String(), "CKM_"), m.MinKeySize, m.MaxKeySize, uint64(m.Flags)))
	}
	if want := strings.Split(stock, "\n"); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
