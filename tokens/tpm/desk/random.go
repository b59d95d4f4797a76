package desk

import "context"

// fromTPM bounds how many random bytes of a call a TPM has its part in: a chip gives some
// hundreds a second.
const fromTPM = 4096

// MixRandom changes random bytes by those that a TPM gives, of which random fills a slice,
// so that they are no worse than either. Its error is random's; then b is of no use.
func MixRandom(ctx context.Context, b []byte, random func(context.Context, []byte) error) error {
	own := make([]byte, min(len(b), fromTPM))
	defer clear(own)
	if err := random(ctx, own); err != nil {
		return err
	}
	for i, x := range own {
		b[i] ^= x
	}
	return nil
}
