package p11

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestRV(t *testing.T) {
	seen := make(map[string]RV)
	for _, rv := range AllRVs() {
		t.Run(rv.String(), func(t *testing.T) {
			if got, err := ParseRV(rv.Error()); err != nil || got != rv {
				t.Errorf("%s parses to %v, %v", rv.Error(), got, err)
			}
			if prev, ok := seen[rv.Error()]; ok {
				t.Errorf("also the name of %d", uint64(prev))
			}
			seen[rv.Error()] = rv
			advice := rv.Advice()
			if advice == "" || strings.ContainsAny(advice, "\n\r") || len(advice) > 150 {
				t.Errorf("advice %q is not one line", advice)
			}
			if rv == CKR_OK {
				if rv.Err() != nil {
					t.Errorf("CKR_OK is the error %v", rv.Err())
				}
				return
			}
			wrapped := fmt.Errorf("sign with web: %w", Errorf(rv, "no %s", "key"))
			if RVOf(wrapped) != rv || !errors.Is(wrapped, rv) {
				t.Errorf("through wrapping comes %v", RVOf(wrapped))
			}
			if got, want := wrapped.Error(), "sign with web: no key"; got != want {
				t.Errorf("text %q, want %q", got, want)
			}
			if RVOf(rv.Err()) != rv {
				t.Errorf("Err gives %v", rv.Err())
			}
		})
	}
	if got := RV(0x99).Error(); got != "0x99" {
		t.Errorf("unknown return value prints as %s", got)
	}
	if RV(0x99).Advice() == "" {
		t.Error("unknown return value has no advice")
	}
}

func TestRVOf(t *testing.T) {
	cause := errors.New("disk full")
	for _, c := range []struct {
		name string
		err  error
		want RV
	}{
		{"nil", nil, CKR_OK},
		{"bare", CKR_PIN_LOCKED, CKR_PIN_LOCKED},
		{"none", cause, CKR_GENERAL_ERROR},
		{"canceled", fmt.Errorf("reading: %w", context.Canceled), CKR_FUNCTION_CANCELED},
		{"deadline", context.DeadlineExceeded, CKR_FUNCTION_CANCELED},
		{"own before cause's", Errorf(CKR_DEVICE_ERROR, "store: %w", CKR_PIN_LOCKED), CKR_DEVICE_ERROR},
		{"CKR_OK as an error", error(CKR_OK), CKR_GENERAL_ERROR},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := RVOf(c.err); got != c.want {
				t.Errorf("RVOf(%v) = %v, want %v", c.err, got, c.want)
			}
		})
	}
	if err := Errorf(CKR_DEVICE_MEMORY, "write: %w", cause); !errors.Is(err, cause) || err.Error() != "write: disk full" {
		t.Errorf("the cause is lost in %q", err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("Errorf of CKR_OK returned")
			}
		}()
		_ = Errorf(CKR_OK, "fine")
	}()
}
