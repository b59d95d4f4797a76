package swtok

import (
	"context"
	"errors"
	"math/big"
	"testing"

	"p11fs/p11/pkix"
)

// A slowProvider makes no key before it is told to.
type slowProvider struct {
	Provider
	started, finish chan struct{}
}

func (p slowProvider) GenerateRSA(context.Context, int, *big.Int) (*pkix.RSANumbers, error) {
	close(p.started)
	<-p.finish
	return nil, errors.New("nobody waits for this")
}

func TestInterruptedGenerationEndsAtOnce(t *testing.T) {
	p := slowProvider{started: make(chan struct{}), finish: make(chan struct{})}
	defer close(p.finish)
	c := &Crypto{provider: p}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-p.started
		cancel()
	}()
	if _, err := c.newRSA(ctx, 4096, big.NewInt(3)); !errors.Is(err, context.Canceled) {
		t.Errorf("an interrupted generation returned %v", err)
	}
}
