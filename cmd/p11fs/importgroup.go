package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"p11fs/foreign"
	"p11fs/p11"
	"p11fs/p11/pkix"
)

// A group is what comes together: a key pair, or one object.
type group struct {
	objects []foreign.Object
	attrs   []p11.Attributes // their templates, which share the objects' memory
}

// groupObjects sorts out what can come. What cannot is reported.
func groupObjects(objects []foreign.Object, report *importReport) (groups []group) {
	var private, public, others []part
	for _, o := range objects {
		class, known := o.Attrs.Class()
		switch {
		case known && foreign.Types(class) == nil:
			report.Others++
			continue
		case o.Err == nil:
			o.Err = lacking(o.Attrs, class)
		}
		if o.Err != nil {
			report.add(o, outcomeLeft, "", o.Err)
			continue
		}
		p := part{object: o, attrs: foreign.Portable(o.Attrs)}
		if report.private && openKey(o.Attrs) {
			p.attrs.SetBool(p11.CKA_PRIVATE, true)
		}
		switch class {
		case p11.CKO_PRIVATE_KEY:
			private = append(private, p)
		case p11.CKO_PUBLIC_KEY:
			public = append(public, p)
		default:
			others = append(others, p)
		}
	}
	byKey := make(map[string][]int) // public keys
	byID := make(map[string][]int)
	for n, p := range public {
		if key := p.key(); key != "" {
			byKey[key] = append(byKey[key], n)
		}
		if id := p.named(); id != "" {
			byID[id] = append(byID[id], n)
		}
	}
	taken := make([]bool, len(public))
	for _, p := range private {
		key := p.key()
		if key == "" { // a curve that only the daemon's library may have
			for _, n := range byID[p.named()] {
				if point, ok := public[n].attrs.Get(p11.CKA_EC_POINT); ok {
					p.attrs.Set(p11.CKA_EC_POINT, point)
				}
			}
			key = p.key()
		}
		g := group{objects: []foreign.Object{p.object}, attrs: []p11.Attributes{p.attrs}}
		if n := slices.IndexFunc(byKey[key], func(n int) bool { return !taken[n] }); n >= 0 && key != "" {
			n = byKey[key][n]
			taken[n] = true
			g.objects, g.attrs = append(g.objects, public[n].object), append(g.attrs, public[n].attrs)
		}
		groups = append(groups, g)
	}
	for n, p := range public {
		if !taken[n] {
			others = append(others, p)
		}
	}
	for _, p := range others {
		groups = append(groups, group{objects: []foreign.Object{p.object}, attrs: []p11.Attributes{p.attrs}})
	}
	return slices.DeleteFunc(groups, func(g group) bool {
		if g.size() <= pkix.MaxSize {
			return false
		}
		for _, o := range g.objects {
			report.add(o, outcomeLeft, "", fmt.Errorf("as a template it has more than %d bytes: no file of a token takes it", pkix.MaxSize))
		}
		return true
	})
}

// lacking returns why an object without a value does not come.
func lacking(a p11.Attributes, class p11.ObjectClass) error {
	value, _ := a.Get(p11.CKA_VALUE)
	switch {
	case class == p11.CKO_CERTIFICATE && len(value) == 0:
		return errors.New("only the URL of the certificate is here: fetch it, and import the file")
	case class == p11.CKO_SECRET_KEY && len(value) == 0:
		return errors.New("it has no value: the token that it is of must show it or wrap it")
	}
	return nil
}

// A part is an object that may come.
type part struct {
	object foreign.Object
	attrs  p11.Attributes
}

// key is what both keys of a pair have in common, or empty.
func (p part) key() string {
	whole := p.attrs.Clone()
	defer whole.Wipe()
	if pkix.Complete(&whole) != nil {
		return "" // which the daemon refuses, or its library has
	}
	info, _ := whole.Get(p11.CKA_PUBLIC_KEY_INFO)
	return string(info)
}

// named is the type and CKA_ID of a key, or empty.
func (p part) named() string {
	id, _ := p.attrs.Get(p11.CKA_ID)
	if len(id) == 0 {
		return ""
	}
	kt, _ := p.attrs.KeyType()
	return kt.Short() + string(id)
}

// size is at least the length of templates' result.
func (g group) size() (n int) {
	for _, a := range g.attrs {
		n += len(a.Text()) + 1
		for _, x := range a {
			if a.Secret(x.Type) {
				n += len(x.Type.Short()) + len(" =0x") + 2*len(x.Value)
			}
		}
	}
	return n
}

// templates is the group as a file for import:template, in one slice. The caller wipes it.
func (g group) templates() []byte {
	b := bytes.NewBuffer(make([]byte, 0, g.size()))
	for _, a := range g.attrs {
		b.WriteString(a.Text())
		for _, x := range a {
			if a.Secret(x.Type) && len(x.Value) == 0 {
				b.WriteString(" " + x.Type.Short() + `=""`)
			} else if a.Secret(x.Type) {
				b.WriteString(" " + x.Type.Short() + "=0x")
				b.Write(hex.AppendEncode(b.AvailableBuffer(), x.Value))
			}
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}
