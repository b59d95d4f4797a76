package integration

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/store"
	"p11fs/tokens/store/format"
	"p11fs/tokens/swtok"
)

var (
	scaleObjects = flag.Int("scale-objects", 100_000, "how many objects BenchmarkScale makes")
	scalePublic  = flag.Int("scale-public", 50, "per cent of them that are public")
)

// BenchmarkScale tells how a token of very many objects starts, is logged in to, listed,
// searched and emptied, and what memory the daemon has then. The directory is below
// TMPDIR: on a disk, creating and destroying are as fast as it syncs.
func BenchmarkScale(b *testing.B) {
	for b.Loop() { // once: it takes minutes
		measureScale(b)
	}
	b.ReportMetric(0, "ns/op") // says nothing here
}

func measureScale(b *testing.B) {
	b.Helper()
	program := benchProgram(b)
	c := daemonConfig{binary: plainBinary(b), modern: true}
	d, term := ready(b, c)
	term.ok("echo 'ec:p256 label=first id=01' > $T/generate && cat $T/generate")
	d.stop()
	fillToken(b, filepath.Join(d.tokenRoot(), d.c.token), *scaleObjects)

	tell := func(what string, v float64, unit string) {
		b.Logf("%-34s %10.4g %s", what, v, unit)
		b.ReportMetric(v, strings.ReplaceAll(what, " ", "-")+"-"+unit)
	}
	clock := func(what string, f func()) {
		before := time.Now()
		f()
		tell(what, time.Since(before).Seconds(), "s")
	}
	memory := func(when string) { tell("resident "+when, float64(d.resident())/(1<<20), "MiB") }
	clock("start", d.start)
	memory("after start")
	term = d.terminal()
	clock("login", func() { term.ok("echo " + userPIN + " > $T/login") })
	tell("processor for start and login", processorTime(d.pid()).Seconds(), "s")
	memory("after login")
	for _, what := range []string{"list", "list again"} {
		clock(what, func() { term.ok("test $(ls -U $O | wc -l) -ge " + fmt.Sprint(*scaleObjects)) })
	}
	memory("after list")
	env := append(d.env(), "P11FS_SOCKET="+filepath.Join(d.dir, "p11fs/rpc.sock"))
	client := benchClient(b, newTerminal(b, terminalConfig{env: env}), program, "libp11fs", d.pid(), "module", ownModule(b), "test token", userPIN)
	rate := func(what, work, how string, scale float64, unit string) {
		m, err := client.measure(work, how)
		if err != nil {
			b.Errorf("%s: %v", what, err)
			return
		}
		tell(what, scale/m.Rate, unit)
	}
	rate("find by label", "find:label", "1", 1e6, "µs")
	rate("find all", "find:all", "1", 1, "s")
	rate("10000 destroyed", "destroy", "1", 10_000, "s")
	rate("10000 destroyed by 64 threads", "destroy", "64", 10_000, "s")
	memory("at the end")
	client.end()
}

// benchProgram is testdata/bench.c.
func benchProgram(b *testing.B) string {
	b.Helper()
	program := filepath.Join(workDir(b, "bench"), "bench")
	if out, err := exec.Command("gcc", "-O2", "-I/usr/include/p11-kit-1", "testdata/bench.c", "-o", program, "-ldl", "-lpthread").CombinedOutput(); err != nil {
		b.Fatalf("gcc: %v\n%s", err, out)
	}
	return program
}

// fillToken gives a token that no daemon has open n objects: copies of the pair of keys that
// is in it, each with a label and an id of its own.
func fillToken(b *testing.B, dir string, n int) {
	b.Helper()
	lock, err := locks.Open(filepath.Join(b.TempDir(), "lock"), locks.NoGroup)
	if err != nil {
		b.Fatal(err)
	}
	defer lock.Close()
	kind, _ := format.KindOf(swtok.Kind)
	s, err := store.Open(b.Context(), store.Config{
		Dir: dir, Format: format.V312(kind, rand.Reader, 1), Lock: lock, Group: store.NoGroup,
		Room: -1, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: time.Now,
	})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	}()
	pin, err := secret.New([]byte(userPIN))
	if err != nil {
		b.Fatal(err)
	}
	defer pin.Close()
	l, err := s.Login(b.Context(), p11.CKU_USER, pin)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	first := map[p11.ObjectClass]p11.Attributes{}
	for _, class := range []p11.ObjectClass{p11.CKO_PUBLIC_KEY, p11.CKO_PRIVATE_KEY} {
		found, err := s.Find(b.Context(), p11.Attributes{{Type: p11.CKA_CLASS, Value: p11.Ulong(class)}}, true)
		if err != nil || len(found) != 1 {
			b.Fatalf("%d keys of class %v: %v", len(found), class, err)
		}
		attrs, err := found[0].Acquire()
		if err != nil {
			b.Fatal(err)
		}
		first[class] = attrs.Clone()
		found[0].Release()
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				class := p11.CKO_PRIVATE_KEY
				if i%100 < *scalePublic {
					class = p11.CKO_PUBLIC_KEY
				}
				a := first[class].Clone()
				a.Set(p11.CKA_LABEL, fmt.Appendf(nil, "object %d", i))
				a.Set(p11.CKA_ID, fmt.Appendf(nil, "id%d", i))
				a.Set(p11.CKA_UNIQUE_ID, fmt.Appendf(nil, "%032x", i))
				if _, err := s.Create(context.Background(), a); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	begun := time.Now()
	wg.Wait()
	b.Logf("%d objects made by 64 creators in %.1f s", n, time.Since(begun).Seconds())
}
