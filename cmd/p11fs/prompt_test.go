package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/secret"
)

// openTerminal returns the two ends of a pseudo-terminal.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("needs a pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { _ = master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slave.Close() })
	return master, slave
}

// echoes says whether the terminal shows what is typed.
func echoes(t *testing.T, f *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

func waitNoEcho(t *testing.T, f *os.File) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); echoes(t, f); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the terminal goes on showing what is typed")
		}
	}
}

func text(t *testing.T, pin *secret.Bytes) (s string) {
	t.Helper()
	pin.Use(func(b []byte) { s = string(b) })
	return s
}

func TestAskTerminal(t *testing.T) {
	type answer struct {
		pin *secret.Bytes
		err error
	}
	t.Run("without echo", func(t *testing.T) {
		master, slave := openTerminal(t)
		if _, err := master.WriteString("cat $T/login\n"); err != nil { // pasted with the command
			t.Fatal(err)
		}
		var said bytes.Buffer
		got := make(chan answer, 1)
		go func() {
			pin, err := newAsker(streams{in: slave, out: &said, err: &said}).secret(t.Context(), "PIN")
			got <- answer{pin, err}
		}()
		waitNoEcho(t, slave)
		if _, err := master.WriteString("1234abcd\n"); err != nil {
			t.Fatal(err)
		}
		a := <-got
		if a.err != nil || text(t, a.pin) != "1234abcd" {
			t.Errorf("got %q, %v", text(t, a.pin), a.err)
		}
		if !echoes(t, slave) {
			t.Error("the terminal was left without echo")
		}
		if said.String() != "PIN: \n" {
			t.Errorf("it said %q", said.String())
		}
	})
	t.Run("twice for a new one", func(t *testing.T) {
		for typed, want := range map[string]string{"one\none\n": "", "one\ntwo\n": "differ"} {
			master, slave := openTerminal(t)
			var said bytes.Buffer
			got := make(chan answer, 1)
			go func() {
				pin, err := newAsker(streams{in: slave, out: &said, err: &said}).newSecret(t.Context(), "PIN")
				got <- answer{pin, err}
			}()
			waitNoEcho(t, slave)
			if _, err := master.WriteString(typed); err != nil {
				t.Fatal(err)
			}
			a := <-got
			if (want == "") != (a.err == nil) || a.err != nil && !strings.Contains(a.err.Error(), want) {
				t.Errorf("typed %q: %v, want %q", typed, a.err, want)
			}
		}
	})
	t.Run("Ctrl-D ends it", func(t *testing.T) {
		master, slave := openTerminal(t)
		got := make(chan answer, 1)
		go func() {
			pin, err := newAsker(streams{in: slave, out: &bytes.Buffer{}, err: &bytes.Buffer{}}).secret(t.Context(), "PIN")
			got <- answer{pin, err}
		}()
		waitNoEcho(t, slave)
		if _, err := master.WriteString("\x04"); err != nil {
			t.Fatal(err)
		}
		if a := <-got; a.err == nil || !strings.Contains(a.err.Error(), "no PIN was given") {
			t.Errorf("got %v", a.err)
		}
		if !echoes(t, slave) {
			t.Error("the terminal was left without echo")
		}
	})
	t.Run("an interrupt restores the echo", func(t *testing.T) {
		master, slave := openTerminal(t)
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan answer, 1)
		go func() {
			pin, err := newAsker(streams{in: slave, out: &bytes.Buffer{}, err: &bytes.Buffer{}}).secret(ctx, "PIN")
			got <- answer{pin, err}
		}()
		waitNoEcho(t, slave)
		cancel()
		if a := <-got; !errors.Is(a.err, context.Canceled) {
			t.Errorf("got %v", a.err)
		}
		if !echoes(t, slave) {
			t.Error("the terminal was left without echo")
		}
		// Lets the reader that stayed behind go.
		if _, err := master.WriteString("\n"); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("a signal that else ends the process restores the echo", func(t *testing.T) {
		for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGQUIT} {
			master, slave := openTerminal(t)
			got := make(chan answer, 1)
			go func() {
				pin, err := newAsker(streams{in: slave, out: &bytes.Buffer{}, err: &bytes.Buffer{}}).secret(t.Context(), "PIN")
				got <- answer{pin, err}
			}()
			waitNoEcho(t, slave)
			if err := unix.Kill(os.Getpid(), sig); err != nil {
				t.Fatal(err)
			}
			if a := <-got; exitCode(a.err) != exitInterrupted {
				t.Errorf("%v: got %v", sig, a.err)
			}
			if !echoes(t, slave) {
				t.Errorf("%v: the terminal was left without echo", sig)
			}
			if _, err := master.WriteString("\n"); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("an interrupt ends the wait for text", func(t *testing.T) {
		master, slave := openTerminal(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := newAsker(streams{in: slave, out: &bytes.Buffer{}, err: &bytes.Buffer{}}).text(ctx, "label")
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if _, err := master.WriteString("\n"); err != nil {
			t.Fatal(err)
		}
	})
}

// TestAskBeforeInit: only the name of the token, typed, destroys what is in it.
func TestAskBeforeInit(t *testing.T) {
	for typed, want := range map[string]bool{"swtok": true, "y": false, "": false} {
		master, slave := openTerminal(t)
		if _, err := master.WriteString(typed + "\n"); err != nil {
			t.Fatal(err)
		}
		var said bytes.Buffer
		err := mayDestroy(t.Context(), newAsker(streams{in: slave, out: &said, err: &said}), "swtok")
		if (err == nil) != want || !strings.Contains(said.String(), "Type swtok to destroy") {
			t.Errorf("%q typed: %v; it asked %q", typed, err, said.String())
		}
	}
}

// TestPINOfAFile: what an editor of another system adds is no part of a PIN.
func TestPINOfAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(path, []byte("\xef\xbb\xbf1234\r\nnext\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	pin, err := secretFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer pin.Close()
	if got := text(t, pin); got != "1234" {
		t.Errorf("%q", got)
	}
	in, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	fromInput, err := newAsker(streams{in: in, out: &bytes.Buffer{}, err: &bytes.Buffer{}}).secret(t.Context(), "PIN")
	if err != nil {
		t.Fatal(err)
	}
	defer fromInput.Close()
	if got := text(t, fromInput); got != "1234" {
		t.Errorf("from standard input: %q", got)
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte{'a'}, maxLine+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := secretFile(path); err == nil {
		t.Error("a line that is cut off is a PIN")
	}
}
