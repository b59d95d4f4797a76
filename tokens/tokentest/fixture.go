package tokentest

import (
	"os"
	"path/filepath"
	"testing"
)

// Fixture returns the path of a large set of test data that is kept beside the
// project and not in it, and skips the test where it is not there. Every test
// that uses one has a sample of the data in its own testdata.
func Fixture(t testing.TB, name string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("the test runs outside its module")
		}
		dir = up
	}
	path := filepath.Join(dir, "..", "shared", "fixtures", name)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("the full %s is not here; the sample in testdata has run", name)
	}
	return path
}
