package store

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/store/storetest"
)

func backupOf(t *testing.T, u *Upkeep) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := u.Backup(t.Context(), &b, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// tokensOfBoth are tokens of both formats, and their PINs.
func tokensOfBoth(t *testing.T) map[string][2]string {
	all := migrated(t)
	all["sw312"] = [2]string{storetest.SOPIN, storetest.UserPIN}
	return all
}

// TestBackup takes backups of tokens of both formats and restores them: into nothing, over
// a token that was never used, and, when told, over one that was.
func TestBackup(t *testing.T) {
	t.Parallel()
	for name, pins := range tokensOfBoth(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := storetest.Untar(t, name)
			before, format := wholeOf(t, dir, pins[0], pins[1])
			b := backupOf(t, upkeepOf(t, dir, linux{}))
			token, again, err := BackupOf(bytes.NewReader(b))
			if err != nil || token != filepath.Base(dir) {
				t.Fatalf("%q, %v", token, err)
			}
			if whole, err := io.ReadAll(again); err != nil || !bytes.Equal(whole, b) {
				t.Errorf("%v", err)
			}
			same := func(dir string) {
				t.Helper()
				if after, newer := wholeOf(t, dir, pins[0], pins[1]); newer != format || cmp.Diff(before, after) != "" {
					t.Errorf("newer %v: %s", newer, cmp.Diff(before, after))
				}
				if c, err := upkeepOf(t, dir, linux{}).Check(t.Context(), pin(t, pins[1])); err != nil || len(c.Wrong)+len(c.Notes) != 0 {
					t.Errorf("%+v, %v", c, err)
				}
			}
			elsewhere := filepath.Join(t.TempDir(), "other")
			if err := upkeepOf(t, elsewhere, linux{}).Restore(t.Context(), bytes.NewReader(b), false, nil); err != nil {
				t.Fatal(err)
			}
			same(elsewhere)
			overs := []string{"swtok-pristine", "swtok", "sw312"}
			if name == "sw312" { // whose PINs take their time
				overs = overs[1:2]
			}
			for _, over := range overs {
				dir := storetest.Untar(t, over)
				was := tree(t, dir)
				u := upkeepOf(t, dir, linux{})
				err := u.Restore(t.Context(), bytes.NewReader(b), false, nil)
				if over != "swtok-pristine" {
					if !errors.Is(err, tokens.ErrInitialized) || tree(t, dir) != was {
						t.Fatalf("%s: %v", over, err)
					}
					err = u.Restore(t.Context(), bytes.NewReader(b), true, nil)
				}
				if err != nil {
					t.Fatal(err)
				}
				same(dir)
				st, err := u.State()
				if err != nil || (st.Replaced == "") != (over == "swtok-pristine") || st.Replaced != "" && tree(t, st.Replaced) != was {
					t.Errorf("%+v, %v", st, err)
				}
				if left, err := filepath.Glob(filepath.Join(filepath.Dir(dir), ".*."+restoringDir+"*")); err != nil || len(left) != 0 {
					t.Errorf("left: %v", left)
				}
				if st.Replaced != "" {
					wantRV(t, "again", u.Restore(t.Context(), bytes.NewReader(b), true, nil), p11.CKR_FUNCTION_REJECTED)
				}
			}
		})
	}
}

// TestBackupChanging changes a token while its backup is taken: the backup has it as it is
// in the end.
// TestRestoringOfOthers: what others made beside a token does not become the token's
// directory with their modes, or as theirs.
func TestRestoringOfOthers(t *testing.T) {
	t.Parallel()
	b := backupOf(t, upkeepOf(t, storetest.Untar(t, "swtok"), linux{}))
	elsewhere := filepath.Join(t.TempDir(), "swtok")
	planted := filepath.Join(filepath.Dir(elsewhere), ".swtok."+restoringDir)
	restore := func() error {
		return upkeepOf(t, elsewhere, linux{}).Restore(t.Context(), bytes.NewReader(b), false, nil)
	}
	if err := errors.Join(os.Mkdir(planted, 0o777), os.Chmod(planted, 0o777)); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(planted, 65534, -1); err != nil {
			t.Fatal(err)
		}
		wantRV(t, "beside another's", restore(), p11.CKR_FUNCTION_REJECTED)
		if err := os.Chown(planted, 0, -1); err != nil {
			t.Fatal(err)
		}
	}
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(elsewhere); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v; want mode 0700", st.Mode(), err)
	}
}

func TestBackupChanging(t *testing.T) {
	t.Parallel()
	pins := migrated(t)["swtok"]
	dir := storetest.Untar(t, "swtok")
	s := either(t, dir)
	login(t, s, p11.CKU_USER, pins[1])
	create(t, s, dataObject("gone", "1", true))
	create(t, s, dataObject("kept", "2", false))
	changed := false
	var b bytes.Buffer
	u := upkeepOf(t, dir, linux{})
	if err := u.Backup(t.Context(), &b, func(done, total int) {
		if done == total && !changed { // nothing is locked
			changed = true
			if _, err := s.Update(context.Background(), labelled(t, s, "kept"), relabel("new")); err != nil {
				t.Error(err)
			}
			if err := s.Destroy(context.Background(), labelled(t, s, "gone"), allow); err != nil {
				t.Error(err)
			}
			create(t, s, dataObject("late", "3", true))
		}
	}); err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(t.TempDir(), "swtok")
	if err := upkeepOf(t, elsewhere, linux{}).Restore(t.Context(), &b, false, nil); err != nil {
		t.Fatal(err)
	}
	want, _ := wholeOf(t, dir, pins[0], pins[1])
	got, _ := wholeOf(t, elsewhere, pins[0], pins[1])
	if d := cmp.Diff(want, got); d != "" || len(got.Objects) != 26 {
		t.Errorf("%d objects: %s", len(got.Objects), d)
	}
	if c, err := upkeepOf(t, elsewhere, linux{}).Check(t.Context(), nil); err != nil || len(c.Wrong)+len(c.Notes) != 0 {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestBackupIndexHalfWritten makes a backup while a stock program rewrites the index.
func TestBackupIndexHalfWritten(t *testing.T) {
	t.Parallel()
	dir := storetest.Untar(t, "swtok")
	index := readFile(t, dir, objectsDir, indexFile)
	written := make(chan struct{})
	begun := false
	var b bytes.Buffer
	if err := upkeepOf(t, dir, linux{}).Backup(t.Context(), &b, func(done, total int) {
		if done < total || begun {
			return
		}
		begun = true
		writeFile(t, index[:30], dir, objectsDir, indexFile)
		go func() {
			defer close(written)
			time.Sleep(20 * time.Millisecond)
			if err := os.WriteFile(filepath.Join(dir, objectsDir, indexFile), index, 0); err != nil {
				t.Error(err)
			}
		}()
	}); err != nil {
		t.Fatal(err)
	}
	<-written
	elsewhere := filepath.Join(t.TempDir(), "swtok")
	if err := upkeepOf(t, elsewhere, linux{}).Restore(t.Context(), &b, false, nil); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, elsewhere, objectsDir, indexFile); !bytes.Equal(got, index) {
		t.Errorf("the index in the backup is %q, want %q", got, index)
	}
}

// TestBackupBad: what is no whole backup is not restored, and leaves nothing behind.
func TestBackupBad(t *testing.T) {
	t.Parallel()
	b := backupOf(t, upkeepOf(t, storetest.Untar(t, "swtok-be"), linux{}))
	archive := func(h tar.Header, data string) []byte {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		h.Size = int64(len(data))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, data)
		_ = w.Close()
		return out.Bytes()
	}
	cases := map[string][]byte{
		"nothing":  nil,
		"text":     []byte(strings.Repeat("no backup", 100)),
		"above":    archive(tar.Header{Typeflag: tar.TypeReg, Name: "x/../../NVTOK.DAT"}, "x"),
		"link":     archive(tar.Header{Typeflag: tar.TypeSymlink, Name: "x/NVTOK.DAT", Linkname: "/etc/passwd"}, ""),
		"other":    archive(tar.Header{Typeflag: tar.TypeReg, Name: "x/TOK_OBJ/.profile"}, "x"),
		"absolute": archive(tar.Header{Typeflag: tar.TypeReg, Name: "/NVTOK.DAT/x"}, "x"),
		"no token": archive(tar.Header{Typeflag: tar.TypeReg, Name: "x/NVTOK.DAT"}, "x"),
		"alone":    archive(tar.Header{Typeflag: tar.TypeReg, Name: "x/MK_SO"}, "x"),
		"large":    archive(tar.Header{Typeflag: tar.TypeReg, Name: "x/MK_SO"}, strings.Repeat("x", maxKeyFile+1)),
	}
	for n := 1; n < len(b)-1024-512; n += 509 { // NVTOK.DAT ends before 1024 zeros and some more
		cases[fmt.Sprintf("cut to %d bytes", n)] = b[:n]
	}
	for name, text := range cases {
		dir := filepath.Join(t.TempDir(), "swtok")
		err := upkeepOf(t, dir, linux{}).Restore(t.Context(), bytes.NewReader(text), false, nil)
		if err == nil {
			t.Errorf("%s: restored", name)
		}
		if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) != 0 {
			t.Errorf("%s: left: %v %v", name, left, err)
		}
	}
}

// fullDisk is a kernel whose disk is full after some writes.
type fullDisk struct {
	linux
	left int
}

func (f *fullDisk) Write(fd int, b []byte) (int, error) {
	if f.left--; f.left < 0 {
		return 0, unix.ENOSPC
	}
	return f.linux.Write(fd, b)
}

// TestBackupFull restores, and migrates, on a disk that is full at some time: nothing is
// changed, and of a restore nothing is left.
func TestBackupFull(t *testing.T) {
	t.Parallel()
	b := backupOf(t, upkeepOf(t, storetest.Untar(t, "swtok"), linux{}))
	pins := migrated(t)["swtok"]
	for _, writes := range []int{0, 1, 2, 10, 20} {
		dir := storetest.Untar(t, "swtok")
		was := tree(t, dir)
		k := &fullDisk{left: writes}
		err := upkeepOf(t, dir, k).Restore(t.Context(), bytes.NewReader(b), true, nil)
		left, gerr := filepath.Glob(filepath.Join(filepath.Dir(dir), ".*"))
		if !errors.Is(err, unix.ENOSPC) || p11.RVOf(err) != p11.CKR_DEVICE_MEMORY || tree(t, dir) != was || len(left) != 0 {
			t.Errorf("%d writes: %v, left %v %v", writes, err, left, gerr)
		}
		k.left = writes
		if _, err := upkeepOf(t, dir, k).Migrate(t.Context(), migration(t, pins)); !errors.Is(err, unix.ENOSPC) { // its own NVTOK.DAT may have counted a PIN
			t.Errorf("%d writes: migrated: %v", writes, err)
		}
		if _, err := upkeepOf(t, dir, linux{}).Migrate(t.Context(), migration(t, pins)); err != nil {
			t.Errorf("%d writes: migrated later: %v", writes, err)
		}
	}
}

// TestBackupKilled kills a restore over a token at each step: the token is the one before or
// the one of the backup, and the one before is never lost.
func TestBackupKilled(t *testing.T) {
	t.Parallel()
	b := backupOf(t, upkeepOf(t, storetest.Untar(t, "swtok-be"), linux{}))
	from := storetest.Untar(t, "swold")
	was := tree(t, copyAround(t, from))
	restore := func(u *Upkeep) error { return u.Restore(t.Context(), bytes.NewReader(b), true, nil) }
	ends := map[string]bool{}
	for _, exchange := range []bool{true, false} {
		count := &killable{left: -1}
		if err := restore(upkeepOf(t, copyAround(t, from), count)); err != nil {
			t.Fatal(err)
		}
		for steps := 0; ; steps++ {
			if steps > 2 && steps < count.n-16 && steps%5 != 0 {
				continue
			}
			dir := copyAround(t, from)
			k := &noExchange{killable{left: steps}}
			u := upkeepOf(t, dir, k)
			if exchange {
				u = upkeepOf(t, dir, &k.killable)
			}
			err := restore(u)
			if k.left > 0 {
				if err != nil {
					t.Fatal(err)
				}
				break
			}
			// What a daemon does when it opens the token.
			if err := settle(u.withKernel(linux{})); err != nil {
				t.Fatal(err)
			}
			now := tree(t, dir)
			before := now == was
			ends[map[bool]string{true: "before", false: "after"}[before]] = true
			if !before {
				if s := info(t, either(t, dir)); s.Label == "" {
					t.Errorf("after %d steps: %+v", steps, s)
				}
			}
			if err := restore(upkeepOf(t, dir, linux{})); err != nil && p11.RVOf(err) != p11.CKR_FUNCTION_REJECTED {
				t.Fatalf("again after %d steps: %v", steps, err)
			}
			var kept []string
			left, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), "*"))
			hidden, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), ".*"))
			for _, d := range slices.Concat(left, hidden) {
				if tree(t, d) == was {
					kept = append(kept, d)
				}
			}
			if len(kept) == 0 {
				t.Fatalf("after %d steps the token of before is lost: %v %v", steps, left, hidden)
			}
		}
	}
	if !ends["before"] || !ends["after"] {
		t.Errorf("ends: %v", ends)
	}
}

// withKernel is the configuration with another kernel.
func (u *Upkeep) withKernel(k kernel) Config {
	c := u.cfg
	c.kernel = k
	return c
}
