package integration

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEachRowIsProved: each row of the threat model's tables of what somebody may do
// names the tests that prove it, and each test that the page names is there.
func TestEachRowIsProved(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	err = filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		source.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile("`(Test[A-Za-z0-9]+)").FindAllStringSubmatch(string(page), -1) {
		if !strings.Contains(source.String(), "\nfunc "+name[1]+"(t *testing.T)") {
			t.Errorf("there is no %s", name[1])
		}
	}
	rows, proved, last := 0, false, ""
	for _, line := range lines(string(page)) {
		switch {
		case !strings.HasPrefix(line, "|"):
			proved = false
		case strings.HasSuffix(line, "| proved by |"):
			proved = true
		case proved && !strings.HasPrefix(line, "|---"):
			rows++
			cells := strings.Split(strings.Trim(line, "|"), "|")
			by := strings.TrimSpace(cells[len(cells)-1])
			if !strings.Contains(by, "`Test") && (by != "the same" && !strings.HasPrefix(by, "the same;") || !strings.Contains(last, "`Test")) {
				t.Errorf("nothing proves: %s", line)
			}
			last += by
		}
	}
	if rows < 25 {
		t.Errorf("%d rows are proved", rows)
	}
}
