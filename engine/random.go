package engine

import (
	"context"

	"p11fs/p11"
	"p11fs/tokens"
)

// RandomTurn is how many bytes are made in one turn at most: some tenths of a millisecond's work.
const RandomTurn = 64 << 10

// GenerateRandom is C_GenerateRandom (PKCS#11 v3.1 §5.19.2).
func (s *Session) GenerateRandom(ctx context.Context, n int) ([]byte, error) {
	if s.closed() {
		return nil, s.gone()
	}
	if n < 0 {
		return nil, p11.Errorf(p11.CKR_ARGUMENTS_BAD, "a length cannot be negative")
	}
	if err := interrupted(ctx); err != nil {
		return nil, err
	}
	b := make([]byte, n)
	if err := s.appSlot.slot.token.GenerateRandom(ctx, b); err != nil {
		return nil, err
	}
	return b, nil
}

// SeedRandom is C_SeedRandom (PKCS#11 v3.1 §5.19.1).
func (s *Session) SeedRandom(ctx context.Context, seed []byte) error {
	if s.closed() {
		return s.gone()
	}
	if err := interrupted(ctx); err != nil {
		return err
	}
	seeder, ok := s.appSlot.slot.token.(tokens.RandomSeeder)
	if !ok {
		return p11.CKR_RANDOM_SEED_NOT_SUPPORTED
	}
	return seeder.SeedRandom(ctx, seed)
}
