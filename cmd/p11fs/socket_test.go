package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p11fs/engine"
	"p11fs/mountd/rpc"
	"p11fs/tokens/tokentest/hooks"
)

// TestPINSocket sets PINs through a daemon's socket, where there is no mount: in the same
// words, with the same exit codes.
func TestPINSocket(t *testing.T) {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	e, err := engine.New(engine.Config{Log: log, Slots: []engine.SlotConfig{
		{ID: 3, Description: "p11fs swtok", Token: hooks.New("tok", hooks.Options{})},
	}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	s := rpc.New(rpc.Config{Engine: e, Log: log})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l) // ends with the listener
	}()
	t.Cleanup(func() {
		_ = l.Close()
		s.Close()
		<-done
		if st := e.Stats(); st.Sessions != 0 || st.Applications != 0 {
			t.Errorf("left behind: %+v", st)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Setenv(mountEnv, "")
	t.Setenv(socketEnv, path)
	const so, user = hooks.SOPIN, hooks.UserPIN
	for _, step := range []struct {
		args, in string
		code     int
		says     string
	}{
		{"pin swtok", user + "\n2468abcd\n", 0, ""},
		{"pin 3", user + "\nx2468abcd\n", exitAuth, "pin 3: 0x000000a0 CKR_PIN_INCORRECT: wrong user PIN: 2 tries are left: give the right PIN"},
		{"pin", "wrong-2\nx2468abcd\n", exitAuth, "wrong user PIN: 1 try is left"},
		{"pin swtok", "wrong-3\nx2468abcd\n", exitAuth, "wrong user PIN, which is locked now: the SO sets a new one: p11fs pin --unlock swtok"},
		{"pin swtok", "2468abcd\nx2468abcd\n", exitAuth, "CKR_PIN_LOCKED: the user PIN is locked after three wrong tries: "},
		{"pin --unlock swtok", "wrong-so\n2468abcd\n", exitAuth, "wrong SO PIN: 2 tries are left"},
		{"pin --unlock swtok", so + "\n2468abcd\n", 0, ""},
		{"pin swtok", "2468abcd\n13572468\n", 0, ""},
		{"pin --so swtok", so + "\n76543210\n", 0, ""},
		{"pin other", "", exitFailure, `the daemon has no token "other": name a label, or the slot, of 3 (`},
		{"init swtok", "76543210\nnew\n1234abcd\n", exitBusy, "--yes"},
		{"init swtok --yes", "76543210\nanother label\n1234abcd\n", 0, ""},
		{"pin another", "", exitFailure, "of 3 (another label)"},
		{"pin", "1234abcd\n5678abcd\n", 0, ""},
		{"pin --mount /nowhere swtok", user + "\n2468abcd\n", exitNotMounted, "/nowhere"},
	} {
		r := command(t, step.in, strings.Fields(step.args)...)
		if r.code != step.code || !strings.Contains(r.err, step.says) || (step.code == 0) != (r.err == "") {
			t.Errorf("%s: exit code %d, %q, want %d, %q", step.args, r.code, r.err, step.code, step.says)
		}
	}
	_ = l.Close()
	s.Close()
	if r := command(t, user+"\n2468abcd\n", "pin", "swtok"); r.code == 0 {
		t.Error("a PIN is set by a daemon that has ended")
	}
}

// TestMuteSocket: a command that waits for a daemon whose socket is named, and which hangs,
// can be interrupted, and then says that alone.
func TestMuteSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv(mountEnv, "")
	t.Setenv(socketEnv, path)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	var out bytes.Buffer
	s := streams{in: os.Stdin, out: &out, err: &out}
	err = run(ctx, []string{"pin", "swtok"}, s)
	report(s, err)
	if exitCode(err) != exitInterrupted || out.String() != "p11fs: interrupted\n" {
		t.Errorf("it ended with %v, and said %q", err, out.String())
	}
}
