package engine

import (
	"context"
	"strconv"

	"p11fs/p11"
	"p11fs/tokens"
)

// Beside what is stored, a token has objects that tell of itself (PKCS#11 v3.2 §4.3,
// §4.14, §4.15): its clock and counter, its mechanisms, and the profile that it keeps to. They are
// made when they are looked at. Programs that list everything know nothing of them, so
// they are found by who names their class.

// A builtin is one of them.
type builtin struct {
	class p11.ObjectClass
	own   p11.AttributeType // which tells those of a class apart
	value uint64            // of that
}

// builtinHandles is where their handles begin: tokens.NewHandle gives smaller ones.
const builtinHandles p11.ObjectHandle = 1 << 48

var counter = builtin{p11.CKO_HW_FEATURE, p11.CKA_HW_FEATURE_TYPE, uint64(p11.CKH_MONOTONIC_COUNTER)} //nolint:gochecknoglobals // never written

func (b builtin) handle() p11.ObjectHandle {
	return builtinHandles | p11.ObjectHandle(b.class)<<32 | p11.ObjectHandle(b.value)
}

// builtins are those of the slot's token.
func (s *Slot) builtins() []builtin {
	list := []builtin{
		{p11.CKO_HW_FEATURE, p11.CKA_HW_FEATURE_TYPE, uint64(p11.CKH_CLOCK)},
		{p11.CKO_PROFILE, p11.CKA_PROFILE_ID, uint64(p11.CKP_BASELINE_PROVIDER)},
	}
	if s.Counts() {
		list = append(list, counter)
	}
	for _, m := range s.Mechanisms() {
		list = append(list, builtin{p11.CKO_MECHANISM, p11.CKA_MECHANISM_TYPE, uint64(m.Type)})
	}
	return list
}

// object makes the object as it is now.
func (b builtin) object(s *Slot) *tokens.Object {
	name := b.class.Short() + "-" + strconv.FormatUint(b.value, 16)
	attrs := p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(b.class)},
		{Type: b.own, Value: p11.Ulong(b.value)},
		{Type: p11.CKA_TOKEN, Value: p11.Bool(true)},
		{Type: p11.CKA_PRIVATE, Value: p11.Bool(false)},
		{Type: p11.CKA_MODIFIABLE, Value: p11.Bool(false)},
		{Type: p11.CKA_COPYABLE, Value: p11.Bool(false)},
		{Type: p11.CKA_DESTROYABLE, Value: p11.Bool(false)},
		{Type: p11.CKA_LABEL, Value: []byte(name)},
		{Type: p11.CKA_UNIQUE_ID, Value: []byte(name)},
	}
	switch {
	case b == counter: // has its value when that is read
		attrs.SetBool(p11.CKA_RESET_ON_INIT, false)
		attrs.SetBool(p11.CKA_HAS_RESET, false)
	case b.class == p11.CKO_HW_FEATURE:
		attrs.Set(p11.CKA_VALUE, []byte(s.engine.now().UTC().Format("20060102150405")+"00"))
	}
	return tokens.NewObject(b.handle(), name, attrs)
}

// builtin returns the object of that handle, nil if there is none.
func (s *Slot) builtin(h p11.ObjectHandle) *tokens.Object {
	if !isBuiltin(h) {
		return nil
	}
	for _, b := range s.builtins() {
		if b.handle() == h {
			return b.object(s)
		}
	}
	return nil
}

// Counts says whether the token has a monotonic counter.
func (s *Slot) Counts() bool {
	_, ok := s.token.(tokens.Counter)
	return ok
}

// Count is the next value of the token's monotonic counter (PKCS#11 v3.1 §4.3.3).
func (s *Slot) Count(ctx context.Context) (uint64, error) {
	c, ok := s.token.(tokens.Counter)
	if !ok {
		return 0, p11.Errorf(p11.CKR_FUNCTION_NOT_SUPPORTED, "the token has no counter")
	}
	return c.NextCount(ctx)
}

// Carded says whether cards have the token's keys.
func (s *Slot) Carded() bool {
	_, ok := s.token.(tokens.Carded)
	return ok
}

// Cards is a line for each domain of the token's cards (tokens.Carded).
func (s *Slot) Cards(ctx context.Context) ([]string, error) {
	c, ok := s.token.(tokens.Carded)
	if !ok {
		return nil, p11.Errorf(p11.CKR_FUNCTION_NOT_SUPPORTED, "no cards have the token's keys")
	}
	return c.Cards(ctx), ctx.Err()
}

func isBuiltin(h p11.ObjectHandle) bool { return h&builtinHandles != 0 }

// findBuiltins returns those that match, if the template asks for such objects.
func (s *Slot) findBuiltins(template p11.Attributes) (found []*tokens.Object) {
	class, asked := template.Class()
	for _, b := range s.builtins() {
		if !asked || class != b.class {
			continue
		}
		if v, ok := template.Get(b.own); ok && string(v) != string(p11.Ulong(b.value)) {
			continue
		}
		if o := b.object(s); matches(o, template) {
			found = append(found, o)
		}
	}
	return found
}

func matches(o *tokens.Object, template p11.Attributes) bool {
	attrs, err := o.Acquire()
	if err != nil {
		return false
	}
	defer o.Release()
	return attrs.Match(template)
}
