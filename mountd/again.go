package mountd

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"p11fs/tokens"
)

// maxAgain is the longest time between two tries to open a token that may come later.
const maxAgain = 10 * time.Second

// comeLater has the tokens be served that could not be opened yet, and may come
// (tokens.ErrAway), as soon as they do.
func (d *Daemon) comeLater(context.Context) error {
	ctx, stop := context.WithCancel(context.Background())
	var tries sync.WaitGroup
	for _, s := range d.all() {
		if errors.Is(s.err, tokens.ErrAway) {
			tries.Go(func() { d.comes(ctx, s.label()) })
		}
	}
	d.later(func() error {
		stop()
		tries.Wait()
		return nil
	})
	return nil
}

// comes tries to serve a token until it is served, or will not be.
func (d *Daemon) comes(ctx context.Context, name string) {
	for wait := time.Second; ; wait = min(2*wait, maxAgain) {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		if err := d.tryAgain(ctx, name); !errors.Is(err, tokens.ErrAway) {
			return
		}
	}
}

// tryAgain takes a token into service, or notes why it still cannot be.
func (d *Daemon) tryAgain(ctx context.Context, name string) error {
	d.changing.Lock()
	defer d.changing.Unlock()
	at := slices.IndexFunc(d.all(), func(s *slot) bool { return s.label() == name })
	if d.ended || at < 0 || d.all()[at].token != nil {
		return nil
	}
	err := d.addToken(ctx, name)
	switch {
	case ctx.Err() != nil:
		return nil
	case err == nil:
		now := slices.IndexFunc(d.all(), func(s *slot) bool { return s.label() == name })
		return d.holdLogin(ctx, d.all()[now])
	case !errors.Is(err, tokens.ErrAway):
		d.log.Error("token not usable", "token", name, "err", err)
	}
	list := slices.Clone(d.all())
	failed := *list[at]
	failed.err = err
	list[at] = &failed
	d.setSlots(list)
	return err
}
