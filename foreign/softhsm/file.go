package softhsm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"p11fs/p11"
)

// The kinds of values.
const (
	kindBool = 1 + iota
	kindNumber
	kindBytes
	kindTemplate
	kindMechanisms
)

// errCut is the error of an object that ends within a value.
var errCut = errors.New("it is cut off")

// A reader takes numbers and bytes off the front of a file or blob.
type reader struct {
	rest  []byte
	order binary.ByteOrder
	blob  bool // of a database
}

func (r *reader) take(n uint64) ([]byte, error) {
	if n > uint64(len(r.rest)) {
		return nil, errCut
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b, nil
}

func (r *reader) number() (uint64, error) {
	b, err := r.take(8)
	if err != nil {
		return 0, err
	}
	return r.order.Uint64(b), nil
}

// sized is bytes with their length in front.
func (r *reader) sized() ([]byte, error) {
	n, err := r.number()
	if err != nil {
		return nil, err
	}
	return r.take(n)
}

func (r *reader) kind() (uint64, error) {
	if !r.blob {
		return r.number()
	}
	b, err := r.take(4)
	if err != nil {
		return 0, err
	}
	return uint64(r.order.Uint32(b)), nil
}

// A stored is an object as it is in its store.
type stored struct {
	attrs p11.Attributes
	bytes map[p11.AttributeType]bool // those that are encrypted in a private object
}

func (s *stored) add(t p11.AttributeType, value []byte) error {
	switch {
	case s.attrs.Has(t):
		return fmt.Errorf("it has %s twice", t.Short())
	case len(s.attrs) == p11.MaxAttributes:
		return fmt.Errorf("it has more than %d attributes", p11.MaxAttributes)
	}
	s.attrs = append(s.attrs, p11.Attribute{Type: t, Value: value})
	return nil
}

// parseObject reads a file of the file back end.
func parseObject(file []byte) (s stored, err error) {
	r := &reader{rest: file, order: binary.BigEndian}
	if _, err := r.number(); err != nil { // the generation
		return s, err
	}
	return r.attributes(0)
}

// attributes reads attributes to the end.
func (r *reader) attributes(depth int) (s stored, err error) {
	s.bytes = make(map[p11.AttributeType]bool)
	defer func() {
		if err != nil {
			s.attrs.Wipe()
			s = stored{}
		}
	}()
	for len(r.rest) > 0 {
		t, err := r.number()
		if err != nil {
			return s, err
		}
		kind, err := r.kind()
		if err != nil {
			return s, err
		}
		value, err := r.value(kind, depth)
		if err != nil {
			return s, err
		}
		if err := s.add(p11.AttributeType(t), value); err != nil {
			return s, err
		}
		s.bytes[p11.AttributeType(t)] = kind == kindBytes
	}
	return s, nil
}

// value reads a value, and returns it as an attribute has it.
func (r *reader) value(kind uint64, depth int) ([]byte, error) {
	switch kind {
	case kindBool:
		b, err := r.take(1)
		if err != nil {
			return nil, err
		}
		return p11.Bool(b[0] != 0), nil
	case kindNumber:
		n, err := r.number()
		return p11.Ulong(n), err
	case kindBytes:
		b, err := r.sized()
		return append([]byte{}, b...), err
	case kindTemplate:
		b, err := r.sized()
		if err != nil {
			return nil, err
		}
		return template(b, r.order, r.blob, depth)
	case kindMechanisms:
		n, err := r.number()
		if err != nil || n > uint64(len(r.rest)) {
			return nil, errCut
		}
		if !r.blob {
			n *= 8
		}
		b, err := r.take(n)
		if err != nil {
			return nil, err
		}
		return mechanisms(b, r.order)
	}
	return nil, fmt.Errorf("it has a value of kind %d, which is not known", kind)
}

// template reads an attribute that is a template.
func template(b []byte, order binary.ByteOrder, blob bool, depth int) ([]byte, error) {
	if depth > 0 {
		return nil, errors.New("it has a template in a template")
	}
	inner, err := (&reader{rest: b, order: order, blob: blob}).attributes(depth + 1)
	if err != nil {
		return nil, err
	}
	return p11.EncodeTemplate(inner.attrs), nil
}

// mechanisms reads a list of mechanisms.
func mechanisms(b []byte, order binary.ByteOrder) ([]byte, error) {
	if len(b)%8 != 0 {
		return nil, errCut
	}
	list := []byte{}
	for ; len(b) > 0; b = b[8:] {
		list = append(list, p11.Ulong(order.Uint64(b))...)
	}
	return list, nil
}
