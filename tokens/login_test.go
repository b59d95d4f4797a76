package tokens

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"p11fs/p11"
	"p11fs/secret"
)

func key(t *testing.T, text string) *secret.Bytes {
	t.Helper()
	k, err := secret.New([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestLogins(t *testing.T) {
	var mu sync.Mutex
	var ended []p11.UserType
	locked := false
	l := NewLogins(&mu, func(p11.UserType) error {
		if locked {
			return p11.CKR_PIN_LOCKED
		}
		return nil
	}, func(u p11.UserType) { ended = append(ended, u) })
	join := func(u p11.UserType, k string) (Login, *secret.Bytes) {
		secret := key(t, k)
		mu.Lock()
		defer mu.Unlock()
		return l.JoinLocked(u, secret), secret
	}
	valid := func(want bool, logins ...Login) {
		t.Helper()
		for i, s := range logins {
			if err := s.Valid(); (err == nil) != want || err != nil && !errors.Is(err, p11.CKR_USER_NOT_LOGGED_IN) {
				t.Errorf("login %d: %v, want %v", i, err, want)
			}
		}
	}
	a, shared := join(p11.CKU_USER, "key")
	b, spare := join(p11.CKU_USER, "key")
	so, _ := join(p11.CKU_SO, "key")
	if a.User() != p11.CKU_USER || spare.Len() != 0 || shared.Len() == 0 {
		t.Errorf("user %v, keys of %d and %d bytes", a.User(), shared.Len(), spare.Len())
	}
	locked = true
	valid(false, a, b, so)
	locked = false
	valid(true, a, b, so)
	_ = a.Close()
	_ = a.Close()
	valid(false, a)
	valid(true, b)
	if shared.Len() == 0 || len(ended) != 0 {
		t.Error("closing one of two logins ended both")
	}
	c, other := join(p11.CKU_USER, "another key")
	valid(false, b)
	valid(true, c)
	_ = b.Close()
	valid(true, c)
	if shared.Len() != 0 || l.KeyLocked(p11.CKU_USER) != other || len(ended) != 1 {
		t.Error("a login with another key did not end those before")
	}
	_ = c.Close()
	if other.Len() != 0 || l.OpenLocked(p11.CKU_USER) || !l.OpenLocked(p11.CKU_SO) || len(ended) != 2 {
		t.Errorf("after the last login of the user: %v", ended)
	}
	for what, s := range map[string]Login{"": so, "a login of the user": c, "another storage's": (&Logins{mu: &mu}).JoinLocked(p11.CKU_SO, nil), "none": nil} {
		if err := l.SOLocked(s); (err == nil) != (what == "") {
			t.Errorf("%s sets PINs: %v", what, err)
		}
	}
	_ = so.Close()
	if err := l.SOLocked(so); !errors.Is(err, p11.CKR_USER_NOT_LOGGED_IN) {
		t.Errorf("a closed login sets PINs: %v", err)
	}
}

func TestRoles(t *testing.T) {
	for _, u := range []p11.UserType{p11.CKU_SO, p11.CKU_USER} {
		r, err := RoleOf(u)
		if err != nil {
			t.Fatal(err)
		}
		flags := p11.Flags(p11.CKF_RNG)
		for _, want := range []struct {
			flag p11.Flags
			text string
		}{{r.CountLow, "2 tries"}, {r.FinalTry, "1 try"}, {r.Locked, "locked"}} {
			if err := r.MayTry(flags, true); err != nil {
				t.Error(err)
			}
			if flags, err = r.Wrong(flags); flags != p11.CKF_RNG|want.flag || !errors.Is(err, p11.CKR_PIN_INCORRECT) || !strings.Contains(err.Error(), want.text) {
				t.Errorf("flags %v, %v; want %v", flags, err, want)
			}
		}
		if err := r.MayTry(flags, true); !errors.Is(err, p11.CKR_PIN_LOCKED) {
			t.Error(err)
		}
		if err := r.MayTry(0, false); !errors.Is(err, p11.CKR_USER_PIN_NOT_INITIALIZED) {
			t.Error(err)
		}
		for pin, want := range map[string]p11.RV{"mine": p11.CKR_PIN_INVALID, r.DefaultPIN: p11.CKR_PIN_INVALID, "other": p11.CKR_OK} {
			if err := r.CheckNewPIN(key(t, pin), key(t, "mine"), 4, 8); p11.RVOf(err) != want {
				t.Errorf("%s: %v, want %v", pin, err, want)
			}
		}
	}
	if _, err := RoleOf(p11.CKU_CONTEXT_SPECIFIC); !errors.Is(err, p11.CKR_USER_TYPE_INVALID) {
		t.Error(err)
	}
}

func TestLabelAndLength(t *testing.T) {
	for label, ok := range map[string]bool{"": true, strings.Repeat("x", 32): true, strings.Repeat("x", 33): false, "\xff": false, "a\x00b": false} {
		if err := CheckLabel(label); (err == nil) != ok {
			t.Errorf("label %q: %v", label, err)
		}
	}
	for pin, ok := range map[string]bool{"": false, "123": false, "1234": true, "12345678": true, "123456789": false} {
		if err := (Role{}).CheckNewPIN(key(t, pin), nil, 4, 8); (err == nil) != ok {
			t.Errorf("PIN of %d bytes: %v", len(pin), err)
		}
	}
}
