package mountd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

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

// moveConfs are the configurations with which tokens are moved: none, and one that lists it.
func moveConfs() map[string]string {
	return map[string]string{"directories": "", "configuration": "slot 0\n{\nstdll = libnone.so\n}\nslot 3\n{\nstdll = libpkcs11_sw.so\ntokname = work\ntokversion = 3.12\n}\n"}
}

// moveConfig is a user's below dir, whose tokens move to the kind marked.
func moveConfig(dir string, fail *error) Config {
	c := userConfig(dir)
	c.Kinds = []tokens.Kind{swtok.NewKind(swtok.GoProvider()), marked(fail)}
	return c
}

// makeMoving makes the token that is to be moved.
func makeMoving(t *testing.T, c Config, conf string) {
	t.Helper()
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
}

// movedTo checks that the token is whole, and returns of which kind it is.
func movedTo(t *testing.T, c Config, conf string) (kind string) {
	t.Helper()
	u, err := c.OpenUpkeep("work", false)
	if err != nil {
		t.Fatal(err)
	}
	st, err := u.State()
	if err != nil || st.Label != "moved" || conf != "" && (u.Slot.ID != 3 || !u.Slot.unshared() && u.Slot.Kind.Name == "swtok") {
		t.Errorf("of the kind %s, in slot %d: %+v, %v", u.Slot.Kind.Name, u.Slot.ID, st, err)
	}
	if err := u.Close(); err != nil {
		t.Error(err)
	}
	return u.Slot.Kind.Name
}

// TestMove moves a token to another kind and back, with and without a configuration. One that
// fails leaves the token as it was.
func TestMove(t *testing.T) {
	for name, conf := range moveConfs() {
		t.Run(name, func(t *testing.T) {
			var fail error
			c := moveConfig(tempDir(t), &fail)
			makeMoving(t, c, conf)
			free := func() error { return nil }
			move := func(kind string, out func() error) error {
				t.Helper()
				_, err := c.Move(t.Context(), Move{Token: "work", Kind: kind, OutOfService: out})
				return err
			}
			is := func(kind string) {
				t.Helper()
				if now := movedTo(t, c, conf); now != kind {
					t.Errorf("it is of the kind %s, not %s", now, kind)
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

// moveEnv has a process make a move, and be killed before a step: directory, kind and step.
const moveEnv = "P11FS_TEST_MOVE"

// killedMove is that process.
func killedMove(args string) {
	word := strings.Split(args, " ")
	c := moveConfig(word[0], new(error))
	_, err := c.Move(context.Background(), Move{
		Token: "work", Kind: word[1], OutOfService: func() error { return nil },
		before: func(step string) {
			if step == word[2] {
				_ = unix.Kill(os.Getpid(), unix.SIGKILL)
				select {}
			}
		},
	})
	fmt.Println(err)
}

// TestMoveKilled kills a move before each of its steps, there and back: a token of the one or the other kind is
// served then, with all that it has, and the same move again ends it.
func TestMoveKilled(t *testing.T) {
	for name, conf := range moveConfs() {
		made := tempDir(t) // once, since its PINs take their time
		makeMoving(t, moveConfig(made, new(error)), conf)
		for _, way := range [][2]string{{"swtok", "marked"}, {"marked", "swtok"}} {
			for _, step := range []string{"copy", "keep", "exchange", "declare"} {
				if step == "declare" && conf == "" {
					continue
				}
				t.Run(name+"/"+way[1]+"/"+step, func(t *testing.T) {
					dir := filepath.Join(tempDir(t), "copy")
					if err := os.CopyFS(dir, os.DirFS(made)); err != nil {
						t.Fatal(err)
					}
					testMoveKilled(t, dir, conf, way[0], way[1], step)
				})
			}
		}
	}
}

func testMoveKilled(t *testing.T, dir, conf, from, to, step string) {
	c := moveConfig(dir, new(error))
	move := func(kind string) {
		t.Helper()
		if _, err := c.Move(t.Context(), Move{Token: "work", Kind: kind, OutOfService: func() error { return nil }}); err != nil {
			t.Fatal(err)
		}
	}
	if from != "swtok" {
		move(from)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), moveEnv+"="+strings.Join([]string{dir, to, step}, " "))
	out, err := cmd.Output()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("it was not killed: %v\n%s", err, out)
	}
	if now := movedTo(t, c, conf); now != from && now != to {
		t.Errorf("it is of the kind %s", now)
	}
	move(to)
	if now := movedTo(t, c, conf); now != to {
		t.Errorf("after the same move again it is of the kind %s", now)
	}
	if conf != "" {
		if text, err := os.ReadFile(c.Paths.Config); err != nil || strings.Contains(string(text), "libmarked.so") != (to == "marked") || strings.Contains(string(text), "3.12") != (to == "swtok") {
			t.Errorf("%v; the configuration is\n%s", err, text)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(c.Paths.Data, newPrefix+"*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	move(from) // nothing of it stands in the way
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
