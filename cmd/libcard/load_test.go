//go:build cgo

package libcard

import (
	"bytes"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/card"
	"p11fs/tokens/card/hostlib"
)

// unchecked builds both libraries, without the checks that other code cannot load, and returns their folder.
func unchecked(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	make := exec.Command("make", "-s", "-f", "cmd/libcard/build.mk", "libcard", "LIBCARD="+dir, "LIBCARD_CFLAGS=-O0")
	make.Dir = "../.."
	if out, err := make.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

func load(t *testing.T, abi card.ABI, file string) card.Transport {
	t.Helper()
	via, err := hostlib.Load(abi, file, slog.New(slog.DiscardHandler), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := via.Close(); err != nil {
			t.Error(err)
		}
	})
	return via
}

// fixed are the bytes of values that verbs take without a length, and of rule arrays.
func fixed(name string, i int) int {
	lengths := map[string][]int{
		"CSNBRNG": {8}, "CSNBKGN": {8, 8, 8, 64}, "CSNBKTB": {8}, "CSNBENC": {64, 0, 8}, "CSNBDEC": {64, 0, 8},
		"CSNBKGN2": {0, 0, 8, 8}, "CSNBKTC": {0, 64},
	}[name]
	if i < len(lengths) && lengths[i] > 0 {
		return lengths[i]
	}
	return 24
}

// calls are those of a function: with the room that an output takes, with less, and, of EP11,
// asking for the lengths.
func calls(f *card.Function) (list []*card.Call) {
	for _, m := range []mode{exact, short, query} {
		if m == query && f.ABI == card.CCA {
			continue // which has no questions for lengths
		}
		if m == short && f.Name == "CSUACFQ" {
			continue // whose count of keywords says nothing where it fails
		}
		c := &card.Call{Function: f}
		if f.ABI == card.EP11 {
			c.Target = card.Target{{Adapter: 1, Domain: 2}, {Adapter: 3, Domain: uint16(m)}}
		}
		for i, k := range f.Args {
			a := card.Arg{Query: m == query}
			switch k {
			case card.Number:
				a = card.Arg{Number: uint64(192 - i%2)}
			case card.Bytes:
				a = card.Arg{Bytes: []byte(fmt.Sprintf("%-64s", f.Name)[:fixed(f.Name, i)])}
				if f.Name == "CSUACFQ" {
					a.Bytes = []byte("STATCCAE") // which says how long the answer is
				}
			case card.InOut:
				a = card.Arg{Bytes: []byte("a state, as long as before"), Room: 26}
			case card.Mechanism:
				mechanisms := []p11.MechanismType{p11.CKM_RSA_PKCS_PSS, p11.CKM_RSA_PKCS_OAEP, p11.CKM_ECDH1_DERIVE, p11.CKM_AES_CBC, p11.CKM_SHA256, p11.CKM_SHA256_HMAC_GENERAL}
				t := mechanisms[(int(f.Number)+int(m)+i)%len(mechanisms)]
				a = card.Arg{Mechanism: &p11.Mechanism{Type: t, Param: p11.SampleParam(t)}}
			case card.Attributes:
				a = card.Arg{Attributes: p11.Attributes{{Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(uint64(0x1234))}, {Type: p11.CKA_LABEL, Value: []byte("l")}, {Type: p11.CKA_ID, Value: []byte{}}}}
			case card.Wanted:
				a = card.Arg{Want: []card.WantedValue{{Type: p11.CKA_SIGN, Room: 1}, {Type: p11.CKA_VALUE_LEN, Room: uint64(m.room(8)), Query: m == query}, {Type: p11.CKA_LABEL, Room: 4}}}
			case card.Output:
				if a.Room = uint64(m.room(outputLen(i))); f.ABI == card.CCA {
					a.Room = uint64(m.room(verbOutput(f.Name, i)))
				}
			case card.Numbers:
				a.Room = uint64(m.room(3))
				if f.Name == "m_GetMechanismInfo" {
					a = card.Arg{Room: 3}
				}
			}
			c.Args = append(c.Args, a)
		}
		list = append(list, c)
	}
	return list
}

// TestLoad calls each function of both libraries as the bridge to a vendor's does, and
// compares what comes with a direct call.
func TestLoad(t *testing.T) {
	dir := unchecked(t)
	for abi, file := range map[card.ABI]string{card.EP11: "libep11.so", card.CCA: "libcsulcca.so"} {
		socket := filepath.Join(t.TempDir(), "card")
		t.Setenv("P11FS_CARD", socket)
		s := &scripted{}
		stop := serve(t, socket, abi, s)
		via := load(t, abi, filepath.Join(dir, file))
		for _, f := range card.Functions(abi) {
			if f.Name == "m_admin" {
				continue // of which the blocks are taken apart, which a scripted card does not make
			}
			for _, c := range calls(f) {
				direct := *c
				direct.Args = append([]card.Arg{}, c.Args...)
				if err := s.Call(t.Context(), &direct); err != nil {
					t.Fatal(err)
				}
				if err := via.Call(t.Context(), c); err != nil {
					t.Fatal(err)
				}
				if c.Return != direct.Return || !sameOutputs(c, &direct) {
					t.Errorf("%s: %#x %s\ndirectly %#x %s", f.Name, c.Return, outputs(c), direct.Return, outputs(&direct))
				}
				s.mu.Lock()
				if s.last.Function != f || !reflect.DeepEqual(s.last.Target, c.Target) || !sameInputs(s.last, c) {
					t.Errorf("%s: arrived %s for %v, %+v", f.Name, s.last.Function.Name, s.last.Target, s.last.Args)
				}
				s.mu.Unlock()
			}
		}
		stop()
	}
}

// sameInputs compares what was given with what arrived. Memory in which an output comes back
// may be longer or shorter.
func sameInputs(a, b *card.Call) bool {
	for i, k := range a.Function.Args {
		x, y := a.Args[i], b.Args[i]
		switch k {
		case card.Number:
			if x.Number != y.Number {
				return false
			}
		case card.Bytes, card.InOut:
			got := bytes.TrimRight(x.Bytes, "\x00")
			if !bytes.HasPrefix(got, y.Bytes) && (len(got) < 19 || !bytes.HasPrefix(y.Bytes, got)) {
				return false
			}
		case card.Mechanism:
			if !reflect.DeepEqual(x.Mechanism, y.Mechanism) {
				return false
			}
		case card.Attributes:
			if !reflect.DeepEqual(x.Attributes, y.Attributes) {
				return false
			}
		}
	}
	return true
}

// outputs are what came out, for messages.
func outputs(c *card.Call) (text string) {
	for i, a := range c.Args {
		if c.Function.Args[i] != card.Bytes {
			text += fmt.Sprintf(" %d: %d %x %d %v;", i, a.Length, a.Out, a.Numbers, a.Attributes)
		}
	}
	return text
}

// sameOutputs compares what came out.
func sameOutputs(a, b *card.Call) bool {
	for i, k := range a.Function.Args {
		x, y := a.Args[i], b.Args[i]
		switch k {
		case card.Output, card.InOut, card.Numbers:
			if x.Length != y.Length || !reflect.DeepEqual(x.Out, y.Out) || !reflect.DeepEqual(x.Numbers, y.Numbers) {
				return false
			}
		case card.Wanted:
			for _, w := range x.Want {
				v, ok := x.Attributes.Get(w.Type)
				other, there := y.Attributes.Get(w.Type)
				if ok != there || len(v) != len(other) || !w.Query && string(v) != string(other) {
					return false
				}
			}
		}
	}
	return true
}
