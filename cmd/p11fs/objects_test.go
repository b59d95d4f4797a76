package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestListOthers: a token that cannot be asked, as one without its device, does not hide what
// the others have, and is said to be so.
func TestListOthers(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"away/find", "here/objects/web.key"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"find": "\nweb.key\n", "objects/web.key/info": "class=private-key\n"} {
		if err := os.WriteFile(filepath.Join(dir, "here", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, err := tree{dir}.list([]string{"away", "here"}, nil)
	if len(list) != 1 || list[0].Name != "here/web.key" || list[0].Class != "private-key" {
		t.Errorf("there is %+v", list)
	}
	if err == nil || !strings.Contains(err.Error(), "ls away") {
		t.Errorf("the token that is away: %v", err)
	}
}
