package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const sample = `{"machine": "2 × x", "date": "2026-01-02", "programs": {"softhsm2": "2.6"}, "rows": [
	{"work": "sign:p256", "how": "1", "doors": {"softhsm2": [{"rate": 90}, {"rate": 100}, {"rate": 5000}], "libp11fs": [{"rate": 200, "cpu": 2, "daemon": 3, "switches": 0.5}]}},
	{"work": "digest:two", "how": "64", "doors": {"files": [{"rate": 50}]}, "refused": {"softhsm2": "no such work"}}]}`

func put(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "results.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReport(t *testing.T) {
	dir := t.TempDir()
	if err := report(put(t, sample), dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"README.md": "| sign:p256 | 100 (90–5k) | 200 (200–200) | | | | | | | | 2.00 | | 2.0 | 3.0 | 0.50 |\n| digest:two, 64 threads |",
		"doors.svg": `y="14" text-anchor="middle">0.25 ×</text>`,
	} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(got), want) || strings.Contains(string(got), "%!") {
			t.Errorf("%s: %v\n%s", name, err, got)
		}
	}
}

func TestWanted(t *testing.T) {
	const rounds = `{"rows": [
		{"work": "sign:p256", "how": "1", "doors": {
			"softhsm2": [{"rate": 10000}, {"rate": 90000}, {"rate": 20000}],
			"libp11fs": [{"rate": 20000}, {"rate": 30000}, {"rate": 40000}],
			"libcrypto": [{"rate": 50000}, {"rate": 50000}, {"rate": 50000}]}},
		{"work": "sign:p256", "how": "2", "doors": {"libp11fs": [{"rate": 22000}, {"rate": 33000}, {"rate": 44000}]}},
		{"work": "sign:p256:one", "how": "64", "doors": {"files": [{"rate": 1, "half": 100, "most": 600, "least": 0.5}]}},
		{"work": "digest:two", "how": "1", "doors": {"files": [{"rate": 95}], "empty": [{"rate": 100}]}}]}`
	r, err := read(put(t, rounds))
	if err != nil {
		t.Fatal(err)
	}
	table := r.table()
	for _, want := range []string{
		"| P-256, one thread | ≤ 27 µs | 33.3 | **no** | libcrypto: 20 µs |\n", // the middle of three
		"| P-256, one thread | ≥ 1.4 × softhsm2 | 2 | yes | |\n",               // of 2, 1/3 and 2, and not 30/20
		"| P-256, two threads | ≥ 1.8 × one | 1.1 | **no** | |\n",
		"| mount, P-256, 64 callers | p99 < 5 × p50 | 6 | **no** | p50 100 µs; who has least has 0.50 of his share |\n",
		"| mount, digest, two | ≥ 0.91 × an empty handler | 0.95 | yes | |\n",
		"| EC generation | ≥ 0.9 × softhsm2 | | not measured | |\n",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
}

func TestCompare(t *testing.T) {
	old := put(t, sample)
	for change, want := range map[string]string{
		"":                                       "",
		`{"rate": 50}` + "\x00" + `{"rate": 41}`: "",
		`{"rate": 50}` + "\x00" + `{"rate": 39}`: "1 ratios have fallen by more than a fifth:\ndigest:two, 64 threads at files: 0.39, and was 0.50",
		`"files"` + "\x00" + `"x"`:               "1 ratios have fallen by more than a fifth:\ndigest:two, 64 threads at files: 0.00, and was 0.50",
		`"rate": 100}` + "\x00" + `"rate": 1000}`: "2 ratios have fallen by more than a fifth:\n" +
			"digest:two, 64 threads at files: 0.05, and was 0.50\nsign:p256 at libp11fs: 0.20, and was 2.00",
	} {
		from, to, _ := strings.Cut(change, "\x00")
		got := ""
		if err := compare(old, put(t, strings.Replace(sample, from, to, 1))); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", change, got, want)
		}
	}
}
