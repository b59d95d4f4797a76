package icsfserver

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"p11fs/p11"
	"p11fs/tokens/icsf/icsfwire"
)

// A token has objects.
type token struct {
	name     string
	record   []byte // of icsfwire.TokenRecordSize
	readOnly bool
	sequence uint32
	objects  map[icsfwire.Handle]*object
}

// An object is one of a token, or of a connection.
type object struct {
	handle icsfwire.Handle
	attrs  p11.Attributes
	owner  *conn // nil of the token's
}

func newToken(name, manufacturer, model, serial string, protected bool) *token {
	flags := []byte{0, 0, 0, 0}
	if protected {
		flags[0] = 0x80
	}
	record := fmt.Sprintf("%-32s%-32s%-16s%-16s2026010112000000%s", name, manufacturer, model, serial, flags)
	return &token{name: name, record: []byte(record), readOnly: protected, objects: make(map[icsfwire.Handle]*object)}
}

func (t *token) sorted() []*object {
	var list []*object
	for _, o := range t.objects {
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b *object) int { return cmp.Compare(a.handle, b.handle) })
	return list
}

func (c *conn) token(h icsfwire.Handle) (*token, error) {
	t := c.s.tokens[h.Token()]
	if t == nil {
		return nil, refused(noToken)
	}
	return t, nil
}

func (c *conn) object(h icsfwire.Handle) (*object, error) {
	if t := c.s.tokens[h.Token()]; t != nil {
		if o := t.objects[h]; o != nil {
			return o, nil
		}
	}
	return nil, refused(noObject)
}

// key is an object that has a use.
func (c *conn) key(h icsfwire.Handle, use p11.AttributeType) (*object, error) {
	o, err := c.object(h)
	if err == nil && o.attrs.Has(use) && !o.attrs.Bool(use) {
		err = refused(notPermitted)
	}
	return o, err
}

// add gives attributes, of which those that are missing get their defaults, a handle.
func (c *conn) add(h icsfwire.Handle, attrs p11.Attributes, made bool) (icsfwire.Handle, error) {
	t, err := c.token(h)
	if err != nil {
		return "", err
	}
	o := &object{attrs: attrs}
	o.defaults(made)
	stored := o.attrs.Bool(p11.CKA_TOKEN)
	if stored && t.readOnly {
		return "", refused(writeProtected)
	}
	if !stored {
		o.owner = c
	}
	if err := o.check(); err != nil {
		return "", err
	}
	t.sequence++
	o.handle = icsfwire.ObjectHandle(t.name, t.sequence, !stored)
	t.objects[o.handle] = o
	return o.handle, nil
}

func (o *object) defaults(made bool) {
	truth := func(t p11.AttributeType, b bool) {
		if !o.attrs.Has(t) {
			o.attrs.SetBool(t, b)
		}
	}
	truth(p11.CKA_TOKEN, false)
	truth(p11.CKA_PRIVATE, true)
	truth(p11.CKA_MODIFIABLE, true)
	if !o.attrs.Has(p11.CKA_LABEL) {
		o.attrs.Set(p11.CKA_LABEL, nil)
	}
	class, _ := o.attrs.Class()
	if class != p11.CKO_PRIVATE_KEY && class != p11.CKO_SECRET_KEY && class != p11.CKO_PUBLIC_KEY {
		return
	}
	truth(p11.CKA_LOCAL, made)
	if value, ok := o.attrs.Get(p11.CKA_VALUE); ok && class == p11.CKO_SECRET_KEY {
		o.attrs.SetUlong(p11.CKA_VALUE_LEN, uint64(len(value)))
	}
	if class == p11.CKO_PUBLIC_KEY {
		return
	}
	truth(p11.CKA_SENSITIVE, false)
	truth(p11.CKA_EXTRACTABLE, true)
	truth(p11.CKA_ALWAYS_SENSITIVE, made && o.attrs.Bool(p11.CKA_SENSITIVE))
	truth(p11.CKA_NEVER_EXTRACTABLE, made && !o.attrs.Bool(p11.CKA_EXTRACTABLE))
}

// shown are the attributes that are told.
func (o *object) shown() p11.Attributes {
	class, _ := o.attrs.Class()
	secret := (class == p11.CKO_PRIVATE_KEY || class == p11.CKO_SECRET_KEY) && (o.attrs.Bool(p11.CKA_SENSITIVE) || !o.attrs.Bool(p11.CKA_EXTRACTABLE))
	var list p11.Attributes
	for _, a := range o.attrs {
		if !secret || !p11.SecretValue(a.Type) {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, func(a, b p11.Attribute) int { return cmp.Compare(a.Type, b.Type) })
	return list
}

// do answers a request. The server's mutex is held.
func (c *conn) do(r *icsfwire.Request) (icsfwire.Handle, icsfwire.Data, error) {
	h := r.Handle
	switch d := r.Data.(type) {
	case *icsfwire.ListTokens:
		return h, c.listTokens(h, d), nil
	case *icsfwire.ListObjects:
		list, err := c.listObjects(h, d)
		return h, list, err
	case *icsfwire.CreateToken:
		return h, nil, c.createToken(h, d)
	case *icsfwire.CreateObject:
		made, err := c.create(r, d)
		return made, nil, err
	case *icsfwire.Destroy:
		return h, nil, c.destroy(r)
	case *icsfwire.GetAttributes:
		o, err := c.object(h)
		if err != nil {
			return h, nil, err
		}
		list := o.shown()
		return h, &icsfwire.AttributeList{Attributes: list, Size: sizeOf(list)}, nil
	case *icsfwire.SetAttributes:
		return h, nil, c.set(h, d)
	case *icsfwire.GenerateKey:
		made, err := c.generateKey(r, d)
		return made, nil, err
	case *icsfwire.GeneratePair:
		return c.generatePair(h, d)
	case *icsfwire.Unwrap:
		made, err := c.unwrap(r, d)
		return made, nil, err
	case *icsfwire.Agree:
		made, err := c.agree(h, d)
		return made, &icsfwire.Derived{Other: []byte{}}, err
	case *icsfwire.Master:
		return c.master(h, d)
	}
	data, err := c.use(r)
	return h, data, err
}

func sizeOf(list p11.Attributes) (n int) {
	for _, a := range list {
		n += 12 + len(a.Value)
	}
	return n
}

func (c *conn) listTokens(after icsfwire.Handle, d *icsfwire.ListTokens) *icsfwire.TokenList {
	var names []string
	for name := range c.s.tokens {
		if name > after.Token() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	list := &icsfwire.TokenList{}
	for _, name := range names[:min(len(names), max(0, min(d.Max, d.Room/icsfwire.TokenRecordSize)))] {
		list.Records = append(list.Records, c.s.tokens[name].record...)
	}
	list.Length = len(list.Records)
	return list
}

func (c *conn) listObjects(after icsfwire.Handle, d *icsfwire.ListObjects) (*icsfwire.ObjectList, error) {
	t, err := c.token(after)
	if err != nil {
		return &icsfwire.ObjectList{}, err
	}
	list, left := &icsfwire.ObjectList{}, min(d.Max, d.Room/icsfwire.HandleSize)
	for _, o := range t.sorted() {
		switch {
		case left <= 0 || after.IsObject() && o.handle <= after || o.owner != nil && o.owner != c || !o.attrs.Match(d.Template):
			continue
		}
		list.Handles = append(list.Handles, o.handle.Print()...)
		left--
	}
	list.Length = len(list.Handles)
	return list, nil
}

// recordSize is what CreateToken says of a token, and zeros.
const recordSize = 68

func (c *conn) createToken(h icsfwire.Handle, d *icsfwire.CreateToken) error {
	name := h.Token()
	if len(d.Record) != recordSize || name == "" || h.IsObject() || c.s.tokens[name] != nil {
		return refused(badValue)
	}
	field := func(from, to int) string { return strings.TrimRight(string(d.Record[from:to]), " \x00") }
	c.s.tokens[name] = newToken(name, field(0, 32), field(32, 48), field(48, 64), false)
	return nil
}

func (c *conn) create(r *icsfwire.Request, d *icsfwire.CreateObject) (icsfwire.Handle, error) {
	if !slices.Contains(r.Rules, "COPY") {
		if _, ok := d.Attributes.Class(); !ok {
			return "", refused(incomplete)
		}
		return c.add(r.Handle, d.Attributes, false)
	}
	o, err := c.object(r.Handle)
	if err != nil {
		return "", err
	}
	return c.add(r.Handle, o.attrs.Merge(d.Attributes), false)
}

func (c *conn) destroy(r *icsfwire.Request) error {
	t, err := c.token(r.Handle)
	if err != nil {
		return err
	}
	if slices.Contains(r.Rules, "TOKEN") {
		delete(c.s.tokens, t.name)
		return nil
	}
	o, err := c.object(r.Handle)
	if err == nil && o.owner == nil && t.readOnly {
		err = refused(writeProtected)
	}
	if err == nil {
		delete(t.objects, o.handle)
	}
	return err
}

func (c *conn) set(h icsfwire.Handle, d *icsfwire.SetAttributes) error {
	o, err := c.object(h)
	if err != nil {
		return err
	}
	if t, _ := c.token(h); t.readOnly && o.owner == nil {
		return refused(writeProtected)
	}
	for _, a := range d.Attributes {
		old, there := o.attrs.Get(a.Type)
		secret := bytes.Equal(old, a.Value)
		switch a.Type {
		case p11.CKA_CLASS, p11.CKA_KEY_TYPE, p11.CKA_TOKEN, p11.CKA_PRIVATE, p11.CKA_MODULUS, p11.CKA_LOCAL:
			return refused(readOnly)
		case p11.CKA_VALUE:
			if class, _ := o.attrs.Class(); class == p11.CKO_SECRET_KEY || class == p11.CKO_PRIVATE_KEY {
				return refused(readOnly)
			}
		case p11.CKA_SENSITIVE:
			if there && !secret && o.attrs.Bool(p11.CKA_SENSITIVE) {
				return refused(readOnly)
			}
		case p11.CKA_EXTRACTABLE:
			if there && !secret && !o.attrs.Bool(p11.CKA_EXTRACTABLE) {
				return refused(readOnly)
			}
		}
	}
	o.attrs = o.attrs.Merge(d.Attributes)
	return nil
}
