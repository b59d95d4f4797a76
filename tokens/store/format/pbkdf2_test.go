package format

import (
	"bytes"
	std "crypto/pbkdf2"
	"crypto/sha512"
	"strings"
	"testing"
)

// TestPBKDF2 compares it with that of the library, for PINs shorter and longer than a block of
// the hash.
func TestPBKDF2(t *testing.T) {
	for _, pin := range []string{"1234", "", strings.Repeat("x", 128), strings.Repeat("y", 129), strings.Repeat("z", 1024)} {
		for _, rounds := range []int{1, 2, 100} {
			for _, size := range []int{1, pinKeySize, sha512.Size} {
				want, err := std.Key(sha512.New, pin, []byte("salt of sixteen!"), rounds, size)
				if err != nil {
					t.Fatal(err)
				}
				if got := pbkdf2([]byte(pin), []byte("salt of sixteen!"), rounds, size); !bytes.Equal(got, want) {
					t.Errorf("%d bytes of %d rounds with a PIN of %d: %x, want %x", size, rounds, len(pin), got, want)
				}
			}
		}
	}
}
