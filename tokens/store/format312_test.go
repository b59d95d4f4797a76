package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens/store/format"
)

// formatEnv has the tests make directories of format 3.12.
const formatEnv = "P11FS_TEST_FORMAT"

// only38 are the tests of what format 3.8 alone has (its golden directories, its
// numbers, and the segment), and those that take both formats.
var only38 = []string{
	"TestFormat312.*", "TestGolden.*", "TestShared.*", "TestStockInitToken", "TestStockZeroKey", "TestStockNames",
	"TestBigEndian", "TestForeignOrderIsNotShared", "TestAnotherFormat", "TestDirectoryReplaced",
	"TestOrderOfReplacement", "TestNextName.*", "TestOpenFresh", "TestOpenWaits", "TestOpenRefuses", "TestHostileFiles",
	"TestDamage", "TestMigrate.*", "TestBackup.*", "TestInitToken", "TestInitTokenAgain", "TestSetPIN", "TestInitPIN",
}

// TestFormat312 runs all other tests of this package with directories of format 3.12.
func TestFormat312(t *testing.T) {
	t.Parallel()
	args := []string{os.Args[0], "-test.short", "-test.skip=^(" + strings.Join(append(only38, not312), "|") + ")$", "-test.parallel=2"}
	run := func() ([]byte, error) {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), formatEnv+"=3.12")
		return cmd.CombinedOutput()
	}
	out, err := run()
	if errors.Is(err, syscall.ENOEXEC) { // another machine's program, which is slow: what depends on the byte order
		args = append([]string{"qemu-" + runtime.GOARCH + "-static"}, append(args, "-test.run=PIN|Login|InitToken|Objects")...)
		out, err = run()
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func v312(t testing.TB) format.Format {
	t.Helper()
	k, ok := format.KindOf312("swtok")
	if !ok {
		t.Fatal("there is no swtok")
	}
	return format.V312(k, rand.Reader, 100)
}

func new312(t *testing.T) *Store {
	t.Helper()
	cfg := freshConfig(t)
	cfg.Format = v312(t)
	return openStore(t, cfg)
}

func TestFormat312New(t *testing.T) {
	s := new312(t)
	if i := info(t, s); i.Label != "softtok" || i.Manufacturer != "IBM" || i.Model != "Soft" || i.Flags != 0x880245 || i.MinPINLen != 4 || i.MaxPINLen != 1024 {
		t.Errorf("%+v", i)
	}
	b := readFile(t, s.cfg.Dir, dataFile)
	if len(b) != 592 || !bytes.Equal(b[232:240], []byte{0, 3, 0, 12, 0, 0, 0, 0}) || !bytes.Equal(b[160:216], make([]byte, 56)) {
		t.Errorf("NVTOK.DAT: %x", b)
	}
	for off, purpose := range map[int]string{240: "so_login_purpose", 344: "user_login_purpose", 448: "so_wrap_purpose", 520: "user_wrap_purpose"} {
		if n := binary.BigEndian.Uint64(b[off:]); n != 100 || strings.TrimRight(string(b[off+8:off+40]), "_") != purpose {
			t.Errorf("%d iterations, %q, want %q", n, b[off+8:off+40], purpose)
		}
	}
	wantRV(t, "the user", tryLogin(t, s, p11.CKU_USER, "12345678"), p11.CKR_USER_PIN_NOT_INITIALIZED)
	if err := s.InitToken(t.Context(), pin(t, firstSOPIN), "new"); err != nil {
		t.Fatal(err)
	}
	if i := info(t, s); i.Label != "new" || i.Flags != 0x880645 {
		t.Errorf("after C_InitToken: %+v", i)
	}
	wantRV(t, "the user of an initialised token", tryLogin(t, s, p11.CKU_USER, "12345678"), p11.CKR_USER_PIN_NOT_INITIALIZED)
}

// TestFormat312PINs sets PINs of each length.
func TestFormat312PINs(t *testing.T) {
	cfg := freshConfig(t)
	cfg.Format = v312(t)
	s := initialised(t, cfg)
	now := testUser
	for n, want := range map[int]p11.RV{3: p11.CKR_PIN_LEN_RANGE, 4: p11.CKR_OK, 9: p11.CKR_OK, 128: p11.CKR_OK, 129: p11.CKR_OK, 1024: p11.CKR_OK, 1025: p11.CKR_PIN_LEN_RANGE} {
		next := strings.Repeat("ü", n/2) + strings.Repeat("x", n%2)
		err := s.SetPIN(t.Context(), p11.CKU_USER, pin(t, now), pin(t, next))
		wantRV(t, fmt.Sprint(n, " bytes"), err, want)
		if err == nil {
			wantRV(t, "the old one", tryLogin(t, s, p11.CKU_USER, now), p11.CKR_PIN_INCORRECT)
			now = next
		}
		login(t, s, p11.CKU_USER, now)
	}
}

// TestFormat312OtherDirectory declares a directory to be what it is not: it is refused
// with what to write, and not written to.
func TestFormat312OtherDirectory(t *testing.T) {
	cfg := freshConfig(t)
	cfg.Format = v38(t, "swtok")
	_ = openStore(t, cfg).Close()
	before := tree(t, cfg.Dir)
	cfg.Format = v312(t)
	_, err := Open(t.Context(), cfg)
	wantRV(t, "3.8 as 3.12", err, p11.CKR_TOKEN_NOT_RECOGNIZED)
	if !strings.Contains(fmt.Sprint(err), "tokversion = 0.0") || tree(t, cfg.Dir) != before {
		t.Errorf("%v", err)
	}
	cfg = freshConfig(t)
	cfg.Format = v312(t)
	_ = openStore(t, cfg).Close()
	before = tree(t, cfg.Dir)
	cfg.Format = v38(t, "swtok")
	_, err = Open(t.Context(), cfg)
	wantRV(t, "3.12 as 3.8", err, p11.CKR_TOKEN_NOT_RECOGNIZED)
	if !strings.Contains(fmt.Sprint(err), "tokversion = 3.12") || tree(t, cfg.Dir) != before {
		t.Errorf("%v", err)
	}
}

// TestFormat312Iterations: a directory that asks for more work than a login may take, for any of
// its four keys, is refused, and says why.
func TestFormat312Iterations(t *testing.T) {
	cfg := freshConfig(t)
	cfg.Format = v312(t)
	_ = openStore(t, cfg).Close()
	good := readFile(t, cfg.Dir, dataFile)
	for _, off := range []int{240, 344, 448, 520} {
		bad := bytes.Clone(good)
		binary.BigEndian.PutUint64(bad[off:], 1_000_001)
		if err := os.WriteFile(cfg.Dir+"/"+dataFile, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), cfg)
		wantRV(t, "a million and one", err, p11.CKR_TOKEN_NOT_RECOGNIZED)
		if !strings.Contains(fmt.Sprint(err), "asks for 1000001 iterations") {
			t.Errorf("at %d: %v", off, err)
		}
	}
}

// TestFormat312Lock tries a PIN that takes its time: the token's lock is free meanwhile.
func TestFormat312Lock(t *testing.T) {
	cfg := freshConfig(t)
	k, _ := format.KindOf312("swtok")
	cfg.Format = format.V312(k, rand.Reader, slowPIN)
	s := openStore(t, cfg)
	done := make(chan error, 1)
	go func() { done <- s.InitToken(context.WithoutCancel(t.Context()), pin(t, "wrong PIN"), "x") }()
	for tries := 0; ; tries++ {
		select {
		case err := <-done:
			wantRV(t, "a wrong PIN", err, p11.CKR_PIN_INCORRECT)
			if tries < 10 {
				t.Errorf("the lock was free %d times", tries)
			}
			return
		default:
		}
		create(t, s, dataObject("a", fmt.Sprint(tries), false))
		time.Sleep(time.Millisecond)
	}
}

// TestFormat312Objects cuts and flips object files: they are damaged, and no more.
func TestFormat312Objects(t *testing.T) {
	f := v312(t)
	master, err := f.NewMasterKey()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	codec, err := f.Objects(master)
	if err != nil {
		t.Fatal(err)
	}
	n := nth(7)
	for _, private := range []bool{false, true} {
		file, err := codec.Seal(n, dataObject("a", "b", private), nil)
		if err != nil {
			t.Fatal(err)
		}
		again, err := codec.Seal(n, dataObject("a", "b", private), file)
		if err != nil || bytes.Equal(file, again) == private {
			t.Errorf("private %v: sealed again it is the same, or cannot be: %v", private, err)
		}
		for i := range file {
			if _, _, err := codec.Open(n, file[:i]); !errors.Is(err, format.ErrDamaged) {
				t.Errorf("private %v, %d bytes: %v", private, i, err)
			}
			bad := bytes.Clone(file)
			bad[i] ^= 1
			if _, _, err := codec.Open(n, bad); private && !errors.Is(err, format.ErrDamaged) || err != nil && !errors.Is(err, format.ErrDamaged) {
				t.Errorf("private %v, byte %d flipped: %v", private, i, err)
			}
		}
	}
	// Releases up to 3.14 wrote the header of public objects in the machine's byte order.
	file, err := codec.Seal(n, dataObject("a", "b", false), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{0, 12} {
		slices.Reverse(file[at : at+4])
	}
	if _, attrs, err := codec.Open(n, file); err != nil || attrs.Label() != "a" {
		t.Errorf("an early public object: %v", err)
	}
}

// TestFormat312NextName: the name of the next object becomes that of a file. Who may write
// the directory must not send that elsewhere, through a link of his or without one.
func TestFormat312NextName(t *testing.T) {
	for _, next := range []string{"L/passwd", "../MK_SO", "../../..", "........", "0000000a", "\x0000000000"} {
		t.Run(next, func(t *testing.T) {
			cfg := freshConfig(t)
			cfg.Format = v312(t)
			s := initialised(t, cfg)
			outside := t.TempDir()
			symlink(t, outside, cfg.Dir, objectsDir, "L")
			before := tree(t, cfg.Dir)
			good := readFile(t, cfg.Dir, dataFile)
			b := bytes.Clone(good)
			copy(b[offNext:offNext+8], next)
			writeFile(t, b, cfg.Dir, dataFile)
			_, err := s.Create(t.Context(), dataObject("label", "value", false))
			wantRV(t, "an object", err, p11.CKR_TOKEN_NOT_RECOGNIZED)
			_, err = Open(t.Context(), cfg)
			wantRV(t, "another store", err, p11.CKR_TOKEN_NOT_RECOGNIZED)
			if found := tree(t, outside); found != "" {
				t.Errorf("outside there is %s", found)
			}
			writeFile(t, good, cfg.Dir, dataFile)
			if after := tree(t, cfg.Dir); after != before {
				t.Errorf("the directory has changed:\n%s\nwas\n%s", after, before)
			}
			create(t, s, dataObject("label", "value", false))
		})
	}
}
