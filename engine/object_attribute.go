package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
)

// AttributeResult is one attribute asked for, or why it is not given:
// CKR_ATTRIBUTE_SENSITIVE or CKR_ATTRIBUTE_TYPE_INVALID.
type AttributeResult struct {
	Type  p11.AttributeType
	Value []byte // the caller's
	Err   error
}

// GetAttributeValue is C_GetAttributeValue (PKCS#11 v3.1 §5.7.5). There is one
// result for each type, in their order; the error is of the call as a whole and
// none of theirs.
func (s *Session) GetAttributeValue(ctx context.Context, h p11.ObjectHandle, types ...p11.AttributeType) ([]AttributeResult, error) {
	e, err := s.open(ctx, h)
	if err != nil {
		return nil, err
	}
	defer e.release()
	results := make([]AttributeResult, len(types))
	for i, t := range types {
		results[i] = e.attribute(t)
		if t == p11.CKA_VALUE && h == counter.handle() {
			n, err := s.appSlot.slot.Count(ctx)
			if err != nil {
				return nil, err
			}
			results[i] = AttributeResult{Type: t, Value: binary.BigEndian.AppendUint64(nil, n)}
		}
	}
	if s.sees(e) != nil {
		return nil, noObject(h)
	}
	return results, nil
}

func (e *entry) attribute(t p11.AttributeType) AttributeResult {
	r := AttributeResult{Type: t}
	visibility := e.visibility(t)
	if visibility == tokens.Withheld {
		r.Err = p11.Errorf(p11.CKR_ATTRIBUTE_SENSITIVE, "%s: the key is sensitive or not extractable", t.Short())
		return r
	}
	v, ok := e.attrs.Get(t)
	ok = ok && visibility == tokens.Readable
	if t == p11.CKA_UNIQUE_ID && len(v) == 0 {
		v = e.uniqueID()
		ok = len(v) > 0
	}
	if class, _ := e.attrs.Class(); !ok && t == p11.CKA_ALLOWED_MECHANISMS && isKey(class) {
		r.Value = []byte{} // all are allowed
		return r
	}
	if !ok {
		r.Err = p11.Errorf(p11.CKR_ATTRIBUTE_TYPE_INVALID, "%s: the object has no such attribute", t.Short())
		return r
	}
	r.Value = bytes.Clone(v)
	return r
}

// SetAttributeValue is C_SetAttributeValue (PKCS#11 v3.1 §5.7.6): all of the
// template or nothing.
func (s *Session) SetAttributeValue(ctx context.Context, h p11.ObjectHandle, template p11.Attributes) error {
	return s.update(ctx, h, template, func(p11.Attributes) (p11.Attributes, error) { return template, nil })
}

// AppendValue puts data behind the newest CKA_VALUE of an object, which becomes at most
// most bytes long. Nothing that another puts there at the same time is lost.
func (s *Session) AppendValue(ctx context.Context, h p11.ObjectHandle, data []byte, most int) error {
	var whole []byte // of the last try, of which the object gets a copy
	defer func() { secret.Wipe(whole) }()
	return s.update(ctx, h, p11.Attributes{{Type: p11.CKA_VALUE}}, func(attrs p11.Attributes) (p11.Attributes, error) {
		v, _ := attrs.Get(p11.CKA_VALUE)
		if len(v)+len(data) > most {
			return nil, p11.Errorf(p11.CKR_DATA_LEN_RANGE, "there are %d bytes, and %d more are more than %d", len(v), len(data), most)
		}
		secret.Wipe(whole)
		whole = slices.Concat(v, data)
		return p11.Attributes{{Type: p11.CKA_VALUE, Value: whole}}, nil
	})
}

// DateObject gives an object a time other than that of its last change, where the token
// keeps one. Session objects have none.
func (s *Session) DateObject(ctx context.Context, h p11.ObjectHandle, at time.Time) error {
	o, err := s.mine(ctx, h, nil)
	if err != nil {
		return err
	}
	if d, ok := s.appSlot.slot.token.(tokens.Dater); ok && o.Name != "" {
		err = d.Date(ctx, o.Handle, at)
	}
	return masked(h, err)
}

// A changeFunc is what tokens.Objects's Update is called with.
type changeFunc = func(p11.Attributes) (p11.Attributes, error)

// update changes an object to what make gives of its newest attributes. template has
// the types of those that change.
func (s *Session) update(ctx context.Context, h p11.ObjectHandle, template p11.Attributes, make changeFunc) error {
	for {
		o, err := s.mine(ctx, h, template)
		if err != nil {
			return err
		}
		if err = masked(h, s.updateVersion(ctx, o, s.changing(make))); !errors.Is(err, errMeanwhile) {
			return err
		}
	}
}

// errMeanwhile says that an object became another one while the token was asked.
var errMeanwhile = errors.New("the object was changed meanwhile")

// updateVersion changes an object, or fails with errMeanwhile: what a token says of the change,
// which it is asked while nothing is locked, is of one version of the object.
func (s *Session) updateVersion(ctx context.Context, o *tokens.Object, change changeFunc) error {
	if _, ok := s.appSlot.slot.token.(tokens.Changer); ok {
		was, err := o.Acquire()
		if err != nil {
			return errMeanwhile
		}
		defer o.Release()
		now, err := change(was)
		if err != nil {
			return err
		}
		told, err := s.tell(ctx, was, now)
		now.Wipe()
		if err != nil {
			return err
		}
		if told != nil {
			defer told.Wipe()
			change = func(attrs p11.Attributes) (p11.Attributes, error) {
				if len(attrs) != len(was) || !attrs.Match(was) {
					return nil, errMeanwhile
				}
				return told.Clone(), nil
			}
		}
	}
	if o.Name == "" {
		return s.appSlot.objects.update(o.Handle, change)
	}
	_, err := s.appSlot.slot.token.Update(ctx, o.Handle, change)
	return err
}

// tell asks a token that keeps what a key may do in a form of its own. It returns nil where
// that stays as it is.
func (s *Session) tell(ctx context.Context, was, now p11.Attributes) (p11.Attributes, error) {
	c, ok := s.appSlot.slot.token.(tokens.Changer)
	if class, _ := was.Class(); !ok || !isKey(class) {
		return nil, nil
	}
	told, err := c.Change(s.long(ctx), was, now)
	return told, interruptedBy(ctx, err)
}

// changing is a change to what make gives of the newest attributes, by the rules.
func (s *Session) changing(make changeFunc) changeFunc {
	so, anybody := s.isSO(), s.appSlot.current() == nil
	rules := s.appSlot.app.engine.rules
	return func(attrs p11.Attributes) (p11.Attributes, error) {
		if err := mayModify(attrs); err != nil {
			return nil, err
		}
		template, err := make(attrs)
		if err != nil {
			return nil, err
		}
		changed, err := rules.change(attrs, template, false, so)
		if err == nil && anybody {
			if err = s.mayGrow(attrs, changed); err != nil {
				changed.Wipe()
			}
		}
		return changed, err
	}
}
