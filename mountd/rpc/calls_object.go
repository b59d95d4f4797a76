package rpc

import (
	"slices"

	"p11fs/engine"
	"p11fs/mountd/rpc/wire"
	"p11fs/p11"
)

// getAttributeValue answers every attribute on its own (PKCS#11 v3.1 §5.7.5):
// the reply carries those that fit, and at its end the CK_RV of the call.
func (q *request) getAttributeValue() error {
	wanted := q.wanted
	// What is asked for twice is fetched once.
	types := make([]p11.AttributeType, 0, len(wanted))
	of := make([]int, len(wanted)) // which result answers each
	for i, a := range wanted {
		if of[i] = slices.Index(types, a.Type); of[i] < 0 {
			of[i] = len(types)
			types = append(types, a.Type)
		}
		// A client that sends no nested list cannot read one, and would take
		// the whole reply for a fault of the device.
		if wire.IsTemplate(a.Type) && !a.HasNested && (q.conn.protocol == wire.V0 || q.conn.protocol == wire.V1) {
			return p11.Errorf(p11.CKR_ATTRIBUTE_TYPE_INVALID, "%v cannot be read by this client", a.Type)
		}
	}
	if err := q.takeAttributes(); err != nil {
		return err
	}
	results, err := q.session.GetAttributeValue(q.ctx, q.object(0), types...)
	if err != nil {
		return err
	}
	defer func() {
		for _, a := range results {
			clear(a.Value)
		}
	}()
	rv, size := p11.CKR_OK, 0
	reply := make([]wire.Attribute, len(wanted))
	for i := range wanted {
		res := results[of[i]]
		if size += min(len(res.Value), int(wanted[i].Room)); size > wire.MaxBody {
			return p11.Errorf(p11.CKR_DEVICE_MEMORY, "values of more than %d bytes in one reply", wire.MaxBody)
		}
		a, one, err := attributeReply(res, wanted[i])
		if err != nil {
			return err
		}
		reply[i] = a
		if rv == p11.CKR_OK {
			rv = one
		}
	}
	q.w.B = slices.Grow(q.w.B, size)
	q.w.Attributes(reply)
	q.w.Ulong(uint64(rv))
	return nil
}

// takeAttributes counts what the values of an object and a reply with them take.
func (q *request) takeAttributes() error {
	object, err := q.session.ObjectSize(q.ctx, q.object(0))
	if err != nil {
		return err
	}
	n := int(object)
	for _, a := range q.wanted {
		n += min(int(a.Room), int(object))
	}
	return q.take(n)
}

// attributeReply is the reply for one attribute, and its share of the CK_RV.
func attributeReply(res engine.AttributeResult, wanted wire.Wanted) (wire.Attribute, p11.RV, error) {
	none := wire.Attribute{Type: res.Type}
	switch rv := p11.RVOf(res.Err); rv {
	case p11.CKR_OK:
	case p11.CKR_ATTRIBUTE_SENSITIVE, p11.CKR_ATTRIBUTE_TYPE_INVALID:
		return none, rv, nil
	default:
		return none, rv, res.Err
	}
	a, err := wire.Wire(res.Type, res.Value)
	if err != nil {
		return none, p11.CKR_OK, err
	}
	switch {
	case wanted.Room == 0:
		return a.Placeholder(), p11.CKR_OK, nil
	case wanted.Room < a.Length:
		return none, p11.CKR_BUFFER_TOO_SMALL, nil
	}
	if !wire.IsTemplate(res.Type) {
		return a, p11.CKR_OK, nil
	}
	// A template is an array whose elements have rooms of their own.
	if len(wanted.Nested) < len(a.Nested) {
		return none, p11.CKR_BUFFER_TOO_SMALL, nil
	}
	rv := p11.CKR_OK
	for i, inner := range a.Nested {
		switch room := wanted.Nested[i].Room; {
		case room == 0:
			a.Nested[i] = inner.Placeholder()
		case room < inner.Length:
			a.Nested[i] = wire.Attribute{Type: inner.Type}
			rv = p11.CKR_BUFFER_TOO_SMALL
		}
	}
	return a, rv, nil
}

// maxFound bounds what one C_FindObjects returns, whatever room is claimed.
const maxFound = 1 << 16

func (q *request) findObjects() error {
	handles, err := q.session.FindObjects(q.ctx, min(int(q.room), maxFound))
	if err != nil {
		return err
	}
	wire.Ulongs(q.w, handles)
	return nil
}
