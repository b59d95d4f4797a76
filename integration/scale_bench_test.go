package integration

import (
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/secret"
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
	c := daemonConfig{binary: plainBinary(b), modern: true, args: []string{"--token-size=-1"}}
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
	clock("objects read", func() { term.ok("test ! -e $O/none.key") }) // which goes on while the token is in use
	memory("after reading")
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
func benchProgram(b testing.TB) string {
	b.Helper()
	program := filepath.Join(workDir(b, "bench"), "bench")
	if out, err := exec.Command("gcc", "-O2", "-I/usr/include/p11-kit-1", "testdata/bench.c", "-o", program, "-ldl", "-lpthread").CombinedOutput(); err != nil {
		b.Fatalf("gcc: %v\n%s", err, out)
	}
	return program
}

// fillToken gives a token that no daemon has open n objects: copies of the pair of keys that
// is in it, each with a label and an id of its own. It writes the files itself, without
// waiting for the disk: a million of them take a minute, and not twenty.
func fillToken(b *testing.B, dir string, n int) {
	b.Helper()
	begun := time.Now()
	f, data, codec := scaleFormat(b, dir)
	index := tokenFile(b, dir, "TOK_OBJ", "OBJ.IDX")
	pair := map[bool]p11.Attributes{}
	for _, name := range format.ParseIndex(index).Names {
		private, attrs, err := codec.Open(name, tokenFile(b, dir, "TOK_OBJ", name.String()))
		if err != nil {
			b.Fatal(err)
		}
		pair[private] = attrs
	}
	if len(pair) != 2 {
		b.Fatal("there is no pair of keys")
	}
	names, data, err := f.NewNames(data, n, func(format.Name) (bool, error) { return false, nil })
	if err != nil || len(names) != n {
		b.Fatalf("%d names: %v", len(names), err)
	}
	write := func(b []byte, name ...string) error {
		return os.WriteFile(filepath.Join(append([]string{dir}, name...)...), b, 0o600)
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				a := pair[i%100 >= *scalePublic].Clone()
				a.Set(p11.CKA_LABEL, fmt.Appendf(nil, "object %d", i))
				a.Set(p11.CKA_ID, fmt.Appendf(nil, "id%d", i))
				a.Set(p11.CKA_UNIQUE_ID, fmt.Appendf(nil, "%032x", i))
				sealed, err := codec.Seal(names[i], a, nil)
				if err == nil {
					err = write(sealed, "TOK_OBJ", names[i].String())
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(write(format.EditIndex(index, nil, names...), "TOK_OBJ", "OBJ.IDX"), write(f.PrintFile(data), "NVTOK.DAT")); err != nil {
		b.Fatal(err)
	}
	b.Logf("%d objects written in %.1f s", n, time.Since(begun).Seconds())
}

// scaleFormat is how a token of 3.12 is read and written, opened with the user's PIN.
func scaleFormat(b *testing.B, dir string) (format.Format, format.TokenData, format.Objects) {
	b.Helper()
	kind, _ := format.KindOf(swtok.Kind)
	f := format.V312(kind, rand.Reader, 1)
	data, err := f.ParseFile(tokenFile(b, dir, "NVTOK.DAT"))
	if err != nil {
		b.Fatal(err)
	}
	pin, err := secret.New([]byte(userPIN))
	if err != nil {
		b.Fatal(err)
	}
	defer pin.Close()
	opened, err := f.Open(b.Context(), p11.CKU_USER, pin, format.Kept{Record: f.PIN(data, p11.CKU_USER), File: tokenFile(b, dir, "MK_USER")})
	if err != nil || !opened.Right {
		b.Fatalf("the user's PIN: %v", err)
	}
	defer opened.Key.Close()
	codec, err := f.Objects(opened.Key)
	if err != nil {
		b.Fatal(err)
	}
	return f, data, codec
}

func tokenFile(b *testing.B, dir string, name ...string) []byte {
	b.Helper()
	raw, err := os.ReadFile(filepath.Join(append([]string{dir}, name...)...))
	if err != nil {
		b.Fatal(err)
	}
	return raw
}
