package engine

import (
	"slices"

	"p11fs/p11"
)

// find tries C_FindObjectsInit, which knows no classes: a template asks about what objects
// may have.
func (b *attributeBench) find(set *ruleset, sample p11.Attributes) {
	ctx := b.t.Context()
	object, err := b.s.CreateObject(ctx, sample)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { want(b.t, b.s.DestroyObject(ctx, object), p11.CKR_OK) }()
	finds := func(name string, template p11.Attributes, found bool, rvs ...p11.RV) {
		b.t.Helper()
		b.tried++
		handles, err := b.s.Find(ctx, template)
		if !slices.Contains(rvs, p11.RVOf(err)) || slices.Contains(handles, object) != found {
			b.t.Errorf("finding: %s: %v (%v), found %v, want %v", name, p11.RVOf(err), err, handles, rvs)
		}
	}
	for _, a := range b.readable(object) {
		finds(a.Type.Short(), p11.Attributes{a}, true, p11.CKR_OK)
	}
	for _, one := range set.rules {
		t := one.attr
		for _, v := range b.badValues(t) {
			finds(t.Short()+" "+v.name, p11.Attributes{{Type: t, Value: v.value}}, false, v.rvs...)
		}
		finds(t.Short()+" twice", p11.Attributes{{Type: t, Value: plausible(t)}, {Type: t, Value: plausible(t)}}, false, p11.CKR_TEMPLATE_INCONSISTENT)
	}
	for _, t := range noSuch() {
		finds(t.Short()+" unknown", p11.Attributes{{Type: t, Value: plausible(t)}}, false, p11.CKR_OK)
	}
}

// sensitive reads and looks for the secrets of a key that keeps them.
func (b *attributeBench) sensitive(sample p11.Attributes) {
	ctx := b.t.Context()
	for _, closed := range []p11.AttributeType{p11.CKA_SENSITIVE, p11.CKA_EXTRACTABLE} {
		h, err := b.s.CreateObject(ctx, sample.With(closed, p11.Bool(closed == p11.CKA_SENSITIVE)))
		if err != nil {
			b.t.Fatal(err)
		}
		for _, a := range sample {
			rv := p11.RV(p11.CKR_OK)
			if p11.SecretValue(a.Type) {
				rv = p11.CKR_ATTRIBUTE_SENSITIVE
			}
			if r := get(b.t, b.s, h, a.Type); p11.RVOf(r.Err) != rv {
				b.t.Errorf("%s of a key whose %s is set so: %v, want %v", a.Type.Short(), closed.Short(), r.Err, rv)
			}
			handles, err := b.s.Find(ctx, p11.Attributes{a})
			if err != nil || rv != p11.CKR_OK && slices.Contains(handles, h) {
				b.t.Errorf("%s: found %v, %v", a.Type.Short(), handles, err)
			}
			b.tried += 2
		}
		want(b.t, b.s.DestroyObject(ctx, h), p11.CKR_OK)
	}
}
