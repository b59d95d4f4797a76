package softcca

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cca"
)

// serve has the domain at a socket, and returns who calls it there.
func serve(t testing.TB, d testDomain) card.Transport {
	t.Helper()
	path := filepath.Join(t.TempDir(), "card")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		s := &card.Server{ABI: card.CCA, Card: d.Cards, Log: slog.New(slog.DiscardHandler)}
		done <- s.Serve(ctx, l)
	}()
	via := card.Dial(path, card.CCA)
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(via.Close(), <-done); err != nil {
			t.Error(err)
		}
	})
	return via
}

// TestSocket makes and uses keys over a socket, with what errors are there.
func TestSocket(t *testing.T) {
	d, ctx := newDomain(t), t.Context()
	via := serve(t, d)
	for _, s := range samples(t, d) {
		want := must[[]byte](t)(s.use(d, s.token))
		switch s.name {
		case "aes":
			text := bytes.Repeat([]byte("sixteen bytes ok"), 4)
			if _, got, err := cca.CSNBSAE(ctx, via, nil, rules("AES", "KEYIDENT", "INITIAL"), s.token, 0, text[:16], text, nil); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%x, %v", got, err)
			}
		case "hmac":
			text := bytes.Repeat([]byte("sixteen bytes ok"), 4)
			if _, got, err := cca.CSNBHMG(ctx, via, nil, rules("HMAC", "SHA-256", "ONLY"), s.token, text, make([]byte, chainSize)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%x, %v", got, err)
			}
		case "rsa":
			if got, err := cca.CSNDDSG(ctx, via, nil, rules("PKCS-1.1"), s.token, []byte("what is signed")); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%x, %v", got, err)
			}
			err := cca.CSNDDSV(ctx, via, nil, rules("PKCS-1.1"), s.token, []byte("what is signed"), want[1:])
			if !errors.Is(err, p11.CKR_SIGNATURE_INVALID) || !errors.Is(err, cca.ErrSignature) {
				t.Errorf("a wrong signature: %v", err)
			}
		}
	}
	_, _, err := cca.CSNBSAE(ctx, via, nil, rules("AES", "KEYIDENT"), make([]byte, 64), 0, nil, nil, nil)
	if !errors.Is(err, p11.CKR_DEVICE_ERROR) || !errors.Is(err, cca.ErrToken) {
		t.Errorf("no token: %v", err)
	}
	if b, err := cca.CSNBRNGL(ctx, via, nil, nil, 100); err != nil || len(b) != 100 {
		t.Errorf("%d random bytes, %v", len(b), err)
	}
	if err := d.set.SetOnline(d.apqn, false); err != nil {
		t.Fatal(err)
	}
	if _, err := cca.CSNBRNG(ctx, via, nil, rules("RANDOM")); p11.RVOf(err) != p11.CKR_DEVICE_REMOVED {
		t.Errorf("offline: %v", err)
	}
	if err := d.set.SetOnline(d.apqn, true); err != nil {
		t.Fatal(err)
	}
	if _, err := cca.CSNBRNG(ctx, via, nil, rules("RANDOM")); err != nil {
		t.Errorf("online again: %v", err)
	}
}

// FuzzCalls gives each verb anything.
func FuzzCalls(f *testing.F) {
	d := newDomain(f)
	for _, s := range samples(f, d) {
		for fn := range byte(31) {
			f.Add(fn, rules("AES", "KEYIDENT"), s.token, bytes.Repeat([]byte{1}, 64), make([]byte, 128))
		}
	}
	for _, r := range [][]byte{rules("ECC-PAIR"), rules("RTCMK"), rules("RTNMK", "HMAC"), rules("HMAC", "SHA-256", "LAST"), rules("SHA-1", "FIRST"), rules("MASTER"), rules("PKCS-1.2"), rules("STATICSB"), rules("AES", "GCM", "KEYIDENT", "ONLY"), rules("AES", "PKCSOAEP", "SHA-256"), rules("DERIV02", "KEY-AES", "SHA-256")} {
		f.Add(byte(18), r, []byte{}, []byte{}, []byte{})
	}
	f.Fuzz(func(t *testing.T, fn byte, a, b, c, e []byte) {
		fun := card.FunctionOf(card.CCA, uint32(fn))
		if fun == nil || fun.Name == "CSNDPKG" && len(b) > 200 { // makes keys, for seconds
			return
		}
		call := &card.Call{Function: fun, Args: make([]card.Arg, len(fun.Args))}
		for i := range call.Args {
			call.Args[i] = card.Arg{Bytes: [][]byte{a, b, c, e, b}[i%5], Number: uint64(len(c)), Room: 4096}
		}
		if err := d.Call(context.Background(), call); err != nil {
			t.Fatal(err)
		}
	})
}
