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
		"README.md": "| sign:p256 | 100 (90–5k) | 200 (200–200) | | | | | | | 2.00 | | 2.0 | 3.0 | 0.50 |\n| digest:two, 64 threads |",
		"doors.svg": `y="14" text-anchor="middle">0.25 ×</text>`,
	} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(got), want) || strings.Contains(string(got), "%!") {
			t.Errorf("%s: %v\n%s", name, err, got)
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
