//go:build cgo

package hostlib

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cca"
	"p11fs/tokens/card/ep11"
)

// strange is the library of testdata, and how often it has failed.
func strange(t *testing.T, abi card.ABI) (via card.Transport, failures *int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "library.so")
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-o", file, "testdata/library.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	failures = new(int)
	via, err := Load(abi, file, slog.New(slog.DiscardHandler), func(error) { *failures++ })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := via.Close(); err != nil {
			t.Error(err)
		}
	})
	return via, failures
}

// TestAddress is of a library without m_add_module, whose targets are addresses.
func TestAddress(t *testing.T) {
	via, _ := strange(t, card.EP11)
	for want, target := range map[string]card.Target{"000002000a000200ff01ff00": {{Adapter: 10, Domain: 2}, {Adapter: 0x1ff, Domain: 255}}, "000000000000000000000000": nil} {
		if card.NativeOrder().Uint16([]byte{1, 0}) != 1 {
			want = map[bool]string{true: want, false: "00000002000a000201ff00ff"}[target == nil]
		}
		got, err := ep11.GenerateRandom(t.Context(), via, target, 12)
		if err != nil || fmt.Sprintf("%x", got) != want {
			t.Errorf("%v: %x, %v, not %s", target, got, err, want)
		}
	}
}

// TestBad is of a library that does wrong: what makes no sense is an error, half a return
// value is one, and after an overrun nothing is called any more.
func TestBad(t *testing.T) {
	via, failures := strange(t, card.EP11)
	digest := p11.Mechanism{Type: p11.CKM_SHA256}
	for _, data := range []string{"x", "more"} {
		if _, err := ep11.DigestSingle(t.Context(), via, nil, digest, []byte(data)); p11.RVOf(err) != ep11.Internal {
			t.Errorf("too much: %v", err)
		}
	}
	if _, err := ep11.DigestKey(t.Context(), via, nil, []byte("state"), []byte("key")); p11.RVOf(err) != ep11.WKIDMismatch {
		t.Errorf("half a return value: %v", err)
	}
	if _, err := ep11.SignSingle(t.Context(), via, nil, []byte("key"), digest, nil); p11.RVOf(err) != p11.CKR_FUNCTION_NOT_SUPPORTED {
		t.Errorf("a function that is not there: %v", err)
	}
	if *failures != 0 {
		t.Errorf("it has failed")
	}
	for range 2 {
		if _, err := ep11.GenerateRandom(t.Context(), via, nil, 13); p11.RVOf(err) != p11.CKR_DEVICE_REMOVED || !strings.Contains(err.Error(), errOverrun.Error()) {
			t.Errorf("an overrun: %v", err)
		}
	}
	if *failures != 1 {
		t.Errorf("it has failed %d times", *failures)
	}
}

// TestAddresses has programs send addresses, which do not get to the library.
func TestAddresses(t *testing.T) {
	via, _ := strange(t, card.EP11)
	f := card.FunctionOf(card.EP11, ep11.FnDigestSingle)
	for name, m := range map[string]*p11.Mechanism{
		"bytes for a struct":   {Type: p11.CKM_RSA_PKCS_OAEP, Param: p11.RawParam(make([]byte, 40))},
		"an unknown mechanism": {Type: 0x8001ffff, Param: p11.RawParam{1}},
		"none":                 nil,
		"of no card":           {Type: p11.CKM_TLS_KDF, Param: p11.SampleParam(p11.CKM_TLS_KDF)},
	} {
		c := &card.Call{Function: f, Args: []card.Arg{{Mechanism: m}, {Bytes: []byte("x")}, {Room: 64}}}
		want := p11.CKR_MECHANISM_PARAM_INVALID
		if m == nil {
			want = p11.CKR_MECHANISM_INVALID
		}
		if err := via.Call(t.Context(), c); err != nil || c.Return != uint64(want) {
			t.Errorf("%s: %#x, %v", name, c.Return, err)
		}
	}
	list := &frame{memory: memory{}, c: &card.Call{Args: []card.Arg{{Attributes: p11.Attributes{{Type: p11.CKA_WRAP_TEMPLATE, Value: make([]byte, 24)}}}, {Want: []card.WantedValue{{Type: p11.CKA_UNWRAP_TEMPLATE, Room: 24}}}}}, slots: make([]slot, 2)}
	for i := range 2 {
		if _, err := list.attributes(i); p11.RVOf(err) != p11.CKR_ATTRIBUTE_TYPE_INVALID {
			t.Errorf("an attribute with attributes: %v", err)
		}
	}
	other := card.Call{Function: f, Order: otherOrder()}
	if err := via.Call(t.Context(), &other); err != nil || other.Return != uint64(ep11.TransportError) {
		t.Errorf("a program of another machine: %#x, %v", other.Return, err)
	}
	short := card.FunctionOf(card.CCA, cca.FnCSNBKPI2)
	c := &card.Call{Function: short, Args: []card.Arg{{Bytes: make([]byte, 24)}, {Number: 1 << 40}, {Bytes: []byte("part")}, {Bytes: make([]byte, 64)}, {Room: 100}}}
	if _, err := newFrame(c, &layouts[card.CCA][cca.FnCSNBKPI2]); !errors.Is(err, cca.ErrBuffer) {
		t.Errorf("a part that is shorter than it says: %v", err)
	}
}

func otherOrder() binary.ByteOrder {
	if card.NativeOrder().Uint16([]byte{1, 0}) == 1 {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// TestAbandoned gives up a call that the library does not come back from, and closes with it
// in there.
func TestAbandoned(t *testing.T) {
	via, _ := strange(t, card.EP11)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- ep11.SeedRandom(ctx, via, nil, []byte("x")) }()
	for len(via.(*library).seats) == 0 {
		select {
		case err := <-done:
			t.Fatalf("it came back: %v", err)
		default:
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	if err := ep11.Logout(t.Context(), via, nil, []byte("x")); err != nil {
		t.Error(err)
	}
}

// TestAdapter has a card of CCA answer, and none that is not there.
func TestAdapter(t *testing.T) {
	via, _ := strange(t, card.CCA)
	for want, target := range map[string]card.Target{"any": nil, "CRP07": {{Adapter: 7}}} {
		if got, err := cca.CSNBRNG(t.Context(), via, target, []byte("RANDOM  ")); err != nil || strings.TrimRight(string(got), "\x00") != want {
			t.Errorf("%q, %v, not %s", got, err, want)
		}
	}
	for _, target := range []card.Target{{{Adapter: 9}}, {{Adapter: 1}, {Adapter: 2}}, {{Adapter: 200}}} {
		if _, err := cca.CSNBRNG(t.Context(), via, target, []byte("RANDOM  ")); err == nil {
			t.Errorf("%v answers", target)
		}
	}
	if _, err := cca.CSNBRNGL(t.Context(), via, nil, []byte("RANDOM  "), 8); !errors.Is(err, cca.ErrKeyword) {
		t.Errorf("a verb that is not there: %v", err)
	}
}

// TestNoLibrary is of files that are none.
func TestNoLibrary(t *testing.T) {
	for file, want := range map[string]string{"testdata/library.c": "cannot be loaded", "libc.so.6": "no host library of ep11 cards"} {
		if file != "libc.so.6" {
			file, _ = filepath.Abs(file)
		}
		if _, err := Load(card.EP11, file, slog.New(slog.DiscardHandler), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestAdmin has the library make the blocks of administrators' commands, and take their
// answers apart: they are not those of package ep11.
func TestAdmin(t *testing.T) {
	via, _ := strange(t, card.EP11)
	target := card.Target{{Adapter: 3, Domain: 4}}
	if points, err := ep11.ControlPoints(t.Context(), via, target); err != nil || points != [ep11.ControlPointBytes]byte{3 + 4} {
		t.Errorf("%x, %v", points, err)
	}
	for payload, want := range map[string]p11.RV{"blob": p11.CKR_OK, "e": ep11.BlobError, "f": ep11.Internal, "g": ep11.Internal} {
		got, err := ep11.Reencrypt(t.Context(), via, target, ep11.Blob(payload))
		if p11.RVOf(err) != want || want == p11.CKR_OK && string(got) != "bolb" {
			t.Errorf("%s: %q, %v", payload, got, err)
		}
	}
	if _, _, err := ep11.Admin(t.Context(), via, target, []byte("short"), nil); p11.RVOf(err) != p11.CKR_ARGUMENTS_BAD {
		t.Errorf("what is no block: %v", err)
	}
}

// TestRooms has programs say that they have less room than a library writes, which must not
// have it write over anything.
func TestRooms(t *testing.T) {
	for _, one := range []struct {
		abi    card.ABI
		number uint32
		args   func(room uint64) []card.Arg
		enough uint64
		small  uint64
	}{
		{card.EP11, ep11.FnGetMechanismInfo, func(room uint64) []card.Arg { return []card.Arg{{}, {Number: 1}, {Room: room}} }, 3, uint64(p11.CKR_BUFFER_TOO_SMALL)},
		{card.CCA, cca.FnCSUACFQ, func(room uint64) []card.Arg { return []card.Arg{{Bytes: []byte("STATCRD2")}, {Room: room}, {Room: 8}} }, 120, cca.ErrBuffer.Value()},
		{card.CCA, cca.FnCSNBENC, func(room uint64) []card.Arg {
			return []card.Arg{{}, {Bytes: make([]byte, 1000)}, {Bytes: []byte{1}}, {}, {Room: room}}
		}, 1000, cca.ErrBuffer.Value()},
	} {
		via, failures := strange(t, one.abi)
		for room := range one.enough + 2 {
			c := &card.Call{Function: card.FunctionOf(one.abi, one.number), Args: one.args(room)}
			want := one.small
			if room >= one.enough {
				want = 0
			}
			if err := via.Call(t.Context(), c); err != nil || c.Return != want || *failures != 0 {
				t.Fatalf("%s, room for %d: %#x, %v", c.Function.Name, room, c.Return, err)
			}
		}
	}
}
