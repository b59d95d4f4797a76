package tpm20

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/tpm/tpmtest"
)

// chip is a chip of a software TPM.
func chip(t testing.TB, tpm *tpmtest.TPM) *Chip {
	t.Helper()
	c, err := Open(Device(tpm.Device()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// fresh is a chip of a new TPM, and its storage key.
func fresh(t testing.TB) (*tpmtest.TPM, *Chip, Parent) {
	t.Helper()
	tpm := tpmtest.Start(t, nil)
	c := chip(t, tpm)
	return tpm, c, must[Parent](t)(c.FindParent(t.Context()))
}

func must[T any](t testing.TB) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func hide(t testing.TB, b []byte) *secret.Bytes {
	t.Helper()
	s, err := secret.New(append([]byte(nil), b...))
	noError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func show(s *secret.Bytes) (out []byte) {
	s.Use(func(b []byte) { out = append(out, b...) })
	return out
}

func stretched(t testing.TB, pin string, salt []byte, cost int) *PIN {
	t.Helper()
	p, err := Stretch(hide(t, []byte(pin)), salt, cost)
	noError(t, err)
	t.Cleanup(p.Close)
	return p
}

func wantRV(t testing.TB, what string, err error, want p11.RV) {
	t.Helper()
	if got := p11.RVOf(err); got != want || err == nil {
		t.Errorf("%s: %v (%v), want %v", what, got, err, want)
	}
}

func wantIs(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// raw sends a command with one handle whose authorisation is empty, and returns the
// response code.
func raw(t testing.TB, c *Chip, cc uint32, handle uint32, params ...byte) tpm2.TPMRC {
	t.Helper()
	body := binary.BigEndian.AppendUint32(nil, cc)
	body = binary.BigEndian.AppendUint32(body, handle)
	body = append(body, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 1, 0, 0)
	body = append(body, params...)
	command := binary.BigEndian.AppendUint16(nil, 0x8002)
	command = append(binary.BigEndian.AppendUint32(command, uint32(len(body)+6)), body...)
	return must[tpm2.TPMRC](t)(do(t.Context(), c, func(w *worker) (tpm2.TPMRC, error) {
		r, err := w.Send(command)
		if err != nil {
			return 0, err
		}
		return tpm2.TPMRC(binary.BigEndian.Uint32(r[6:])), nil
	}))
}
