package engine

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// A token's clock, mechanisms and profile are objects that nobody changes, and that who
// lists everything does not see.
func TestBuiltins(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.session(t, b.app(), rw)
	find := func(template string) []p11.ObjectHandle {
		t.Helper()
		list, err := s.Find(ctx, tmpl(t, template))
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	for template, n := range map[string]int{
		"":                 0,
		"token=true":       0,
		"class=hw-feature": 2,
		"class=hw-feature hw-feature-type=monotonic-counter":                          1,
		"class=hw-feature reset-on-init=false":                                        1,
		"class=hw-feature hw-feature-type=monotonic-counter value=0x0000000000000000": 0,
		"class=hw-feature hw-feature-type=clock":                                      1,
		"class=profile":                                                               1,
		"class=profile profile-id=baseline-provider":                                  1,
		"class=profile profile-id=extended-provider":                                  0,
		"class=mechanism":                                                             len(b.slot.Mechanisms()),
		"class=mechanism mechanism-type=aes-cbc":                                      1,
		"mechanism-type=aes-cbc class=data":                                           0,
		"class=mechanism mechanism-type=rc4":                                          0, "mechanism-type=aes-cbc": 0,
		"class=mechanism label=x":    0,
		"class=mechanism token=true": len(b.slot.Mechanisms()),
		"class=validation":           0,
	} {
		if list := find(template); len(list) != n {
			t.Errorf("%q finds %d objects, want %d", template, len(list), n)
		}
	}
	clock := find("class=hw-feature hw-feature-type=clock")[0]
	value := get(t, s, clock, p11.CKA_VALUE)
	if at, err := time.Parse("2006010215040500", string(value.Value)); err != nil || time.Since(at).Abs() > time.Minute {
		t.Errorf("the clock says %q, %v, %v", value.Value, value.Err, err)
	}
	if again := find("class=hw-feature hw-feature-type=clock"); len(again) != 1 || again[0] != clock {
		t.Errorf("another handle: %v, %v", again, clock)
	}
	count := find("class=hw-feature hw-feature-type=monotonic-counter")[0]
	if flag(t, s, count, p11.CKA_RESET_ON_INIT) || flag(t, s, count, p11.CKA_HAS_RESET) {
		t.Error("the counter says that it is reset")
	}
	last := make([]byte, 8)
	for range 3 {
		v := get(t, s, count, p11.CKA_VALUE)
		if v.Err != nil || len(v.Value) != 8 || bytes.Compare(v.Value, last) <= 0 {
			t.Errorf("the counter says %x, %v after %x", v.Value, v.Err, last)
		}
		last = v.Value
	}
	if n, err := b.slot.Count(ctx); err != nil || n <= binary.BigEndian.Uint64(last) {
		t.Errorf("the counter says %d, %v after %x", n, err, last)
	}
	for _, h := range append(find("class=profile"), count, find("class=mechanism mechanism-type=aes-cbc")[0], clock) {
		want(t, s.DestroyObject(ctx, h), p11.CKR_ACTION_PROHIBITED)
		want(t, s.SetAttributeValue(ctx, h, tmpl(t, "label=x")), p11.CKR_ACTION_PROHIBITED)
		_, err := s.CopyObject(ctx, h, nil)
		want(t, err, p11.CKR_ACTION_PROHIBITED)
		want(t, s.SignInit(ctx, mech(t, "sha256-hmac"), h), p11.CKR_KEY_HANDLE_INVALID)
		if n, err := s.ObjectSize(ctx, h); err != nil || n == 0 {
			t.Errorf("size %d, %v", n, err)
		}
	}
	_, err := s.ObjectSize(ctx, builtinHandles|7)
	want(t, err, p11.CKR_OBJECT_HANDLE_INVALID)
	list, err := s.Application().Objects(ctx, b.slot, nil)
	if err != nil || len(list) != 0 {
		t.Errorf("a listing has %d objects, %v", len(list), err)
	}
}

// What current openCryptoki's clients say of every key is taken; what cannot be kept is
// not.
func TestIBMAttributes(t *testing.T) {
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	h := create(t, s, aesKey+" ibm-protkey-extractable=false ibm-attrbound=false ibm-use-as-data=false")
	if !flag(t, s, h, p11.CKA_IBM_PROTKEY_NEVER_EXTRACTABLE) || flag(t, s, h, p11.CKA_IBM_PROTKEY_EXTRACTABLE) {
		t.Error("the key says that it can be extracted as a protected one")
	}
	h = create(t, s, aesKey+" ibm-protkey-extractable=true")
	if flag(t, s, h, p11.CKA_IBM_PROTKEY_NEVER_EXTRACTABLE) {
		t.Error("the key says that it never could be extracted as a protected one")
	}
	_, err := s.CreateObject(t.Context(), tmpl(t, aesKey+" ibm-attrbound=true"))
	want(t, err, p11.CKR_TEMPLATE_INCONSISTENT)
	_, err = s.CreateObject(t.Context(), tmpl(t, aesKey+" ibm-protkey-never-extractable=true"))
	want(t, err, p11.CKR_ATTRIBUTE_READ_ONLY)
}
