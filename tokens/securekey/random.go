package securekey

import (
	"crypto/rand"
	"io"

	"p11fs/p11"
)

// maxRandom is what a card is asked for at once.
const maxRandom = 4096

// Random fills b with bytes that are no worse than either of the card's and the kernel's. ask
// has the card make n of them.
func Random(b []byte, ask func(n int) ([]byte, error)) error {
	for len(b) > 0 {
		part := b[:min(len(b), maxRandom)]
		got, err := ask(len(part))
		if err == nil && len(got) != len(part) {
			err = p11.Errorf(p11.CKR_DEVICE_ERROR, "the card gave %d random bytes, not %d", len(got), len(part))
		}
		if err != nil {
			return err
		}
		if _, err := io.ReadFull(rand.Reader, part); err != nil {
			return p11.Errorf(p11.CKR_FUNCTION_FAILED, "random bytes: %v", err)
		}
		for i, x := range got {
			part[i] ^= x
		}
		b = b[len(part):]
	}
	return nil
}
