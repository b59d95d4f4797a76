package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"p11fs/p11"
)

func TestPIN(t *testing.T) {
	files := t.TempDir()
	oldFile, newFile := filepath.Join(files, "old"), filepath.Join(files, "new")
	for path, pin := range map[string]string{oldFile: "filed\nand no more\n", newFile: "fresh one\n"} {
		if err := os.WriteFile(path, []byte(pin), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		in    string // who is logged in
		stdin string
		args  []string
		code  int
		want  [4]string // pin, ctl, login, logout
	}{
		{"of the user", "public", "old\nnew\n", nil, 0, [4]string{"old\nnew\n", "", "public\n", ""}},
		{"with blanks", "user", "old one\na new one\n", nil, 0, [4]string{"old one\na new one\n", "", "user\n", ""}},
		{"of the SO", "public", "old\nnew\n", []string{"--so"}, 0, [4]string{"old\nnew\n", "", "so:old\n", "\n"}},
		{"of the SO, logged in", "so", "old\nnew\n", []string{"--so"}, 0, [4]string{"old\nnew\n", "", "so\n", ""}},
		{"set anew", "public", "so pin\nnew\n", []string{"--unlock"}, 0, [4]string{"", "init-pin new\n", "so:so pin\n", "\n"}},
		{"set anew by the SO, logged in", "so", "new\n", []string{"--unlock"}, 0, [4]string{"", "init-pin new\n", "so\n", ""}},
		{"of files", "public", "", []string{"--pin-file", oldFile, "--new-pin-file", newFile}, 0, [4]string{"filed\nfresh one\n", "", "public\n", ""}},
		{"the old one of a file", "public", "new\n", []string{"--pin-file", oldFile}, 0, [4]string{"filed\nnew\n", "", "public\n", ""}},
		{"the new one of a file", "public", "old\n", []string{"--new-pin-file", newFile}, 0, [4]string{"old\nfresh one\n", "", "public\n", ""}},
		{"set anew, of files", "public", "", []string{"--unlock", "--pin-file", oldFile, "--new-pin-file", newFile}, 0, [4]string{"", "init-pin fresh one\n", "so:filed\n", "\n"}},
		{"of a file that is not there", "public", "old\nnew\n", []string{"--new-pin-file", newFile + "x"}, 1, [4]string{"", "", "public\n", ""}},
		{"one line", "public", "old\n", nil, 1, [4]string{"", "", "public\n", ""}},
		{"an empty one", "public", "old\n\n", nil, 1, [4]string{"", "", "public\n", ""}},
		{"in another role", "user", "old\nnew\n", []string{"--so"}, 2, [4]string{"", "", "user\n", ""}},
		{"in another role", "so", "old\nnew\n", nil, 2, [4]string{"", "", "so\n", ""}},
		{"of both", "public", "old\nnew\n", []string{"--so", "--unlock"}, 2, [4]string{"", "", "public\n", ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := fakeTree(t)
			if err := os.WriteFile(filepath.Join(dir, "swtok/login"), []byte(c.in+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			r := command(t, c.stdin, append([]string{"pin", "--mount", dir, "swtok"}, c.args...)...)
			if r.code != c.code {
				t.Errorf("exit code %d, want %d; it said %q", r.code, c.code, r.err)
			}
			var got [4]string
			for i, file := range []string{"pin", "ctl", "login", "logout"} {
				got[i] = read(t, dir, "swtok", file)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("pin, ctl, login, logout (-want +got):\n%s", diff)
			}
		})
	}
}

// TestInCommands: no command tells somebody to write to a file of the tree.
func TestInCommands(t *testing.T) {
	for rv := range p11.RV(0x300) {
		said := inCommands("swtok", rv.Advice())
		if strings.Contains(said, "the file ") || strings.Contains(said, "to ctl") {
			t.Errorf("%s: %s", rv, said)
		}
	}
}
