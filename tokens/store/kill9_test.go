package store

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	cryptorand "crypto/rand"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
)

// kills is how often TestFormat312Kill9 kills a process.
var kills = flag.Int("kills", 40, "kill -9 a process that rewrites a token directory this many times in TestFormat312Kill9")

// rewriterEnv makes this program a rewriter.
const rewriterEnv = "P11FS_TEST_REWRITER"

// A rewriter changes the objects and the user's PIN of a token of format 3.12 until it is
// killed. Before each change it prints which, and "done" behind it.
type rewriter struct {
	s       *Store
	objects map[string]*tokens.Object // by their labels
	pin     string
}

// rewriteUntilKilled is a rewriter of the directory dir. It returns what went wrong.
func rewriteUntilKilled(dir, pin string) error {
	ctx := context.Background()
	journal, err := os.OpenFile(journalOf(dir), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	lock, err := locks.Open(filepath.Join(dir+".lock", "LCK"), locks.NoGroup)
	if err != nil {
		return err
	}
	k, _ := format.KindOf312("swtok")
	s, err := Open(ctx, Config{
		Dir: dir, Format: format.V312(k, cryptorand.Reader, 100), Lock: lock, Group: NoGroup,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Now: time.Now, kernel: journaling{journal: journal},
	})
	if err != nil {
		return err
	}
	r := &rewriter{s, map[string]*tokens.Object{}, pin}
	if err := r.begin(ctx); err != nil {
		return err
	}
	fmt.Println("ready")
	for {
		if err := r.change(ctx); err != nil {
			return err
		}
		fmt.Println("done")
	}
}

// begin logs in and looks at what is there.
func (r *rewriter) begin(ctx context.Context) error {
	p, err := secret.New([]byte(r.pin))
	if err != nil {
		return err
	}
	if _, err := r.s.Login(ctx, p11.CKU_USER, p); err != nil {
		return err
	}
	all, err := r.s.Find(ctx, nil, true)
	for _, o := range all {
		a, err := o.Acquire()
		if err != nil {
			return err
		}
		r.objects[a.Label()] = o
		o.Release()
	}
	return err
}

// change makes one change, after it has told which.
func (r *rewriter) change(ctx context.Context) (err error) {
	label := []string{"public", "private"}[rand.IntN(2)] + fmt.Sprint(rand.IntN(4))
	text := value(rand.IntN(1_000_000))
	o := r.objects[label]
	switch dice := rand.IntN(20); {
	case dice == 0:
		next := fmt.Sprint(1000 + rand.IntN(1_000_000))
		if next == r.pin {
			next += "0"
		}
		fmt.Println("pin", next)
		old, nerr := secret.New([]byte(r.pin))
		if nerr != nil {
			return nerr
		}
		pin, nerr := secret.New([]byte(next))
		if nerr != nil {
			return nerr
		}
		err = r.s.SetPIN(ctx, p11.CKU_USER, old, pin)
		r.pin = next
	case o == nil:
		fmt.Println("set", label, text)
		r.objects[label], err = r.s.Create(ctx, dataObject(label, text, strings.HasPrefix(label, "private")))
	case dice < 3:
		fmt.Println("destroy", label)
		err = r.s.Destroy(ctx, o.Handle, allow)
		delete(r.objects, label)
	default:
		fmt.Println("set", label, text)
		r.objects[label], err = r.s.Update(ctx, o.Handle, func(a p11.Attributes) (p11.Attributes, error) {
			return a.With(p11.CKA_VALUE, []byte(text)), nil
		})
	}
	return err
}

// value is a value of some length, of which no part is one.
func value(n int) string { return strings.Repeat(fmt.Sprintf("%06d.", n), 1+n%700) }

// A journaling kernel notes what is written into a token directory, before it is.
type journaling struct {
	linux
	journal io.Writer
}

func journalOf(dir string) string { return dir + ".journal" }

func (k journaling) note(b []byte) error {
	_, err := k.journal.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

func (k journaling) Write(fd int, b []byte) (int, error) {
	if err := k.note(b); err != nil {
		return 0, err
	}
	return k.linux.Write(fd, b)
}

func (k journaling) WriteAt(fd int, b []byte, at int64) (int, error) {
	if err := k.note(b); err != nil {
		return 0, err
	}
	return k.linux.WriteAt(fd, b, at)
}

// A killer kills rewriters of one directory, and knows what must be in it.
type killer struct {
	t       *testing.T
	cfg     Config
	pin     string
	objects map[string]string
	changes int
	starts  time.Duration // how long the last start took

	// used are the pairs of an object's key, as it is wrapped with the one master key,
	// and an initialisation vector.
	used map[string]bool
}

// TestFormat312Kill9 has a process rewrite the objects and the PIN of a directory of
// format 3.12, kills it at any moment, and looks; again and again. Each object is the old
// one or the new one, and so is the PIN. No initialisation vector was ever used twice with
// one key, in files that have been replaced meanwhile or were never completed as well.
func TestFormat312Kill9(t *testing.T) {
	t.Parallel()
	n := *kills
	if testing.Short() {
		n = min(n, 8)
	}
	cfg := freshConfig(t)
	cfg.Format, cfg.noWatch = v312(t), true
	_ = initialised(t, cfg).Close()
	k := &killer{t: t, cfg: cfg, pin: testUser, objects: map[string]string{}, used: map[string]bool{}}
	begin := time.Now()
	for i := range n {
		if k.round(); t.Failed() {
			t.Fatalf("round %d of %d", i, n)
		}
	}
	t.Logf("%d kills, %d changes, %d private object files in %v", n, k.changes, len(k.used), time.Since(begin).Round(time.Millisecond))
	if k.changes < n || len(k.used) < n/4 {
		t.Errorf("%d changes and %d private objects in %d rounds: the test tests nothing", k.changes, len(k.used), n)
	}
}

// startSelf starts this program as what env makes it.
func startSelf(t *testing.T, env string, arguments ...string) (cmd *exec.Cmd, out *bufio.Reader, said *strings.Builder) {
	t.Helper()
	said = &strings.Builder{}
	for _, args := range [][]string{{os.Args[0]}, {"qemu-" + runtime.GOARCH + "-static", os.Args[0]}} {
		args = append(args, arguments...)
		cmd = exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), env+"=on")
		cmd.Stderr = said
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		err = cmd.Start()
		if errors.Is(err, syscall.ENOEXEC) {
			continue // another machine's program
		}
		if err != nil {
			t.Fatal(err)
		}
		return cmd, bufio.NewReader(pipe), said
	}
	t.Fatal("this program cannot start itself")
	return nil, nil, nil
}

// round has a rewriter work for a while, kills it and looks.
func (k *killer) round() {
	k.t.Helper()
	cmd, out, said := startSelf(k.t, rewriterEnv, k.cfg.Dir, k.pin)
	begin := time.Now()
	if k.starts > 0 && rand.IntN(5) == 0 { // while it starts, or soon after
		time.Sleep(time.Duration(rand.Int64N(int64(k.starts) * 5 / 4)))
	} else {
		if line, err := out.ReadString('\n'); line != "ready\n" || err != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			k.t.Fatalf("the rewriter says %q, %v: %s", line, err, said)
		}
		k.starts = time.Since(begin)
		time.Sleep(time.Duration(rand.Int64N(int64(max(4*time.Millisecond, k.starts/2))))) // a machine may be emulated
	}
	if err := cmd.Process.Kill(); err != nil {
		k.t.Errorf("it has ended: %v", err)
	}
	lines, err := io.ReadAll(out)
	if err != nil {
		k.t.Error(err)
	}
	_ = cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() {
		k.t.Fatalf("the rewriter ended: %v: %s", cmd.ProcessState, said)
	}
	var begun string
	for line := range strings.Lines(string(lines)) {
		switch {
		case line == "done\n":
			k.pin, k.objects = after(begun, k.pin, k.objects)
			k.changes++
			begun = ""
		case line != "ready\n":
			begun = strings.TrimSuffix(line, "\n")
		}
	}
	k.checkWritten()
	k.look(begun)
}

// after is a token after the change that a rewriter has told.
func after(change, pin string, objects map[string]string) (string, map[string]string) {
	switch w := strings.Fields(change); {
	case len(w) == 2 && w[0] == "pin":
		return w[1], objects
	case len(w) == 3 && w[0] == "set":
		objects = maps.Clone(objects)
		objects[w[1]] = w[2]
	case len(w) == 2 && w[0] == "destroy":
		objects = maps.Clone(objects)
		delete(objects, w[1])
	}
	return pin, objects
}

// checkWritten looks at everything that was written since the last time, and whether it
// was told all.
func (k *killer) checkWritten() {
	k.t.Helper()
	journal := journalOf(k.cfg.Dir)
	b, err := os.ReadFile(journal)
	if errors.Is(err, os.ErrNotExist) {
		return // it did not come to that
	}
	if err != nil {
		k.t.Fatal(err)
	}
	for len(b) >= 4 {
		n := int(binary.BigEndian.Uint32(b))
		if n > len(b)-4 {
			break // killed before it was written anywhere else
		}
		if pair, ok := sealedWith(b[4 : 4+n]); ok {
			if k.used[pair] {
				k.t.Errorf("an initialisation vector comes twice with one key: %x", pair)
			}
			k.used[pair] = true
		}
		b = b[4+n:]
	}
	if err := os.Truncate(journal, 0); err != nil {
		k.t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(k.cfg.Dir, objectsDir))
	if err != nil {
		k.t.Fatal(err)
	}
	for _, e := range entries {
		if pair, ok := sealedWith(readFile(k.t, k.cfg.Dir, objectsDir, e.Name())); ok && !k.used[pair] {
			k.t.Errorf("%s was written, and nobody noted it", e.Name())
		}
	}
}

// sealedWith is the wrapped key and the initialisation vector of a private object's file.
func sealedWith(file []byte) (pair string, ok bool) {
	if len(file) < 64 || !strings.HasPrefix(string(file), "\x00\x03\x00\x0c\x01\x00\x00\x00") {
		return "", false
	}
	return string(file[8:60]), true
}

// look opens the token: it is as before the change that was begun, or as after it.
func (k *killer) look(begun string) {
	k.t.Helper()
	s, err := Open(k.t.Context(), k.cfg)
	if err != nil {
		k.t.Fatalf("after %q: %v", begun, err)
	}
	defer s.Close()
	pin, objects := after(begun, k.pin, k.objects)
	if pin != k.pin && tryLogin(k.t, s, p11.CKU_USER, pin) == nil {
		k.pin = pin
	}
	defer login(k.t, s, p11.CKU_USER, k.pin).Close()
	got := map[string]string{}
	for _, line := range contents(k.t, s) {
		label, text, _ := strings.Cut(line, "=")
		got[label] = text
	}
	if !maps.Equal(got, k.objects) && !maps.Equal(got, objects) {
		k.t.Errorf("killed in %.40q, there are %v, and were %v", begun, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(k.objects)))
	}
	k.objects = got
	if d, left := damaged(s), leftFiles(k.t, s); len(d)+len(left) > 0 {
		k.t.Errorf("killed in %.40q: damaged %v, left %v", begun, d, left)
	}
}
