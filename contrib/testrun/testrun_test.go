package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const sample = `{"Action":"build-output","ImportPath":"x","Output":"x.go:1: bad\n"}
{"Action":"run","Package":"p/a","Test":"TestA"}
{"Action":"output","Package":"p/a","Test":"TestA","Output":"noise\n"}
{"Action":"pass","Package":"p/a","Test":"TestA"}
{"Action":"output","Package":"p/a","Test":"TestE","Output":"WARNING: DATA RACE\n"}
{"Action":"pass","Package":"p/a","Test":"TestE"}
{"Action":"output","Package":"p/a","Output":"PASS\n"}
{"Action":"output","Package":"p/a","Output":"ok  \tp/a\t0.1s\n"}
{"Action":"pass","Package":"p/a"}
{"Action":"output","Package":"p/b","Test":"TestB","Output":"=== RUN   TestB\n"}
{"Action":"output","Package":"p/b","Test":"TestB","Output":"    b_test.go:7: needs root\n"}
{"Action":"output","Package":"p/b","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}
{"Action":"skip","Package":"p/b","Test":"TestB"}
{"Action":"output","Package":"p/b","Test":"TestC","Output":"    b_test.go:9: wrong\n"}
{"Action":"fail","Package":"p/b","Test":"TestC"}
{"Action":"output","Package":"p/b","Output":"FAIL\n"}
{"Action":"output","Package":"p/b","Output":"FAIL\tp/b\t0.2s\n"}
{"Action":"fail","Package":"p/b"}
{"Action":"output","Package":"p/c","Test":"TestD","Output":"panic: cut off\n"}
not json
`

func TestPrintEvents(t *testing.T) {
	var out strings.Builder
	res, err := printEvents(strings.NewReader(sample), &out)
	if err != nil {
		t.Fatal(err)
	}
	want := "x.go:1: bad\nWARNING: DATA RACE\nok  \tp/a\t0.1s\n    b_test.go:9: wrong\nFAIL\nFAIL\tp/b\t0.2s\nnot json\npanic: cut off\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("printed (-want +got):\n%s", diff)
	}
	if res.passed != 2 || res.failed != 1 {
		t.Errorf("%d passed, %d failed; want 2 and 1", res.passed, res.failed)
	}
	wantSkips := []skip{{"p/b", "TestB", "needs root"}}
	if diff := cmp.Diff(wantSkips, res.skips, cmp.AllowUnexported(skip{})); diff != "" {
		t.Errorf("skips (-want +got):\n%s", diff)
	}
}

func TestReadList(t *testing.T) {
	file := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(file, []byte("# those\nTestA\n\n  TestB/*/sub # why\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := readList(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"TestA", "TestB/*/sub"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for test, want := range map[string]bool{
		"TestA": true, "TestA/x": false, "TestAB": false, "TestB/x/sub": true, "TestB/x/y/sub": false, "TestB": false,
	} {
		if listed(got, test) != want {
			t.Errorf("%s: got %v, want %v", test, !want, want)
		}
	}
	if err := os.WriteFile(file, []byte("Test[\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readList(file); err == nil {
		t.Error("a broken pattern was taken")
	}
}

func TestLeftovers(t *testing.T) {
	tmp := t.TempDir()
	now := lookAround(tmp)
	file := filepath.Join(tmp, "forgotten")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	segment := filepath.Join("/dev/shm", "var.lib.opencryptoki."+filepath.Base(filepath.Dir(tmp)))
	if err := os.WriteFile(segment, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(segment) })
	child := exec.Command("sleep", "60")
	child.Env = append(os.Environ(), "TMPDIR="+tmp)
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	})
	left := leftovers(now, tmp, 0)
	for _, want := range []string{"file " + file, "segment " + segment, fmt.Sprintf("process %d", child.Process.Pid)} {
		if !slices.Contains(left, want) {
			t.Errorf("got %q, want %q in it", left, want)
		}
	}
}
