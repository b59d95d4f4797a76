package engine

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

func TestFind(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	a := create(t, s, "class=data token=true label=a")
	web := create(t, s, certificate+" token=true label=web id=0x01")
	key := create(t, s, aesKey+" token=true label=web id=0x01 sensitive=true")
	session := create(t, s, "class=data label=web")
	clock := b.token.Put(tmpl(t, "class=hw-feature hw-feature-type=clock token=true label=web")).Handle
	tests := []struct {
		template string
		want     []p11.ObjectHandle
		listed   []p11.ObjectHandle // if not the same
	}{
		{"", []p11.ObjectHandle{a, web, key, session}, []p11.ObjectHandle{a, web, key, clock, session}},
		{"label=web", []p11.ObjectHandle{web, key, session}, []p11.ObjectHandle{web, key, clock, session}},
		{"id=0x01", []p11.ObjectHandle{web, key}, nil},
		{"class=certificate id=0x01", []p11.ObjectHandle{web}, nil},
		{"token=false", []p11.ObjectHandle{session}, nil},
		{"label=none", nil, nil},
		{"class=hw-feature label=web", []p11.ObjectHandle{clock}, nil}, // beside that of every token
		{"label=web sensitive=true", []p11.ObjectHandle{key}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.template, func(t *testing.T) {
			got, err := s.Find(ctx, tmpl(t, tt.template))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, append([]p11.ObjectHandle(nil), got...)); diff != "" {
				t.Error(diff)
			}
			var infos []p11.ObjectHandle
			list, err := s.Application().Objects(ctx, b.slot, tmpl(t, tt.template))
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range list {
				infos = append(infos, i.Handle)
			}
			if tt.listed == nil {
				tt.listed = tt.want
			}
			if diff := cmp.Diff(tt.listed, infos); diff != "" {
				t.Error("Objects:", diff)
			}
		})
	}
	t.Run("malformed template", func(t *testing.T) {
		_, err := s.Find(ctx, p11.Attributes{{Type: p11.CKA_TOKEN, Value: []byte{1, 2, 3}}})
		want(t, err, p11.CKR_ATTRIBUTE_VALUE_INVALID)
	})
}

func TestFindObjects(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	for i := range 5 {
		create(t, s, fmt.Sprintf("class=data label=%d", i))
	}
	_, err := s.FindObjects(ctx, 1)
	want(t, err, p11.CKR_OPERATION_NOT_INITIALIZED)
	want(t, s.FindObjectsFinal(ctx), p11.CKR_OPERATION_NOT_INITIALIZED)
	want(t, s.FindObjectsInit(ctx, nil), p11.CKR_OK)
	want(t, s.FindObjectsInit(ctx, nil), p11.CKR_OPERATION_ACTIVE)
	_, err = s.FindObjects(ctx, -1)
	want(t, err, p11.CKR_ARGUMENTS_BAD)
	for _, n := range []int{2, 2, 1, 0} {
		got, err := s.FindObjects(ctx, 2)
		if err != nil || len(got) != n {
			t.Errorf("%d handles, %v; want %d", len(got), err, n)
		}
	}
	want(t, s.FindObjectsFinal(ctx), p11.CKR_OK)
	t.Run("a logout leaves nothing to give", func(t *testing.T) {
		create(t, s, aesKey)
		want(t, s.FindObjectsInit(ctx, nil), p11.CKR_OK)
		want(t, s.Logout(ctx), p11.CKR_OK)
		got, err := s.FindObjects(ctx, 100)
		if err != nil || len(got) != 0 {
			t.Errorf("%d handles after logout, %v", len(got), err)
		}
		want(t, s.FindObjectsFinal(ctx), p11.CKR_OK)
	})
}
