//go:build cgo

package hostlib

import (
	"bytes"
	"fmt"

	"p11fs/p11"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cca"
	"p11fs/tokens/card/ep11"
)

// take gives the call what came out of a function that returned rv. An error says that the
// library's answer is none.
func (f *frame) take(rv uint64) error {
	c := f.c
	good, small := rv == 0, rv == uint64(p11.CKR_BUFFER_TOO_SMALL)
	if c.Function.ABI == card.CCA {
		good, small = rv>>32 == 0, rv == cca.ErrBuffer.Value()
	}
	c.Return = rv
	little := false
	for i, kind := range c.Function.Args {
		a, s := &c.Args[i], &f.slots[i]
		switch kind {
		case card.Counter:
			a.Number = f.get(s.length)
		case card.Output, card.InOut, card.Numbers:
			if !good && !small {
				continue
			}
			n := uint64(s.room)
			if s.length != 0 {
				n = f.get(s.length)
				if n > card.MaxOutput {
					return fmt.Errorf("%s gives %d bytes", c.Function.Name, n)
				}
				n *= uint64(s.unit)
			}
			if err := give(a, kind, f.b, s, n, good); err != nil {
				return fmt.Errorf("%s: %w", c.Function.Name, err)
			}
			little = little || good && kind != card.Numbers && !a.Query && n > a.Room
		case card.Wanted:
			f.takeWanted(a, s)
		}
	}
	if little { // an output that was told of more room, as an input has it
		c.Drop()
		c.Return = returned(c, errSmall(c))
	}
	return nil
}

// give takes an output of n bytes.
func give(a *card.Arg, kind card.Kind, b []byte, s *slot, n uint64, good bool) error {
	if kind == card.Numbers {
		if a.Length = n / wordSize; a.Query || !good {
			return nil
		}
		if n > uint64(s.room) {
			return fmt.Errorf("%d numbers where %d fit", a.Length, s.room/wordSize)
		}
		m := memory{b: b}
		for at := s.at; at < s.at+int(n); at += wordSize {
			a.Numbers = append(a.Numbers, m.get(at))
		}
		return nil
	}
	if a.Length = n; a.Query || !good {
		return nil
	}
	if n > uint64(s.has) {
		return fmt.Errorf("%d bytes where %d fit", n, s.has)
	}
	if n > a.Room {
		return nil
	}
	a.Out = append([]byte{}, b[s.at:s.at+int(n)]...)
	return nil
}

// takeWanted takes the attributes that there are.
func (f *frame) takeWanted(a *card.Arg, s *slot) {
	for i, w := range a.Want {
		const entry = 3 * wordSize
		n := f.get(s.head + i*entry + 2*wordSize)
		switch {
		case n > beyond || !w.Query && n > w.Room: // as of what there is not
		case w.Query:
			a.Attributes = append(a.Attributes, p11.Attribute{Type: w.Type, Value: make([]byte, n)})
		default:
			a.Attributes = append(a.Attributes, p11.Attribute{Type: w.Type, Value: bytes.Clone(native(w.Type, f.b[s.wanted[i]:s.wanted[i]+int(n)]))})
		}
	}
}

// broken is what a call returns that the library answered with nonsense.
func broken(c *card.Call) uint64 {
	if c.Function.ABI == card.CCA {
		return cca.ErrData.Value()
	}
	return uint64(ep11.Internal)
}

// nobody is what a call returns that no card answers.
func nobody(c *card.Call) uint64 {
	if c.Function.ABI == card.CCA {
		return cca.ErrNoCard.Value()
	}
	return uint64(ep11.TransportError)
}

// absent is what a call returns of a function that the library has not.
func absent(c *card.Call) uint64 {
	if c.Function.ABI == card.CCA {
		return cca.ErrKeyword.Value()
	}
	return uint64(p11.CKR_FUNCTION_NOT_SUPPORTED)
}
