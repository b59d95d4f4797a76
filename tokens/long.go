package tokens

import "context"

// LongKey is the key of what WithLong puts into a context.
type LongKey struct{}

// A LongWait waits until work that takes long may begin. The end of the work calls end.
// It fails if ctx ends before.
type LongWait func(ctx context.Context) (end func(), err error)

// WithLong returns a context under which a token asks wait before work that takes long.
func WithLong(ctx context.Context, wait LongWait) context.Context {
	return context.WithValue(ctx, LongKey{}, wait)
}

// Long is where a token begins work that takes seconds or more, such as making an RSA key:
// whoever has much of it waits, so that others find a processor.
func Long(ctx context.Context) (end func(), err error) {
	if wait, ok := ctx.Value(LongKey{}).(LongWait); ok {
		return wait(ctx)
	}
	return func() {}, nil
}
