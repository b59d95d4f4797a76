package engine

import (
	"context"
	"sync/atomic"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tokentest/hooks"
)

// looking is a token that remembers what of its private objects was searched for.
type looking struct {
	*hooks.Token
	found atomic.Int64
}

func (l *looking) Find(ctx context.Context, template p11.Attributes, private bool) ([]*tokens.Object, error) {
	list, err := l.Token.Find(ctx, template, private)
	for _, o := range list {
		if o.Private {
			l.found.Add(1)
		}
	}
	return list, err
}

// Who has a grant for one key finds out of no other that it is there, by how long a search
// takes: none but his own is looked at, whatever he asks for.
func TestGrantsLookAtNoOther(t *testing.T) {
	token := &looking{Token: hooks.New("tok", hooks.Options{})}
	b := benchOf(t, token.Token, token, Limits{})
	maker := b.user(t)
	create(t, maker, aesKey+" token=true private=true encrypt=true label=web id=0x01")
	create(t, maker, aesKey+" token=true private=true encrypt=true label=payroll id=0x02")
	create(t, maker, aesKey+" token=true private=true encrypt=true label=payroll id=0x03")
	b.grant(t, "user=33 token=tok label=web functions=encrypt")
	b.hold(t)
	s := b.service(t, www)
	looked := func(template string) int64 {
		before := token.found.Load()
		if _, err := s.Find(t.Context(), tmpl(t, template)); err != nil {
			t.Fatal(err)
		}
		return token.found.Load() - before
	}
	for _, is := range [][2]string{{"label=payroll", "label=nothing"}, {"id=0x02", "id=0x04"}, {"class=secret-key label=payroll id=0x03", "class=secret-key label=payroll id=0x05"}} {
		if there, none := looked(is[0]), looked(is[1]); there != none {
			t.Errorf("%s: %d private objects are looked at, and %d where it is not there", is[0], there, none)
		}
	}
	one(t, s, "label=web")
	one(t, s, "class=secret-key id=0x01")
}

// Somebody without a login makes a public key of the name of a granted one, before it or after:
// a service that takes the first key of that name has the granted one.
func TestGrantedBeforePublic(t *testing.T) {
	b := newBench(t, hooks.Options{})
	const key = aesKey + " token=true encrypt=true label=web"
	stranger := b.service(t, 34)
	create(t, stranger, key+" private=false")
	create(t, b.user(t), key+" private=true")
	create(t, stranger, key+" private=false")
	b.grant(t, "user=33 token=tok label=web functions=encrypt")
	b.hold(t)
	s := b.service(t, www)
	list, err := s.Find(t.Context(), tmpl(t, "class=secret-key label=web"))
	if err != nil || len(list) != 3 || !flag(t, s, list[0], p11.CKA_PRIVATE) {
		t.Errorf("%d keys, %v, and the first is not the granted one", len(list), err)
	}
}
