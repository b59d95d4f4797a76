package locks

import "context"

// A Noted is told that somebody begins to wait for what the lock file at path guards, and
// returns what is to be called when that ends. It is called without a lock held.
type Noted func(path string) (ended func())

// WaitsKey is the key of a context whose value is a Noted: a door puts it there, and only who
// has to wait looks for it.
type WaitsKey struct{}

// Waits notes that the caller whose ctx it is waits; ended is called once.
func Waits(ctx context.Context, path string) (ended func()) {
	if noted, ok := ctx.Value(WaitsKey{}).(Noted); ok {
		return noted(path)
	}
	return func() {}
}
