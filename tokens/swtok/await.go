package swtok

import (
	"context"
	"runtime"

	"p11fs/tokens"
)

// turns bound how much work goes on at once that nobody can stop.
type turns chan struct{}

func newTurns() turns { return make(turns, runtime.NumCPU()) }

// await has work done that takes seconds. Whoever is interrupted does not wait for it,
// before it has its turn or after: what comes then goes to drop. The work must not touch
// what its caller gives up meanwhile. It takes a turn of busy, unless that is nil, since
// it can be stopped. Whose work it is sees to it that others find a processor.
func await[T any](ctx context.Context, busy turns, work func() (T, error), drop func(T)) (T, error) {
	type made struct {
		it  T
		err error
	}
	var none T
	end, err := tokens.Long(ctx)
	if err != nil {
		return none, err
	}
	if busy != nil {
		select {
		case busy <- struct{}{}:
		case <-ctx.Done():
			end()
			return none, ctx.Err()
		}
	}
	done := make(chan made, 1)
	go func() {
		it, err := work()
		if busy != nil {
			<-busy
		}
		end()
		done <- made{it, err}
	}()
	select {
	case m := <-done:
		return m.it, m.err
	case <-ctx.Done():
		go func() {
			if m := <-done; m.err == nil {
				drop(m.it)
			}
		}()
		return none, ctx.Err()
	}
}
