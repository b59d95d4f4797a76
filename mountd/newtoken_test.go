package mountd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"p11fs/engine"
	"p11fs/p11"
)

// tokensHere are the tokens that a daemon would serve.
func tokensHere(t *testing.T, c Config) string {
	t.Helper()
	slots, _, err := c.Slots()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range slots {
		names = append(names, s.label())
	}
	return strings.Join(names, " ")
}

// begun is a token that was made and not committed.
func begun(t *testing.T, c Config, name string) *NewToken {
	t.Helper()
	n, err := c.NewToken(t.Context(), name, "", false, false)
	if err != nil {
		t.Fatal(err)
	}
	made, err := n.Make(t.Context(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := made.Close(); err != nil {
		t.Fatal(err)
	}
	return n
}

func commit(t *testing.T, n *NewToken) {
	t.Helper()
	if err := errors.Join(n.Commit(), n.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestNewToken makes tokens with and without a configuration: a maker that is killed leaves
// what was there before.
func TestNewToken(t *testing.T) {
	for name, conf := range map[string]string{"directories": "", "configuration": "slot 0\n{\nstdll = libpkcs11_sw.so\ntokname = swtok\n}\n"} {
		t.Run(name, func(t *testing.T) {
			c := userConfig(tempDir(t))
			if conf != "" {
				if err := os.WriteFile(c.Paths.Config, []byte(conf), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.MkdirAll(filepath.Join(c.Paths.Data, "swtok"), 0o700); err != nil {
				t.Fatal(err)
			}
			for _, bad := range []string{"", ".", "a/b", "a b", "1a", "status", "events", "-x", strings.Repeat("a", 51)} {
				if n, err := c.NewToken(t.Context(), bad, "", false, false); err == nil {
					t.Errorf("%q is a name: %v", bad, n.Close())
				}
			}
			killed := begun(t, c, "work")
			if got := tokensHere(t, c); got != "swtok" {
				t.Errorf("a token that is being made: %s", got)
			}
			_ = killed.unlock() // as the kernel does
			n := begun(t, c, "work")
			if left, _ := filepath.Glob(filepath.Join(c.Paths.Data, newPrefix+"*")); len(left) != 1 {
				t.Errorf("%q are left", left)
			}
			commit(t, n)
			if got := tokensHere(t, c); got != "swtok work" {
				t.Errorf("with the new one: %s", got)
			}
			if _, err := c.NewToken(t.Context(), "work", "", false, false); err == nil {
				t.Error("a second one of the name")
			}
			aside, err := c.RemoveToken(t.Context(), "work", func() error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			if got := tokensHere(t, c); got != "swtok" {
				t.Errorf("without it: %s", got)
			}
			if _, err := os.Stat(filepath.Join(aside, "NVTOK.DAT")); err != nil {
				t.Errorf("what is moved aside: %v", err)
			}
			if err := os.Rename(aside, filepath.Join(c.Paths.Data, "work")); err != nil {
				t.Fatal(err)
			}
			if n, err = c.NewToken(t.Context(), "work", "", false, true); err != nil {
				t.Fatal(err)
			}
			commit(t, n)
			if got := tokensHere(t, c); got != "swtok work" {
				t.Errorf("moved back: %s", got)
			}
		})
	}
}

// TestNewTokensAtOnce: one at a time is made or removed.
func TestNewTokensAtOnce(t *testing.T) {
	c := userConfig(tempDir(t))
	n := begun(t, c, "work")
	who := fmt.Sprintf("process %d of uid %d, which is called ", os.Getpid(), os.Getuid())
	if _, err := c.NewToken(t.Context(), "work", "", false, false); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), who) {
		t.Errorf("another at once: %v", err)
	}
	commit(t, n)
}

// TestNewTokenTakenBack: where the configuration cannot be written nothing is left.
func TestNewTokenTakenBack(t *testing.T) {
	c := userConfig(tempDir(t))
	const conf = "slot 0\n{\nstdll = libpkcs11_sw.so\n}\nnonsense\n"
	if err := os.WriteFile(c.Paths.Config, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	n := begun(t, c, "work")
	if err := n.Commit(); err == nil {
		t.Error("a slot that nobody reads")
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if b, _ := os.ReadFile(c.Paths.Config); string(b) != conf {
		t.Errorf("the configuration is %q", b)
	}
	for _, dir := range []string{c.Paths.Data, c.Paths.Locks} {
		if left, _ := filepath.Glob(filepath.Join(dir, "*work*")); len(left) != 0 {
			t.Errorf("%q are left", left)
		}
	}
}

// TestTokensComeAndGo has a daemon take tokens into service and out of it.
func TestTokensComeAndGo(t *testing.T) {
	needFUSE(t)
	ctx := t.Context()
	c := userConfig(tempDir(t))
	d := start(t, c)
	me := engine.Owner{UID: uint32(os.Geteuid())}
	if err := d.control(ctx, me, "add work"); err == nil {
		t.Error("a token comes that is not there")
	}
	for _, bad := range []string{"", "add", "remove", "add a b", "remove swtok now", "frobnicate swtok"} {
		if err := d.control(ctx, me, bad); p11.RVOf(err) != p11.CKR_ARGUMENTS_BAD {
			t.Errorf("%q: %v", bad, err)
		}
	}
	var inode uint64
	for range 2 {
		commit(t, begun(t, c, "work"))
		if err := d.control(ctx, me, "add work"); err != nil {
			t.Fatal(err)
		}
		if err := d.control(ctx, me, "add work"); err == nil {
			t.Error("it comes twice")
		}
		if text := cat(t, c.Paths.Mount, "slots"); !strings.Contains(text, "1 work swtok") {
			t.Errorf("slots: %s", text)
		}
		if text := cat(t, c.Paths.Mount, "work", "info"); !strings.Contains(text, "flags: ") {
			t.Errorf("info: %s", text)
		}
		st, err := os.Stat(filepath.Join(c.Paths.Mount, "work"))
		if err != nil {
			t.Fatal(err)
		}
		if n := st.Sys().(*syscall.Stat_t).Ino; n == inode {
			t.Error("another token has the inode of the one before")
		} else {
			inode = n
		}
		slot, err := d.engine.SlotNamed("work")
		if err != nil {
			t.Fatal(err)
		}
		app := d.engine.NewApplication(engine.Owner{UID: 4711}, engine.ForPrograms)
		if _, err := app.OpenSession(ctx, slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION); err != nil {
			t.Fatal(err)
		}
		if err := d.control(ctx, me, "remove work"); err != nil {
			t.Fatal(err)
		}
		app.Close()
		if err := d.control(ctx, me, "remove work"); p11.RVOf(err) != p11.CKR_SLOT_ID_INVALID {
			t.Errorf("it goes twice: %v", err)
		}
		if _, err := os.Stat(filepath.Join(c.Paths.Mount, "work")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("its folder: %v", err)
		}
		if _, err := c.RemoveToken(ctx, "work", func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := d.control(ctx, me, "remove swtok"); err == nil {
		t.Error("a daemon that has ended takes orders")
	}
}
