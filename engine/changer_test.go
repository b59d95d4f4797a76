package engine

import (
	"context"
	"slices"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tokentest/hooks"
)

// A changer keeps of a key whether it encrypts, in an attribute of its own.
type changer struct {
	*hooks.Token
	asked     int
	meanwhile func() // once, while it is asked
	why       error
}

func (c *changer) Change(_ context.Context, was, now p11.Attributes) (p11.Attributes, error) {
	if was.Bool(p11.CKA_ENCRYPT) == now.Bool(p11.CKA_ENCRYPT) {
		return nil, nil
	}
	c.asked++
	if f := c.meanwhile; f != nil {
		c.meanwhile = nil
		f()
	}
	if c.why != nil {
		return nil, c.why
	}
	told := now.Clone()
	told.SetBool(remoteName, now.Bool(p11.CKA_ENCRYPT))
	return told, nil
}

func (c *changer) Visibility(p11.Attributes, p11.AttributeType) tokens.Visibility {
	return tokens.Shown
}

// TestChanger has a token keep what a key may do: it is asked of each change in an object of
// the token, of a session, and in a copy, of what the object is when it changes.
func TestChanger(t *testing.T) {
	ctx := t.Context()
	token := &changer{Token: hooks.New("tok", hooks.Options{})}
	b := benchOf(t, token.Token, token, Limits{})
	s := b.user(t)
	kept := func(h p11.ObjectHandle) (a p11.Attributes) {
		t.Helper()
		results, err := s.GetAttributeValue(ctx, h, p11.CKA_LABEL, p11.CKA_ENCRYPT, remoteName)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			if r.Err == nil {
				a.Set(r.Type, r.Value)
			}
		}
		return a
	}
	for _, where := range []string{"token=true", "token=false"} {
		t.Run(where, func(t *testing.T) {
			h := create(t, s, aesKey+" encrypt=false label=one "+where)
			want(t, s.SetAttributeValue(ctx, h, tmpl(t, "label=two")), p11.CKR_OK)
			if token.asked != 0 || kept(h).Has(remoteName) {
				t.Error("the token was told of a name")
			}
			want(t, s.SetAttributeValue(ctx, h, tmpl(t, "encrypt=true")), p11.CKR_OK)
			if a := kept(h); !a.Bool(remoteName) || !a.Bool(p11.CKA_ENCRYPT) {
				t.Errorf("it has %v", a)
			}
			// Somebody else is faster: nothing of his is lost.
			token.meanwhile = func() { want(t, s.SetAttributeValue(ctx, h, tmpl(t, "label=theirs")), p11.CKR_OK) }
			token.asked = 0
			want(t, s.SetAttributeValue(ctx, h, tmpl(t, "encrypt=false")), p11.CKR_OK)
			if a := kept(h); a.Bool(remoteName) || a.Bool(p11.CKA_ENCRYPT) || a.Label() != "theirs" || token.asked != 2 {
				t.Errorf("it has %v, and the token was asked %d times", a, token.asked)
			}
			copied, err := s.CopyObject(ctx, h, tmpl(t, "encrypt=true"))
			if a := kept(copied); err != nil || !a.Bool(remoteName) || kept(h).Bool(remoteName) {
				t.Errorf("the copy has %v, %v", a, err)
			}
			token.why = p11.CKR_DEVICE_REMOVED
			want(t, s.SetAttributeValue(ctx, h, tmpl(t, "encrypt=true label=three")), p11.CKR_DEVICE_REMOVED)
			_, err = s.CopyObject(ctx, h, tmpl(t, "encrypt=true"))
			want(t, err, p11.CKR_DEVICE_REMOVED)
			token.why, token.asked = nil, 0
			if a := kept(h); a.Bool(p11.CKA_ENCRYPT) || a.Label() != "theirs" {
				t.Errorf("a change that failed left %v", a)
			}
			token.meanwhile = func() { want(t, s.DestroyObject(ctx, h), p11.CKR_OK) }
			want(t, s.SetAttributeValue(ctx, h, tmpl(t, "encrypt=true")), p11.CKR_OBJECT_HANDLE_INVALID)
			token.asked = 0
		})
	}
	data := create(t, s, "class=data")
	want(t, s.SetAttributeValue(ctx, data, tmpl(t, "value=0x01")), p11.CKR_OK)
	if list, err := s.Find(ctx, tmpl(t, "class=data")); token.asked != 0 || !slices.Contains(list, data) {
		t.Errorf("%v, %v; the token was asked %d times", list, err, token.asked)
	}
}
