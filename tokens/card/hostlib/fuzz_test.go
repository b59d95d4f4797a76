//go:build cgo

package hostlib

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/card"
)

// A script is bytes of the fuzzer's, out of which calls and answers are made. It gives zeros
// at its end.
type script []byte

func (s *script) u8() byte {
	if len(*s) == 0 {
		return 0
	}
	b := (*s)[0]
	*s = (*s)[1:]
	return b
}

func (s *script) bytes(n int) []byte {
	n = min(n, len(*s))
	b := append([]byte{}, (*s)[:n]...)
	*s = (*s)[n:]
	return b
}

// number is mostly small, and everything at times.
func (s *script) number() uint64 {
	switch b := s.u8(); {
	case b < 200:
		return uint64(b)
	case b < 240:
		return uint64(b-199) * uint64(s.u8()) << 4
	case b < 248:
		return ^uint64(0) - uint64(s.u8())
	}
	return binary.BigEndian.Uint64(append(s.bytes(8), make([]byte, 8)...))
}

// call is one of a function.
func (s *script) call(f *card.Function) *card.Call {
	c := &card.Call{Function: f, Args: make([]card.Arg, len(f.Args))}
	for i, kind := range f.Args {
		a := &c.Args[i]
		a.Number, a.Room, a.Query = s.number(), s.number(), s.u8()%4 == 3
		switch kind {
		case card.Bytes, card.InOut:
			if n := int(s.u8()); n != 255 {
				a.Bytes = s.bytes(n)
			}
		case card.Mechanism:
			a.Mechanism = s.mechanism()
		case card.Attributes:
			for range s.u8() % 8 {
				t := s.attribute()
				if !p11.KindOf(t).IsUlong() {
					a.Attributes = append(a.Attributes, p11.Attribute{Type: t, Value: s.bytes(int(s.u8() % 20))})
					continue
				}
				a.Attributes = append(a.Attributes, p11.Attribute{Type: t, Value: p11.Ulong(p11.AttributeType(s.number()))})
			}
		case card.Wanted:
			for range s.u8() % 8 {
				a.Want = append(a.Want, card.WantedValue{Type: s.attribute(), Room: s.number(), Query: s.u8()%2 == 1})
			}
		}
	}
	return c
}

func (s *script) attribute() p11.AttributeType {
	list := []p11.AttributeType{p11.CKA_CLASS, p11.CKA_VALUE, p11.CKA_VALUE_LEN, p11.CKA_ID, p11.CKA_WRAP_TEMPLATE}
	return list[int(s.u8())%len(list)]
}

func (s *script) mechanism() *p11.Mechanism {
	list := []p11.MechanismType{p11.CKM_AES_CBC, p11.CKM_RSA_PKCS_PSS, p11.CKM_RSA_PKCS_OAEP, p11.CKM_ECDH1_DERIVE, p11.CKM_SHA256_HMAC_GENERAL, p11.CKM_TLS_KDF, p11.CKM_SHA256}
	b := int(s.u8())
	m := &p11.Mechanism{Type: list[b%len(list)]}
	switch b / len(list) % 4 {
	case 0:
		m.Param = p11.RawParam(s.bytes(int(s.u8() % 64)))
	case 1:
		return nil
	default:
		m.Param = p11.SampleParam(m.Type)
	}
	return m
}

// write does what a library may do with its memory: in each place it leaves what is there, or
// puts numbers or bytes. past says that it went on behind one.
func (s *script) write(m *memory) (past bool) {
	from := 0
	for _, guarded := range m.guards {
		place := m.b[from:guarded]
		from = guarded + len(guard)
		switch how := s.u8(); how % 4 {
		case 0:
		case 1:
			const align = 16 // of what stands in front of the place
			for at := (align - (guarded-len(place))%align) % align; at+wordSize <= len(place); at += wordSize {
				binary.NativeEndian.PutUint64(place[at:], s.number())
			}
		case 2:
			copy(place, s.bytes(len(place)))
		case 3:
			if how == 3 {
				m.b[guarded+int(s.u8())%len(guard)]++
				past = true
			}
		}
	}
	return past
}

// FuzzAnswer has programs call anything, and the library answer anything: what a program gets
// is never more than it has room for, nor more than there is, and a write past a place is
// found.
func FuzzAnswer(f *testing.F) {
	r := rand.New(rand.NewPCG(7, 8))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	for _, abi := range []card.ABI{card.EP11, card.CCA} {
		for _, fn := range card.Functions(abi) {
			f.Add(byte(abi), fn.Number, noise(100), noise(100), uint64(0))
			f.Add(byte(abi), fn.Number, make([]byte, 100), noise(300), uint64(p11.CKR_BUFFER_TOO_SMALL))
		}
	}
	f.Fuzz(func(t *testing.T, which byte, number uint32, program, library []byte, rv uint64) {
		abi := card.ABI(which)
		fn := card.FunctionOf(abi, number)
		if fn == nil {
			return
		}
		c := (*script)(&program).call(fn)
		frame, err := newFrame(c, &layouts[abi][number])
		if err != nil {
			if returned(c, err) == 0 {
				t.Errorf("%v is good", err)
			}
			return
		}
		past := false
		err = frame.use(func(uint64) { past = (*script)(&library).write(&frame.memory) })
		if past != errors.Is(err, errOverrun) {
			t.Fatalf("past a place: %v, %v", past, err)
		}
		if err == nil && frame.take(rv) == nil {
			checkOutputs(t, c)
		}
	})
}

// checkOutputs looks at what a program gets.
func checkOutputs(t *testing.T, c *card.Call) {
	for i, kind := range c.Function.Args {
		a := &c.Args[i]
		switch kind {
		case card.Output, card.InOut, card.Numbers:
			if got := uint64(len(a.Out) + len(a.Numbers)); got > a.Room || got > 0 && (a.Query || got != a.Length) {
				t.Errorf("%s: value %d: %d there, said to be %d, with room for %d", c.Function.Name, i, got, a.Length, a.Room)
			}
		case card.Wanted:
			for _, x := range a.Attributes {
				fits := false
				for _, w := range a.Want {
					fits = fits || w.Type == x.Type && (w.Query || uint64(len(x.Value)) <= w.Room)
				}
				if !fits {
					t.Errorf("%v: %d bytes do not fit", x.Type, len(x.Value))
				}
			}
		}
	}
}

// FuzzAdminAnswer has the library say anything of where the payload of an administrator's
// command is.
func FuzzAdminAnswer(f *testing.F) {
	f.Add([]byte("answer"), uint64(0), uint64(0), uint64(3), uint64(3))
	f.Add([]byte("answer"), uint64(0), uint64(0), uint64(6), uint64(1))
	f.Add([]byte("answer"), uint64(0), uint64(0), ^uint64(0), uint64(2))
	f.Add([]byte{}, uint64(1), uint64(0), uint64(0), uint64(0))
	f.Add([]byte{}, uint64(0), uint64(0x80010004), uint64(0), uint64(0))
	f.Fuzz(func(t *testing.T, answer []byte, failed, rv, from, n uint64) {
		r := unblocked{failed: failed, rv: rv, from: from, n: n}
		got, payload, err := r.payload(answer)
		switch {
		case err != nil:
		case got != p11.CKR_OK && payload != nil:
			t.Errorf("%v with a payload", got)
		case got == p11.CKR_OK && rv != 0:
			t.Errorf("%#x is good", rv)
		case got == p11.CKR_OK && uint64(len(payload)) != n:
			t.Errorf("%d bytes, not %d", len(payload), n)
		}
	})
}
