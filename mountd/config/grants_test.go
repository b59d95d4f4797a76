package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"p11fs/engine/grants"
)

const goodGrant = "user=33 token=swtok label=web functions=sign\n"

func TestGrantFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "grants.d")
	keeper := Keeper{UID: os.Geteuid(), Group: -1}
	load := func() (*grants.Set, error) { return LoadGrants(dir, keeper, grants.Names{}) }
	if set, err := load(); set != nil || err != nil {
		t.Fatalf("without the directory: %v, %v", set, err)
	}
	put := func(name, text string, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if set, err := load(); err != nil || set == nil || len(set.List) != 0 {
		t.Fatalf("an empty directory: %v, %v", set, err)
	}
	put("b", "# why\n\n"+goodGrant, 0o644)
	put("a.conf", goodGrant+"\r\n", 0o644)
	for _, left := range []string{".hidden", "a.conf~", "a.dpkg-dist", "a.rpmsave", "a.swp"} {
		put(left, "nonsense", 0o666)
	}
	set, err := load()
	if err != nil || len(set.List) != 2 || set.List[0].At != filepath.Join(dir, "a.conf")+":1" || set.List[1].At != filepath.Join(dir, "b")+":3" {
		t.Fatalf("%v, %v", set, err)
	}
	for name, c := range map[string]struct {
		text, says string
		mode       os.FileMode
	}{
		"a mistake":            {goodGrant + "x\nuser=33\n", "/bad:2: ", 0o644},
		"another one":          {goodGrant + "\nuser=33\n", "/bad:3: the token is missing: write ", 0o644},
		"writable by others":   {goodGrant, "chmod go-w", 0o646},
		"writable by a group":  {goodGrant, "chmod go-w", 0o664},
		"longer than anything": {strings.Repeat("#", maxPolicy+1), "longer than", 0o644},
		"more than anything":   {strings.Repeat(goodGrant, maxGrants), "are the most", 0o644},
	} {
		put("bad", c.text, c.mode)
		set, err := load()
		var p *Problem
		if set != nil || !errors.As(err, &p) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, %v", name, set, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "bad")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := load(); err == nil || !strings.Contains(err.Error(), "it is no file") {
		t.Errorf("a directory in it: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "dir")); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadGrants(dir, Keeper{UID: os.Geteuid() + 1, Group: -1}, grants.Names{}); os.Geteuid() != 0 && err == nil {
		t.Error("another user's directory is taken")
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := load(); err == nil || !strings.Contains(err.Error(), "chmod go-w "+dir) {
		t.Errorf("a directory that all may write: %v", err)
	}
}
