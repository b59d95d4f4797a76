package main

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestInitInVain has p11fs init fail at each step of making a token: nothing of it stays, and
// the next one is a first one.
func TestInitInVain(t *testing.T) {
	home, err := os.MkdirTemp("", "init") // whose name is short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	data, socket := filepath.Join(home, "data"), filepath.Join(home, "socket")
	for name, value := range map[string]string{"HOME": home, "XDG_DATA_HOME": data, "XDG_RUNTIME_DIR": home, mountEnv: "", "P11FS_SOCKET": "", "P11FS_TPM": ""} {
		t.Setenv(name, value)
	}
	left := func() (names []string) {
		_ = filepath.WalkDir(data, func(path string, e fs.DirEntry, err error) error {
			switch {
			case err == nil && e.Name() == ".lock":
				return fs.SkipDir
			case err == nil && e.Name() != "p11fs" && path != data:
				names = append(names, path)
			}
			return nil
		})
		return names
	}
	const right = "87654321\nlabel\n12345678\n"
	for name, c := range map[string]struct {
		answers, args, want string
		code                int
	}{
		"no card at the socket":       {right, "ep11tok --card " + socket, "no ep11 card answers", exitFailure},
		"no card at the usual socket": {right, "ccatok", "no cca card answers", exitFailure},
		"no server":                   {"password\n" + right, "icsf --uri ldap://127.0.0.1:1 --binddn x", "cannot be reached", exitFailure},
		"no such TPM":                 {right, "tpm --device unix:" + socket, "does not answer", exitFailure},
		"no such setting":             {right, "lite --card new", "have no setting card", exitFailure},
		"no SO PIN":                   {"", "lite", "(type 87654321, that of every new token; ", exitFailure},
		"another SO PIN":              {"1234\nlabel\n12345678\n", "ep11tok --card new", "not the SO PIN of a new token", exitAuth},
		"a short PIN":                 {"87654321\nlabel\n12\n", "lite", "PINs of 4 to", exitFailure},
		"no PIN":                      {"87654321\nlabel\n", "ep11tok --card new", "ended before the line with the user PIN", exitFailure},
		"no label":                    {"87654321\n\n12345678\n", "lite", "not one line of text", exitUsage},
	} {
		commands := []string{"init"}
		if name == "no label" || name == "no SO PIN" { // whose failure takes no time
			commands = append(commands, "token new")
		}
		for _, with := range commands {
			r := command(t, c.answers, strings.Fields(with+" "+c.args)...)
			if r.code != c.code || !strings.Contains(r.err, c.want) {
				t.Errorf("%s, %s: %+v, not %q", with, name, r, c.want)
			}
			locks, _ := filepath.Glob(filepath.Join(data, "p11fs", ".lock", "*"))
			locks = slices.DeleteFunc(locks, func(path string) bool { return filepath.Base(path) == "LCK..tokens" })
			if got := left(); len(got)+len(locks) > 0 {
				t.Errorf("%s, %s: it leaves %q and %q", with, name, got, locks)
			}
		}
	}

	dir := filepath.Join(data, "p11fs", "ep11tok")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, []string{"init", "ep11tok", "--card", "new"}, streams{in: os.Stdin, out: os.Stderr, err: os.Stderr}); err == nil || !slices.Equal(left(), []string{dir}) {
		t.Errorf("one that is interrupted: %v, and leaves %q", err, left())
	}
	serveCards(t, filepath.Join(home, "card"), socket)
	r := command(t, right, "init", "ep11tok", "--card", socket)
	for n := 0; n < 10 && strings.Contains(r.err, "in use"); n++ { // by what was interrupted, which ends when it can
		r = command(t, right, "init", "ep11tok", "--card", socket)
	}
	if r.code != exitOK || !strings.Contains(read(t, dir, "ep11tok.conf"), socket) {
		t.Errorf("%+v", r)
	}
	before := left()
	if r := command(t, right, "init", "ep11tok", "--card", "new"); r.code != exitFailure || !strings.Contains(r.err, "has the token ep11tok already") || !slices.Equal(left(), before) {
		t.Errorf("where there is one already: %+v, %q", r, left())
	}
}
