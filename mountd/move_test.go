package mountd

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/swtok"
)

// A markedUpkeep marks the directory that it restores, as a kind does whose tokens are told by
// what is in it.
type markedUpkeep struct {
	tokens.Upkeep
	dir  string
	fail error
}

func (u markedUpkeep) Restore(ctx context.Context, r io.Reader, replace bool, before func() error) error {
	if err := u.Upkeep.Restore(ctx, r, replace, before); err != nil {
		return err
	}
	return errors.Join(u.fail, os.WriteFile(filepath.Join(u.dir, "mark"), nil, 0o600))
}

// marked is a kind to which tokens can be moved, with what the next restore fails with.
func marked(fail *error) tokens.Kind {
	k := swtok.NewKind(swtok.GoProvider())
	k.Name, k.Library, k.OwnFormat, k.Files = "marked", "libmarked", nil, []string{"mark"}
	upkeep := k.Upkeep
	k.Made = func(dir string) bool { _, err := os.Lstat(filepath.Join(dir, "mark")); return err == nil }
	k.Upkeep = func(p tokens.Place) tokens.Upkeep { return markedUpkeep{upkeep(p), p.Dir, *fail} }
	return k
}

// TestMove moves a token to another kind and back, with and without a configuration. One that
// fails, or is ended before the last step, leaves the token as it was.
func TestMove(t *testing.T) {
	for name, conf := range map[string]string{"directories": "", "configuration": "slot 0\n{\nstdll = libnone.so\n}\nslot 3\n{\nstdll = libpkcs11_sw.so\ntokname = work\ntokversion = 3.12\n}\n"} {
		t.Run(name, func(t *testing.T) {
			var fail error
			c := userConfig(tempDir(t))
			c.Kinds = []tokens.Kind{swtok.NewKind(swtok.GoProvider()), marked(&fail)}
			if conf != "" {
				if err := os.WriteFile(c.Paths.Config, []byte(conf), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			made, err := c.Make(t.Context(), "work", nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			so, err := secret.New([]byte(tokens.DefaultSOPIN))
			if err != nil {
				t.Fatal(err)
			}
			defer so.Close()
			if err := errors.Join(made.InitToken(t.Context(), so, "moved"), made.Close()); err != nil {
				t.Fatal(err)
			}
			free := func() error { return nil }
			move := func(kind string, out func() error) error {
				t.Helper()
				_, err := c.Move(t.Context(), Move{Token: "work", Kind: kind, OutOfService: out})
				return err
			}
			is := func(kind string) {
				t.Helper()
				u, err := c.OpenUpkeep("work", false)
				if err != nil {
					t.Fatal(err)
				}
				st, err := u.State()
				if u.Slot.Kind.Name != kind || err != nil || st.Label != "moved" || conf != "" && u.Slot.ID != 3 {
					t.Errorf("it is of the kind %s, not %s, in slot %d: %+v, %v", u.Slot.Kind.Name, kind, u.Slot.ID, st, err)
				}
				if err := u.Close(); err != nil {
					t.Error(err)
				}
			}
			busy := errors.New("somebody is logged in")
			if err := move("marked", func() error { return busy }); !errors.Is(err, busy) {
				t.Error(err)
			}
			fail = errors.New("killed")
			if err := move("marked", free); !errors.Is(err, fail) {
				t.Error(err)
			}
			if err := move("nothing", free); err == nil {
				t.Error("it moves to no kind")
			}
			is("swtok")
			fail = nil
			if err := move("marked", free); err != nil {
				t.Fatal(err)
			}
			is("marked")
			if err := move("marked", free); err == nil || !strings.Contains(err.Error(), "already") {
				t.Errorf("it is there: %v", err)
			}
			if err := move("swtok", free); err != nil {
				t.Fatal(err)
			}
			is("swtok")
		})
	}
}

// TestExchangeBesideDaemon: a token of which nothing is in the directory is replaced while a
// daemon serves it, and keeps its line in the configuration; another one is not.
func TestExchangeBesideDaemon(t *testing.T) {
	c := userConfig(tempDir(t))
	c.Kinds = []tokens.Kind{swtok.NewKind(swtok.GoProvider()), marked(new(error))}
	const conf = "slot 0\n{\nstdll = libpkcs11_sw.so\ntokname = work\ntokversion = 3.12\n}\nslot 1\n{\nstdll = libmarked.so\ntokname = far\n}\n"
	if err := os.WriteFile(c.Paths.Config, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(c.Paths.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	release, err := guardDirectory(t.Context(), c.Paths.Data, "serves")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := release(); err != nil {
			t.Error(err)
		}
	}()
	for name, want := range map[string]error{"work": ErrBusy, "far": nil} {
		u, err := c.OpenUpkeep(name, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := u.Exchange(t.Context()); !errors.Is(err, want) {
			t.Errorf("%s: %v, not %v", name, err, want)
		}
		if err := u.Close(); err != nil {
			t.Error(err)
		}
		if name == "work" {
			continue
		}
		if _, err := u.Declare(p11.Version{}); err != nil {
			t.Error(err)
		}
		if now, err := os.ReadFile(c.Paths.Config); err != nil || string(now) != conf {
			t.Errorf("%v: the configuration is now\n%s", err, now)
		}
	}
}
