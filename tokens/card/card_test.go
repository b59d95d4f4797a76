package card

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	"p11fs/p11"
)

// A scripted Transport answers as its function says.
type scripted func(ctx context.Context, c *Call) error

func (f scripted) Call(ctx context.Context, c *Call) error { return f(ctx, c) }
func (scripted) Close() error                              { return nil }

// serve has a Server answer for via, and returns the socket and what ends it.
func serve(t *testing.T, path string, via Transport) (stop func()) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		s := &Server{ABI: EP11, Card: via, Log: slog.New(slog.DiscardHandler)}
		done <- s.Serve(ctx, l)
	}()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func dial(t *testing.T, path string) Transport {
	t.Helper()
	via := Dial(path, EP11)
	t.Cleanup(func() {
		if err := via.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return via
}

func randomBytes(r *rand.Rand, most int) []byte {
	b := make([]byte, r.IntN(most+1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// randomCall makes a call with random arguments: output asks for lengths, short of room or
// with enough of it.
func randomCall(r *rand.Rand, f *Function) *Call {
	c := &Call{Function: f}
	for range r.IntN(4) {
		c.Target = append(c.Target, APQN{uint16(r.Uint32()), uint16(r.Uint32())})
	}
	for _, k := range f.Args {
		var a Arg
		switch k {
		case Number, Counter:
			a.Number = r.Uint64()
		case Bytes, InOut:
			if a.Bytes = randomBytes(r, 300); r.IntN(4) == 0 && k == Bytes {
				a.Bytes = nil
			}
			if k == InOut {
				a.Room = uint64(len(a.Bytes))
			}
		case Output, Numbers:
			a.Room, a.Query = uint64(r.IntN(200)), r.IntN(4) == 0
		case Mechanism:
			mechs := []p11.MechanismType{p11.CKM_RSA_PKCS_PSS, p11.CKM_RSA_PKCS_OAEP, p11.CKM_ECDH1_DERIVE, p11.CKM_AES_CBC, p11.CKM_SHA256, p11.CKM_AES_GCM, 0x80020005}
			t := mechs[r.IntN(len(mechs))]
			if a.Mechanism = (&p11.Mechanism{Type: t, Param: p11.SampleParam(t)}); r.IntN(8) == 0 {
				a.Mechanism = nil
			}
		case Attributes:
			a.Attributes = p11.Attributes{
				{Type: p11.CKA_CLASS, Value: p11.Ulong(r.Uint64())},
				{Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(r.Uint64())},
				{Type: p11.CKA_LABEL, Value: randomBytes(r, 20)},
				{Type: p11.CKA_IBM_USE_AS_DATA, Value: p11.Bool(true)},
			}[:1+r.IntN(4)]
		case Wanted:
			a.Want = []WantedValue{{Type: p11.CKA_SIGN, Room: 1}, {Type: p11.CKA_VALUE_LEN, Room: 8}, {Type: p11.CKA_LABEL, Room: 4}, {Type: p11.CKA_IBM_OPAQUE, Room: 4}}
		}
		c.Args = append(c.Args, a)
	}
	return c
}

// copyOf is the call before it is made.
func copyOf(c *Call) *Call {
	other := *c
	other.Args = append([]Arg{}, c.Args...)
	return &other
}

// answerFrom makes up an answer that depends on nothing but the call.
func answerFrom(seed uint64, c *Call) {
	r := rand.New(rand.NewPCG(seed, uint64(c.Function.Number)))
	fits := true
	for i, k := range c.Function.Args {
		a := &c.Args[i]
		switch k {
		case Counter:
			a.Count(a.Number + 1)
		case Output:
			fits = a.Give(randomBytes(r, 120)) && fits
		case InOut:
			b := append([]byte{}, a.Bytes...)
			for i := range b {
				b[i] ^= 0xff
			}
			fits = a.Give(b) && fits
		case Numbers:
			fits = a.GiveNumbers([]uint64{r.Uint64(), 1, 2}[:1+r.IntN(3)]) && fits
		case Wanted:
			fits = a.GiveAttributes(p11.Attributes{{Type: p11.CKA_SIGN, Value: p11.Bool(true)}, {Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(uint64(32))}}) && fits
		}
	}
	if !fits {
		c.Return = uint64(p11.CKR_BUFFER_TOO_SMALL)
	}
}

// TestSocket makes each call with random arguments directly and through a socket: what
// arrives and what comes back are the same.
func TestSocket(t *testing.T) {
	const rounds = 40
	var got *Call
	var seed uint64
	path := filepath.Join(t.TempDir(), "card")
	serve(t, path, scripted(func(_ context.Context, c *Call) error {
		// What arrives is wiped.
		got = copyOf(c)
		for i := range got.Args {
			if b := got.Args[i].Bytes; b != nil {
				got.Args[i].Bytes = append([]byte{}, b...)
			}
			if a := got.Args[i].Attributes; a != nil {
				got.Args[i].Attributes = a.Clone()
			}
		}
		answerFrom(seed, c)
		return nil
	}))
	via := dial(t, path)
	r := rand.New(rand.NewPCG(1, 2))
	for _, f := range Functions(EP11) {
		for range rounds {
			c := randomCall(r, f)
			want, direct := copyOf(c), copyOf(c)
			want.Order = NativeOrder()
			seed = r.Uint64()
			if err := via.Call(t.Context(), c); err != nil {
				t.Fatalf("%s: %v", f.Name, err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%s arrived as %+v, not %+v", f.Name, got, want)
			}
			if answerFrom(seed, direct); !reflect.DeepEqual(c, direct) {
				t.Fatalf("%s: the answer is %+v, directly %+v", f.Name, c, direct)
			}
		}
	}
}

// TestRestart has a server go and come.
func TestRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "card")
	ok := scripted(func(context.Context, *Call) error { return nil })
	ask := func(via Transport) error {
		return via.Call(t.Context(), &Call{Function: FunctionOf(EP11, 2), Args: []Arg{{Bytes: []byte("seed")}}})
	}
	via := dial(t, path)
	if err := ask(via); !errors.Is(err, p11.CKR_DEVICE_REMOVED) {
		t.Fatalf("without a server: %v", err)
	}
	stop := serve(t, path, ok)
	for range 3 {
		if err := ask(via); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if err := ask(via); !errors.Is(err, p11.CKR_DEVICE_REMOVED) {
		t.Fatalf("after the server ended: %v", err)
	}
	stop = serve(t, path, ok)
	if err := ask(via); err != nil {
		t.Fatalf("with a new server: %v", err)
	}
	stop()
	serve(t, path, ok)
	if err := ask(via); err != nil { // over a connection of the one before
		t.Fatalf("with another one: %v", err)
	}
}

// TestCancel ends a call that waits for the card, and one that waits for its turn.
func TestCancel(t *testing.T) {
	path := filepath.Join(t.TempDir(), "card")
	asked := make(chan struct{}, 2*maxConnections)
	release := make(chan struct{})
	serve(t, path, scripted(func(context.Context, *Call) error {
		asked <- struct{}{}
		<-release
		return nil
	}))
	via := dial(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan error, maxConnections+1)
	for range maxConnections + 1 {
		go func() {
			results <- via.Call(ctx, &Call{Function: FunctionOf(EP11, 2), Args: []Arg{{}}})
		}()
	}
	for range maxConnections {
		<-asked
	}
	cancel()
	for range maxConnections + 1 {
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Errorf("a cancelled call: %v", err)
		}
	}
	close(release)
	if err := via.Call(t.Context(), &Call{Function: FunctionOf(EP11, 2), Args: []Arg{{}}}); err != nil {
		t.Errorf("the call after: %v", err)
	}
}

// TestHostile sends what none of ours sends: the connection ends, and the server serves on.
func TestHostile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "card")
	serve(t, path, scripted(func(context.Context, *Call) error { return nil }))
	greeting := []byte("\x00\x00\x00\x10" + magic + "\x00\x02\x01\x01\x00\x00\x00\x07")
	for name, frames := range map[string][]byte{
		"no magic":         []byte("\x00\x00\x00\x10somebody\x00\x02\x01\x01\x00\x00\x00\x07"),
		"other version":    []byte("\x00\x00\x00\x10" + magic + "\x00\x01\x01\x01\x00\x00\x00\x07"),
		"other ABI":        []byte("\x00\x00\x00\x10" + magic + "\x00\x02\xff\x01\x00\x00\x00\x07"),
		"long frame":       append(append([]byte{}, greeting...), 0xff, 0, 0, 0),
		"unknown function": append(append([]byte{}, greeting...), 0, 0, 0, 8, 0, 0, 0xff, 0xff, 0, 0, 0, 0),
		"cut call":         append(append([]byte{}, greeting...), 0, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 0),
		"long target":      append(append([]byte{}, greeting...), 0, 0, 0, 8, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff),
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write(frames); err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Now().Add(time.Minute))
			for {
				if _, err := c.Read(make([]byte, 100)); err != nil {
					if errors.Is(err, net.ErrClosed) || errors.Is(err, errTimeout(err)) {
						t.Errorf("the connection goes on: %v", err)
					}
					return
				}
			}
		})
	}
	if err := dial(t, path).Call(t.Context(), &Call{Function: FunctionOf(EP11, 2), Args: []Arg{{}}}); err != nil {
		t.Error(err)
	}
}

// errTimeout returns err if it is one of a deadline, and what no error is otherwise.
func errTimeout(err error) error {
	var e net.Error
	if errors.As(err, &e) && e.Timeout() {
		return err
	}
	return errors.New("none")
}

// TestRefused is of a call in a good frame that no card is asked about.
func TestRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "card")
	serve(t, path, scripted(func(context.Context, *Call) error { return errors.New("asked") }))
	c := randomCall(rand.New(rand.NewPCG(3, 4)), FunctionOf(EP11, 30))
	twice := p11.Attribute{Type: p11.CKA_TOKEN, Value: p11.Bool(true)}
	c.Args[1].Attributes = p11.Attributes{twice, twice}
	if err := dial(t, path).Call(t.Context(), c); err != nil || p11.RV(c.Return) != p11.CKR_TEMPLATE_INCONSISTENT {
		t.Errorf("%v, %v", err, p11.RV(c.Return))
	}
}

// TestLarge sends the longest frame, and one that is longer.
func TestLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "card")
	serve(t, path, scripted(func(_ context.Context, c *Call) error {
		c.Return = uint64(len(c.Args[0].Bytes))
		return nil
	}))
	via := dial(t, path)
	const most = MaxFrame - 4 - 4 - 4
	c := &Call{Function: FunctionOf(EP11, 2), Args: []Arg{{Bytes: make([]byte, most)}}}
	if err := via.Call(t.Context(), c); err != nil || c.Return != most {
		t.Errorf("%v, %d bytes", err, c.Return)
	}
	c.Args[0].Bytes = append(c.Args[0].Bytes, 0)
	if err := via.Call(t.Context(), c); !errors.Is(err, p11.CKR_DATA_LEN_RANGE) {
		t.Errorf("a frame that is too long: %v", err)
	}
}

// FuzzFrame reads requests: what is read is written and read the same.
func FuzzFrame(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, abi := range []ABI{EP11, CCA} {
		for _, fn := range Functions(abi) {
			w := newWriter()
			c := randomCall(r, fn)
			c.request(w)
			f.Add(byte(abi), w.b[4:], w.b[8:])
			w = newWriter()
			answerFrom(7, c)
			c.answer(w)
			f.Add(byte(abi), binary.BigEndian.AppendUint32(nil, fn.Number), w.b[4:])
		}
	}
	f.Fuzz(func(t *testing.T, which byte, frame, answer []byte) {
		abi := ABI(which)
		c, err := readRequest(abi, frame)
		if c == nil {
			return
		}
		if err != nil && !errors.Is(err, errMalformed) && p11.RVOf(err) == p11.CKR_GENERAL_ERROR {
			t.Errorf("%v has no return value", err)
		}
		if err == nil {
			w := newWriter()
			if c.request(w); w.err != nil {
				t.Fatalf("%+v cannot be written: %v", c, w.err)
			}
			again, err := readRequest(abi, w.b[4:])
			if err != nil || !reflect.DeepEqual(c, again) {
				t.Errorf("%+v, again %+v, %v", c, again, err)
			}
		}
		if err := c.readAnswer(answer); err == nil {
			w := newWriter()
			c.answer(w)
			if err := copyOf(c).readAnswer(w.b[4:]); err != nil {
				t.Errorf("the answer %x, again %x: %v", answer, w.b[4:], err)
			}
		}
	})
}
