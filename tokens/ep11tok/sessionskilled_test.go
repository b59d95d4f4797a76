package ep11tok

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/card"
	"p11fs/tokens/tokentest"
)

// killEnv has TestSessionsKilled be the process that is killed: it names a directory, and the
// moment.
const killEnv = "P11FS_EP11TOK_KILL"

// moments are calls of cards about which a process is killed.
func moments() []string {
	return []string{"m_Login", "m_GenerateKey", "m_SignSingle", "m_Logout"}
}

// A killer ends this process before or after the nth of these calls.
type killer struct {
	card.Transport
	left  atomic.Int64
	after bool
}

func (k *killer) Call(ctx context.Context, c *card.Call) error {
	at := false
	for _, m := range moments() {
		at = at || c.Function.Name == m
	}
	if at = at && k.left.Add(-1) == 0; at && !k.after {
		killed()
	}
	err := k.Transport.Call(ctx, c)
	if at && k.after {
		killed()
	}
	return err
}

func killed() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// live is what the process does until it is killed.
func live(t *testing.T, how string) {
	var n int64
	var after bool
	var dir string
	if _, err := fmt.Sscanf(how, "%d %t %s", &n, &after, &dir); err != nil {
		t.Fatal(err)
	}
	k := &killer{Transport: openCard(t, filepath.Join(dir, "card")), after: after}
	k.left.Store(n)
	h := &house{T: t, token: bed{via: k, conf: bothModes}.token(t, dir)}
	l, ctx := h.login()
	for _, text := range []string{"token=false private=true", "token=true private=true"} {
		if err := h.sign(h.must(ctx, text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSessionsKilled kills a process whose keys are bound to logins before and after each call
// that has to do with them: after the next login and logout nothing of it is left.
func TestSessionsKilled(t *testing.T) {
	if how := os.Getenv(killEnv); how != "" {
		live(t, how)
		return
	}
	t.Parallel()
	via, cards := softCard(t)
	dir := filepath.Dir(cards)
	h := newHouse(t, bed{via: via, conf: bothModes}, dir)
	h.cards = cards
	for n := int64(1); ; n++ {
		for _, after := range []bool{false, true} {
			what := fmt.Sprintf("%d %t %s", n, after, dir)
			err := again(t, "TestSessionsKilled", killEnv+"="+what)
			var exit *exec.ExitError
			if err == nil {
				if n < 8 {
					t.Fatalf("it makes %d calls, which are too few", n-1)
				}
				return
			}
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("%s: %v", what, err)
			}
			l, _ := h.login()
			found, err := h.Find(t.Context(), p11.Attributes{{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_SECRET_KEY)}}, true)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range found {
				if err := h.sign(k); err != nil {
					t.Errorf("%s: a key in the token: %v", what, err)
				}
			}
			h.wants(2, 1)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if l, err = h.Store.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN)); err != nil {
				t.Fatal(err)
			}
			h.wants(0, 0)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// again runs a test in another process, which is told how.
func again(t *testing.T, test, how string) (err error) {
	t.Helper()
	for _, args := range [][]string{{os.Args[0]}, {"qemu-" + runtime.GOARCH + "-static", os.Args[0]}} {
		var said strings.Builder
		cmd := exec.Command(args[0], append(args[1:], "-test.run=^"+test+"$")...)
		cmd.Env = append(os.Environ(), how, "TMPDIR="+t.TempDir()) // what it leaves goes with ours
		cmd.Stdout, cmd.Stderr = &said, &said
		if err = cmd.Run(); !errors.Is(err, syscall.ENOEXEC) {
			if err != nil && said.Len() > 0 {
				t.Logf("it says %s", &said)
			}
			return err
		}
	}
	return err
}
