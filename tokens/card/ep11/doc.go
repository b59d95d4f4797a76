// Package ep11 has the calls of the host library of cards in EP11 mode: a function for who
// calls one, the interface Card for who answers, return values, and the layouts of what
// the functions carry beside keys. The functions' names are the library's without m_.
package ep11

import (
	"context"

	"p11fs/p11"
	"p11fs/tokens/card"
)

// call makes a call. A return value that is not CKR_OK is the error.
func call(ctx context.Context, via card.Transport, c *card.Call) error {
	if err := via.Call(ctx, c); err != nil {
		return err
	}
	if rv := p11.RV(c.Return); rv != p11.CKR_OK {
		return refused(c.Function, rv)
	}
	return nil
}

// complete says whether no argument is missing that a Card counts on, or sets the return
// value.
func complete(c *card.Call) bool {
	for i, k := range c.Function.Args {
		if a := c.Args[i]; k == card.Mechanism && a.Mechanism == nil || k == card.InOut && a.Bytes == nil || c.Function.Number == FnGenerateRandom && a.Query {
			c.Return = uint64(p11.CKR_ARGUMENTS_BAD)
			return false
		}
	}
	return true
}

// finish sets the return value, and takes back what is not to be had.
func finish(c *card.Call, err error, fits bool) {
	switch {
	case err != nil:
		c.Return = uint64(p11.RVOf(err))
	case !fits:
		c.Return = uint64(p11.CKR_BUFFER_TOO_SMALL)
	default:
		c.Return = uint64(p11.CKR_OK)
	}
	if c.Return != uint64(p11.CKR_OK) {
		c.Drop()
	} else if c.Asks() {
		c.KeepStates()
	}
}
