package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"p11fs/mountd"
	"p11fs/mountd/mountpoint"
	"p11fs/p11"
	"p11fs/secret"
)

// mountEnv names the mount point for all commands, as --mount does.
const mountEnv = "P11FS_MOUNT"

// maxAnswer bounds what is read back from a control file.
const maxAnswer = 16 << 20 // metrics has 2 KiB for each token, mechanism and door

// A tree is a mounted p11fs.
type tree struct{ dir string }

// findTree finds the mount to act on: the one named by --mount or P11FS_MOUNT,
// else the user's own if it is mounted at its usual place, else the only one
// that the user mounted, else the system's.
func findTree(named string, getenv func(string) string) (tree, error) {
	if named == "" {
		named = getenv(mountEnv)
	}
	if named != "" {
		if st, err := os.Stat(named); err != nil {
			if m, ok := mountOn(named); ok && errors.Is(err, unix.EACCES) {
				return tree{}, anothers(m)
			}
			return tree{}, fmt.Errorf("%w: %w", errNotMounted, err)
		} else if !st.IsDir() {
			return tree{}, fmt.Errorf("%w: %s is no directory", errNotMounted, named)
		} else if err := mayUse(named); err != nil {
			return tree{}, err
		}
		if _, err := os.Stat(filepath.Join(named, "status")); errors.Is(err, os.ErrNotExist) {
			return tree{}, fmt.Errorf("%w on %s: p11fs mount serves tokens there", errNotMounted, named)
		}
		return tree{named}, nil
	}
	mounts, err := mountpoint.Ours()
	if err != nil {
		return tree{}, err
	}
	home, _ := os.UserHomeDir()
	own, _ := mountd.UserPaths(getenv, home) // none is usual where nothing is known
	dir, err := chooseMount(mounts, own.Mount, mountd.SystemPaths("").Mount, strconv.Itoa(os.Getuid()))
	if err == nil {
		err = mayUse(dir)
	}
	return tree{dir}, err
}

// mountOn returns the p11fs mount on a directory.
func mountOn(dir string) (mountpoint.Mount, bool) {
	path, err := mountpoint.Resolve(dir)
	if err != nil {
		return mountpoint.Mount{}, false
	}
	mounts, _ := mountpoint.Ours() // none where they cannot be read
	n := slices.IndexFunc(mounts, func(m mountpoint.Mount) bool { return m.Path == path })
	if n < 0 {
		return mountpoint.Mount{}, false
	}
	return mounts[n], true
}

// anothers is the error of a mount that its owner has to himself.
func anothers(m mountpoint.Mount) error {
	return fmt.Errorf("%s is %s's alone: sudo -u %[2]s, or mount it with --allow-other", m.Path, userName(m.UserID()))
}

// userName is the name of the user with that number, or the number.
func userName(uid string) string {
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return uid
}

// mayUse returns why a user may not use a mount at all, and what mends it.
func mayUse(dir string) error {
	err := unix.Access(dir, unix.R_OK|unix.X_OK)
	if !errors.Is(err, unix.EACCES) {
		return nil // what else is wrong shows when the tree is used
	}
	who := userName(strconv.Itoa(os.Getuid()))
	var st unix.Stat_t
	g, lookErr := user.LookupGroup(mountd.Group)
	if unix.Stat(dir, &st) == nil && lookErr == nil && strconv.Itoa(int(st.Gid)) == g.Gid {
		return fmt.Errorf("%s is for root and the members of the group %s (as root: usermod -aG %[2]s %s; then log in anew): %w", dir, mountd.Group, who, err)
	}
	if m, ok := mountOn(dir); ok {
		return anothers(m)
	}
	return fmt.Errorf("%s is another user's: %w", dir, err)
}

// chooseMount picks the mount of user uid.
func chooseMount(mounts []mountpoint.Mount, usual, system, uid string) (string, error) {
	var own []string
	haveSystem := false
	for _, m := range mounts {
		switch {
		case m.Path == usual && m.UserID() == uid:
			return m.Path, nil
		case m.Path == system:
			haveSystem = true
		case m.UserID() == uid:
			own = append(own, m.Path)
		}
	}
	switch {
	case len(own) == 1:
		return own[0], nil
	case len(own) > 1:
		return "", &usageError{err: fmt.Errorf("several are mounted (%s): say which with --mount or %s", strings.Join(own, ", "), mountEnv)}
	case haveSystem:
		return system, nil
	case len(mounts) > 0:
		return "", fmt.Errorf("%w by you: p11fs mount serves your tokens (%s is %s's)", errNotMounted, mounts[0].Path, userName(mounts[0].UserID()))
	}
	return "", fmt.Errorf("%w: p11fs mount starts it", errNotMounted)
}

// A treeError is a command that the tree refused.
type treeError struct {
	what string // such as "login swtok"
	why  string // the line of the token's error file, or empty
	err  error  // with the errno
}

func (e *treeError) Error() string {
	why := e.why
	if why == "" || strings.HasSuffix(why, " "+p11.CKR_OK.String()) {
		why = e.err.Error()
		if path := (*os.PathError)(nil); errors.As(e.err, &path) {
			why = path.Err.Error() // what was typed is in what
		}
	}
	return e.what + ": " + why
}

func (e *treeError) Unwrap() error { return e.err }

// token checks that a token's folder is there.
func (t tree) token(name string) error {
	if name == "" || name != filepath.Base(name) || name == "." || name == ".." {
		return &usageError{err: fmt.Errorf("%q is no token's name: p11fs status lists the tokens", name)}
	}
	st, err := os.Stat(filepath.Join(t.dir, name))
	switch {
	case errors.Is(err, os.ErrNotExist) || (err == nil && !st.IsDir()):
		return fmt.Errorf("%s has no token %q (it has: %s)", t.dir, name, strings.Join(t.tokens(), " "))
	case errors.Is(err, syscall.ENOTCONN):
		return t.died()
	}
	return err
}

// died is the error of a mount whose daemon is gone.
func (t tree) died() error {
	return fmt.Errorf("%w: the daemon of %s has died: p11fs mount cleans up", errNotMounted, t.dir)
}

// tokens lists the token folders.
func (t tree) tokens() []string {
	entries, _ := os.ReadDir(t.dir)
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// completeTokens offers the names of tokens to the shell for a first argument.
func completeTokens(mount *string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		t, err := findTree(*mount, os.Getenv)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return t.tokens(), cobra.ShellCompDirectiveNoFileComp
	}
}

// command writes one command, in one write, into a file of the token, and tells
// with the token's error file what went wrong. It wipes text.
func (t tree) command(what, token, file string, text []byte) error {
	defer secret.Wipe(text)
	_, err := t.exchange(what, token, file, os.O_WRONLY|os.O_TRUNC, text)
	return err
}

// ask writes a command and reads the answer in the same open.
func (t tree) ask(what, token, file string, text []byte) (string, error) {
	return t.exchange(what, token, file, os.O_RDWR, text)
}

// exchange opens a file with flags, writes text, and reads where the flags let it.
func (t tree) exchange(what, token, file string, flags int, text []byte) (string, error) {
	f, err := os.OpenFile(filepath.Join(t.dir, token, file), flags, 0)
	if err != nil {
		return "", t.refused(what, token, err)
	}
	var answer []byte
	if _, err = f.Write(text); err == nil && flags&os.O_RDWR != 0 {
		answer, err = io.ReadAll(io.LimitReader(f, maxAnswer))
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return "", t.refused(what, token, err)
	}
	return string(answer), nil
}

// read returns the text of a file in the tree.
func (t tree) read(elem ...string) (string, error) {
	f, err := os.Open(filepath.Join(append([]string{t.dir}, elem...)...))
	if errors.Is(err, syscall.ENOTCONN) {
		return "", t.died()
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxAnswer))
	return string(b), err
}

func (t tree) refused(what, token string, err error) error {
	if errors.Is(err, syscall.ENOTCONN) {
		return t.died()
	}
	why, _ := t.read(token, "error")
	if token == "" && filepath.Base(filepath.Dir(t.dir)) != "sessions" {
		token = filepath.Base(t.dir)
	}
	return &treeError{what: what, why: inCommands(token, strings.TrimSpace(why)), err: err}
}

// inCommands says what to do, which the tree tells in terms of its files, in those of
// the commands.
func inCommands(token, why string) string {
	token = shellQuote(token)
	return strings.NewReplacer(
		"the SO sets a new one: write so:SO-PIN to the file login, then init-pin PIN to ctl", "the SO sets a new one: p11fs pin --unlock "+token,
		"the security officer sets a new one: write init-pin PIN to ctl as so", "the security officer sets a new one: p11fs pin --unlock "+token,
		"log in as security officer, then write init-pin PIN to ctl", "the security officer sets one: p11fs pin --unlock "+token,
		"log the user out if need be, and write so:SO-PIN to the file login; users change their own PIN through the file pin", "p11fs pin --unlock "+token,
		"write the right PIN; the file pin shows whether tries are left", "give the right PIN",
		"set a new PIN first, through the file pin", "set a new PIN first: p11fs pin "+token,
		"write a PIN as long as the file info says", "choose a PIN of another length",
		"log in first: write the PIN to the file login", "log in first: p11fs login "+token,
		"write an empty line to the file logout, then log in", "p11fs logout "+token+", then log in",
		": write close-all to ctl in each, or end it", "",
		"name a slot that the file slots lists", "name a slot that p11fs status lists",
		"write init SO-PIN LABEL to ctl first", "p11fs init "+token+" first",
		"write the whole signature first, then the data", "give a whole signature, as p11fs sign writes it",
		"write a seed to the file random first", "give a seed first",
		"use another token or another way; the file mechanisms lists what this one can", "use another token or another way: p11fs mechanisms --token "+token+" lists what this one can",
		"use a key of a size that the file mechanisms lists, or", "use a key of a size that p11fs mechanisms --token "+token+" lists, or",
		"name a mechanism behind a colon; the key's file mechanisms lists those that fit", "name one with --mechanism, as in aes-cbc-pad,iv=HEX; p11fs show lists those that fit",
		"choose one that the token's file mechanisms lists for this", "choose one that p11fs mechanisms --token "+token+" lists for this",
	).Replace(why)
}
