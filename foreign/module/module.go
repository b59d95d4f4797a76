package module

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"p11fs/foreign"
	"p11fs/p11"
	"p11fs/secret"
)

// A Module is a module that was loaded and initialised.
type Module struct{ c calls }

// Open loads the module in a file. Parameters, which most have none of, go to its
// C_Initialize. The module is the caller's to close.
func Open(path, parameters string) (*Module, error) {
	c, err := load(path)
	if err != nil {
		return nil, err
	}
	if err := c.initialize(parameters); err != nil {
		return nil, fmt.Errorf("%s cannot be initialised: %w", path, err)
	}
	return &Module{c}, nil
}

// Close finalises the module, and with it ends what a token is used by.
func (m *Module) Close() error { return m.c.finalize() }

// A Token is one of the module.
type Token struct {
	Slot          p11.SlotID
	Label, Serial string
	Login         bool // it has private objects, which a PIN opens
	Keypad        bool // that is typed there
	ReadOnly      bool
	c             calls
}

// Tokens are those that are initialised.
func (m *Module) Tokens() ([]Token, error) {
	slots, err := m.c.slots()
	if err != nil {
		return nil, fmt.Errorf("the module's slots: %w", err)
	}
	var list []Token
	for _, s := range slots {
		i, err := m.c.token(s)
		if err != nil || i.Flags&p11.CKF_TOKEN_INITIALIZED == 0 {
			continue // an empty slot, or one to be
		}
		list = append(list, Token{
			Slot: s, Label: i.Label, Serial: i.Serial, c: m.c,
			Login: i.Flags&p11.CKF_LOGIN_REQUIRED != 0, Keypad: i.Flags&p11.CKF_PROTECTED_AUTHENTICATION_PATH != 0, ReadOnly: i.Flags&p11.CKF_WRITE_PROTECTED != 0,
		})
	}
	return list, nil
}

// Objects reads all objects, with the user's PIN unless the token needs none. What is
// wrong with one of them is its Err; a wrong PIN is as the module says. progress is told
// how many of how many are read.
func (t Token) Objects(ctx context.Context, pin *secret.Bytes, progress func(done, total int)) (list []foreign.Object, err error) {
	s, err := t.c.open(t.Slot)
	if err != nil {
		return nil, fmt.Errorf("a session of the module: %w", err)
	}
	defer func() { _ = t.c.close(s) }() // which finalising does too
	if t.Login {
		if err := t.c.login(s, pin); err != nil && !errors.Is(err, p11.CKR_USER_ALREADY_LOGGED_IN) {
			return nil, fmt.Errorf("the login to the module's token: %w", err)
		}
	}
	handles, err := t.c.find(s, foreign.MaxObjects+1)
	if err != nil {
		return nil, fmt.Errorf("the module's objects: %w", err)
	}
	if len(handles) > foreign.MaxObjects {
		return nil, fmt.Errorf("the token has more than %d objects", foreign.MaxObjects)
	}
	w := &wrapper{c: t.c, slot: t.Slot, session: s}
	defer w.close()
	total := 0
	for i, h := range handles {
		if ctx.Err() != nil {
			foreign.WipeAll(list)
			return nil, ctx.Err()
		}
		o := t.object(s, h, w)
		for _, a := range o.Attrs {
			total += len(a.Value)
		}
		list = append(list, o)
		if total > foreign.MaxTotal {
			foreign.WipeAll(list)
			return nil, fmt.Errorf("the objects of the token have more than %d bytes", foreign.MaxTotal)
		}
		progress(i+1, len(handles))
	}
	return list, nil
}

// object reads one object.
func (t Token) object(s p11.SessionHandle, h p11.ObjectHandle, w *wrapper) foreign.Object {
	o := foreign.Object{Place: strconv.FormatUint(uint64(h), 10)}
	read := func(a p11.AttributeType) error {
		v, err := t.c.get(s, h, a, foreign.MaxObject)
		if err == nil {
			if v, err = fromNative(a, v); err == nil {
				o.Attrs.Set(a, v)
			}
		}
		return err
	}
	if err := read(p11.CKA_CLASS); err != nil {
		o.Err = fmt.Errorf("its class cannot be read: %w", err)
		return o
	}
	class, _ := o.Attrs.Class()
	hidden, shown := false, len(foreign.Values(class)) == 0 // values
	for _, a := range foreign.Types(class) {
		if a == p11.CKA_CLASS {
			continue
		}
		err := readable(a, read)
		v, _ := o.Attrs.Get(a)
		switch value := slices.Contains(foreign.Values(class), a); {
		case err == nil:
			shown = shown || value && len(v) > 0
		case value && errors.Is(err, p11.CKR_ATTRIBUTE_SENSITIVE):
			hidden = true
		case errors.Is(err, p11.CKR_ATTRIBUTE_TYPE_INVALID):
		case o.Err == nil:
			o.Err = fmt.Errorf("its %s cannot be read: %w", a.Short(), err)
		}
	}
	if o.Err == nil && (hidden || !shown) {
		o.Err = w.open(h, &o.Attrs)
	}
	if o.Err == nil {
		o.Err = o.Attrs.Validate()
	}
	return o
}

// readable is read, but for a template, which must have nothing in it: a module's are
// not read, and a key without its restrictions would be another.
func readable(a p11.AttributeType, read func(p11.AttributeType) error) error {
	if p11.KindOf(a) != p11.KindTemplate {
		return read(a)
	}
	err := read(a)
	if errors.Is(err, errTemplate) || errors.Is(err, p11.CKR_ATTRIBUTE_TYPE_INVALID) {
		return err
	}
	return nil // modules without templates answer anything
}

// errTemplate is the error of a template with something in it.
var errTemplate = errors.New("it restricts other keys by a template")

// fromNative returns a value as package p11 has it.
func fromNative(t p11.AttributeType, v []byte) ([]byte, error) {
	switch p11.KindOf(t) {
	case p11.KindBytes, p11.KindText, p11.KindBool, p11.KindBigInt, p11.KindDate, p11.KindCurve:
		return v, nil
	case p11.KindTemplate:
		if len(v) > 0 {
			return nil, errTemplate
		}
		return v, nil
	}
	if len(v)%8 != 0 {
		return nil, fmt.Errorf("%d bytes are no number", len(v))
	}
	list := []byte{}
	for ; len(v) > 0; v = v[8:] {
		list = append(list, p11.Ulong(binary.NativeEndian.Uint64(v))...)
	}
	return list, nil
}

// numbers are the n that a module says it has put into list, where there may be fewer.
func numbers[To, From ~uint64](list []From, n From) []To {
	var to []To
	for _, v := range list[:min(uint64(n), uint64(len(list)))] {
		to = append(to, To(v))
	}
	return to
}

// Name says which token it is.
func (t Token) Name() string {
	return fmt.Sprintf("%q (slot %d)", strings.TrimSpace(t.Label), t.Slot)
}
