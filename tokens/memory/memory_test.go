package memory_test

import (
	"log/slog"
	"testing"

	"p11fs/tokens"
	"p11fs/tokens/memory"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest"
)

// token is a software token in memory.
type token struct {
	*memory.Store
	*swtok.Crypto
}

func (token) Name() string { return "mine" }
func (token) Kind() string { return swtok.Kind }

// The store is the same with each provider, and swtok tries them all.
func TestToken(t *testing.T) {
	disk, p := memory.NewDisk(), swtok.LoadProvider(slog.New(slog.DiscardHandler))
	tokentest.Run(t, tokentest.Backend{
		SOPIN: tokens.DefaultSOPIN,
		Open: func(_ *testing.T, dir string) tokens.Token {
			return token{disk.Open(dir), swtok.NewCrypto(p, nil)}
		},
	})
}
