package libp11fs

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"testing"

	"p11fs/mountd/rpc/wire"
	"p11fs/mountd/rpc/wire/wiretest"
	"p11fs/p11"
)

// A liar answers a request with bytes of its choice; nil ends the connection.
type liar func(r *rand.Rand, code uint32, call wire.Call) []byte

// fakeServe runs a server that greets as the daemon does, grants C_Initialize
// and leaves the rest to a liar.
func fakeServe(t *testing.T, seed uint64, lie liar) (socket string) {
	t.Helper()
	return liarServe(t, seed, func(r *rand.Rand, code uint32, call wire.Call) []byte {
		switch call {
		case wire.CallInitialize, wire.CallFinalize:
			return honest(code, call, nil)
		case wire.CallRoad:
			return refusal(code, p11.CKR_FUNCTION_NOT_SUPPORTED)
		}
		return lie(r, code, call)
	})
}

// liarServe runs a server that greets as the daemon does and leaves all else to
// a liar.
func liarServe(t *testing.T, seed uint64, lie liar) (socket string) {
	t.Helper()
	return accepting(t, seed, func(c *net.UnixConn, r *rand.Rand) error {
		fakeConn(c, r, lie)
		return nil
	})
}

// accepting runs a server that has each connection be served by its number.
func accepting(t *testing.T, seed uint64, serve func(*net.UnixConn, *rand.Rand) error) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := uint64(0); ; i++ {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			go func() {
				if err := serve(c, rand.New(rand.NewPCG(seed, i))); err != nil {
					t.Error(err)
				}
			}()
		}
	}()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return socket
}

func fakeConn(c *net.UnixConn, r *rand.Rand, lie liar) {
	defer func() { _ = c.Close() }() // the client may be gone
	in := bufio.NewReader(c)
	if _, err := in.ReadByte(); err != nil {
		return
	}
	if _, err := c.Write([]byte{byte(wire.Own)}); err != nil {
		return
	}
	for {
		code, body, err := wire.ReadFrame(in, nil, nil)
		if err != nil {
			return
		}
		number, _ := wire.NewReader(body, wire.Own).Header()
		out := lie(r, code, wire.Call(number))
		if out == nil {
			return
		}
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

// honest is a reply of the right form with values.
func honest(code uint32, call wire.Call, values []byte) []byte {
	s, ok := wire.Signatures(call)
	if !ok {
		return nil
	}
	b, start := wire.AppendFrame(nil, code, "")
	w := wiretest.NewWriter(b, wire.Own)
	w.Header(uint32(call), s.Response)
	w.B = append(w.B, values...)
	if err := wire.EndFrame(w.B, start); err != nil {
		return nil
	}
	return w.B
}

// refusal is a reply that says that the call has failed.
func refusal(code uint32, rv p11.RV) []byte {
	b, start := wire.AppendFrame(nil, code, "")
	w := wiretest.NewWriter(b, wire.Own)
	w.Header(uint32(wire.CallError), "u")
	w.Ulong(uint64(rv))
	if err := wire.EndFrame(w.B, start); err != nil {
		panic(err) // 17 bytes always fit
	}
	return w.B
}

// plausible makes values of the signature's types with numbers that are too
// small, too large or right.
func plausible(r *rand.Rand, signature string) []byte {
	w := wiretest.NewWriter(nil, wire.Own)
	lengths := []uint32{0, 1, 2, 3, 8, 16, 24, 48, 64, 72, 0x7fffffff, 0xfffffffe, 0xffffffff}
	length := func() uint32 { return lengths[r.IntN(len(lengths))] }
	filled := func(n uint32) {
		for range min(n, 100) {
			w.Byte(byte(r.Uint32()))
		}
	}
	for i := 0; i < len(signature); i++ {
		switch signature[i] {
		case 'u':
			w.Ulong(uint64(length()))
		case 'v':
			w.B = append(w.B, 3, 0)
		case 's':
			n := []int{16, 32, 64, 0, 5}[r.IntN(5)]
			w.Space("x", n)
		case 'y':
			w.Byte(byte(r.Uint32()))
		case 'a':
			i++
			switch signature[i] {
			case 'A':
				plausibleAttributes(r, w, 0)
			default:
				n := length()
				w.Byte(byte(r.IntN(3)))
				w.B = binary.BigEndian.AppendUint32(w.B, n)
				filled(n)
			}
		}
	}
	return w.B
}

// plausibleAttributes answers what the hostile case asks for.
func plausibleAttributes(r *rand.Rand, w *wiretest.Writer, depth int) {
	types := []uint32{0x3, 0x1, 0x40000600, 0x40000211, 0x161, 0x61d}
	if r.IntN(8) == 0 {
		types = types[:r.IntN(len(types))]
	}
	w.B = binary.BigEndian.AppendUint32(w.B, uint32(len(types)))
	for _, t := range types {
		w.B = binary.BigEndian.AppendUint32(w.B, t)
		w.Byte(byte(min(1, r.IntN(8))))
		lengths := []uint32{0, 1, 8, 8, 16, 24, 48, 0xffffffff}
		w.B = binary.BigEndian.AppendUint32(w.B, lengths[r.IntN(len(lengths))])
		switch t {
		case 0x1:
			w.Byte(byte(r.Uint32()))
		case 0x161:
			w.Ulong(r.Uint64())
		case 0x40000600:
			n := uint32(r.IntN(4))
			w.B = binary.BigEndian.AppendUint32(w.B, n)
			for range n {
				w.Ulong(r.Uint64())
			}
		case 0x40000211:
			if depth < 12 && r.IntN(2) == 0 {
				plausibleAttributes(r, w, depth+1)
			} else {
				w.B = binary.BigEndian.AppendUint32(w.B, uint32(r.IntN(3)))
			}
		default:
			n := []uint32{0, 8, 16, 200, 0xffffffff}[r.IntN(5)]
			w.B = binary.BigEndian.AppendUint32(w.B, n)
			for range min(n, 200) {
				w.Byte(byte(r.Uint32()))
			}
		}
	}
}

// TestHostile: whatever a server sends, the module does not crash, hang, or
// write where it should not, which the address sanitizer watches.
func TestHostile(t *testing.T) {
	t.Parallel()
	b := compile(t, addressSanitizer)
	header := func(code, options, body uint32) []byte {
		h := binary.BigEndian.AppendUint32(nil, code)
		h = binary.BigEndian.AppendUint32(h, options)
		return binary.BigEndian.AppendUint32(h, body)
	}
	liars := map[string]liar{
		"ends":         func(*rand.Rand, uint32, wire.Call) []byte { return nil },
		"garbage":      func(r *rand.Rand, _ uint32, _ wire.Call) []byte { return noise(r, 40) },
		"long body":    func(_ *rand.Rand, code uint32, _ wire.Call) []byte { return header(code, 0, 0xffffffff) },
		"long option":  func(_ *rand.Rand, code uint32, _ wire.Call) []byte { return header(code, 0xffffffff, 0) },
		"wrong code":   func(_ *rand.Rand, code uint32, call wire.Call) []byte { return honest(code+1, call, nil) },
		"no code":      func(_ *rand.Rand, _ uint32, call wire.Call) []byte { return honest(0, call, nil) },
		"wrong call":   func(_ *rand.Rand, code uint32, call wire.Call) []byte { return honest(code, call+1, nil) },
		"no values":    func(_ *rand.Rand, code uint32, call wire.Call) []byte { return honest(code, call, nil) },
		"no body":      func(_ *rand.Rand, code uint32, _ wire.Call) []byte { return header(code, 0, 0) },
		"error CKR_OK": func(_ *rand.Rand, code uint32, _ wire.Call) []byte { return refusal(code, 0) },
		"twice": func(r *rand.Rand, code uint32, call wire.Call) []byte {
			s, _ := wire.Signatures(call)
			one := honest(code, call, plausible(r, s.Response))
			return append(one, one...)
		},
		"noise in form": func(r *rand.Rand, code uint32, call wire.Call) []byte {
			return honest(code, call, noise(r, r.IntN(300)))
		},
	}
	for name, lie := range liars {
		t.Run(name, func(t *testing.T) {
			runHostile(t, b, fakeServe(t, 1, lie))
		})
		t.Run(name+" from the start", func(t *testing.T) {
			runHostile(t, b, liarServe(t, 1, lie))
		})
	}
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	for seed := range uint64(rounds) {
		t.Run(fmt.Sprint("plausible ", seed), func(t *testing.T) {
			runHostile(t, b, fakeServe(t, seed, func(r *rand.Rand, code uint32, call wire.Call) []byte {
				s, _ := wire.Signatures(call)
				if call == wire.CallOpenSession {
					return honest(code, call, make([]byte, 8))
				}
				if s.Response == "aAu" {
					w := wiretest.NewWriter(nil, wire.Own)
					plausibleAttributes(r, w, 0)
					w.Ulong([]uint64{0, 0, 0x150, 0x11, 5}[r.IntN(5)])
					return honest(code, call, w.B)
				}
				return honest(code, call, plausible(r, s.Response))
			}))
		})
	}
	for cut := range 40 {
		t.Run(fmt.Sprint("cut at ", cut), func(t *testing.T) {
			runHostile(t, b, cutServe(t, cut))
		})
	}
}

func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// cutServe sends the first n bytes of what a server says and closes.
func cutServe(t *testing.T, n int) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
				return
			}
			said := append([]byte{byte(wire.Own)}, honest(16, wire.CallInitialize, nil)...)
			said = append(said, honest(17, wire.CallGetSlotList, []byte{1, 0, 0, 0, 0})...)
			_, _ = c.Write(said[:min(n, len(said))]) // the client may have gone
			_ = c.CloseWrite()                       // likewise
			go func() {
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			}()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return socket
}

func runHostile(t *testing.T, b build, socket string) {
	t.Helper()
	c := exec.Command(b.check, b.module, "hostile")
	c.Env = append(environment(socket), "P11FS_TIMEOUT=0")
	run(t, c)
}

// TestMute: a server that greets and then says nothing is waited for as long as
// P11FS_TIMEOUT says.
func TestMute(t *testing.T) {
	t.Parallel()
	b := compile(t, "")
	over := make(chan struct{})
	defer close(over)
	c := exec.Command(b.check, b.module, "mute")
	c.Env = append(environment(liarServe(t, 1, func(*rand.Rand, uint32, wire.Call) []byte {
		<-over
		return nil
	})), "P11FS_TIMEOUT=1")
	run(t, c)
}

// TestVersion: a server that does not speak the module's protocol is refused.
func TestVersion(t *testing.T) {
	t.Parallel()
	b := compile(t, "")
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // nothing hangs on it
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte{2}) // what stock answers
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
	}()
	c := exec.Command(b.check, b.module, "version")
	c.Env = environment(socket)
	run(t, c)
}
