package seal_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/fleet/seal"
)

// newKey is the key of which each byte is b.
func newKey(t testing.TB, b byte) *seal.Key {
	t.Helper()
	k, err := seal.NewKey(bytes.Repeat([]byte{b}, 32))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

var place = seal.Place{Name: "/p11fs/web/o/00000001", Token: [16]byte{1, 2, 3}, Version: 7}

// TestBound tries everything that somebody can do with a sealed value who has not the key.
func TestBound(t *testing.T) {
	k := newKey(t, 1)
	plain := []byte("a private key")
	sealed, err := k.Seal(place, plain)
	if err != nil {
		t.Fatal(err)
	}
	got, version, err := k.Open(place.Name, place.Token, sealed)
	if err != nil || version != place.Version || !bytes.Equal(got, plain) {
		t.Fatalf("Open: %q, version %d, %v", got, version, err)
	}
	if bytes.Contains(sealed, plain) {
		t.Error("the plain value can be read")
	}
	refused := func(what string, k *seal.Key, name string, token [16]byte, sealed []byte) {
		t.Helper()
		if plain, _, err := k.Open(name, token, sealed); !errors.Is(err, seal.ErrDamaged) || plain != nil {
			t.Errorf("%s: Open gives %q, %v", what, plain, err)
		} else if p11.RVOf(err) != p11.CKR_DEVICE_ERROR {
			t.Errorf("%s: %v", what, p11.RVOf(err))
		}
	}
	refused("another key", newKey(t, 2), place.Name, place.Token, sealed)
	refused("another name", k, place.Name+"x", place.Token, sealed)
	refused("another token", k, place.Name, [16]byte{9}, sealed)
	for n := range sealed {
		refused(fmt.Sprintf("cut to %d bytes", n), k, place.Name, place.Token, sealed[:n])
		for bit := range 8 {
			b := bytes.Clone(sealed)
			b[n] ^= 1 << bit
			refused(fmt.Sprintf("byte %d, bit %d", n, bit), k, place.Name, place.Token, b)
		}
	}
	refused("a byte more", k, place.Name, place.Token, append(bytes.Clone(sealed), 0))

	// The name does not run into what stands before it.
	moved := place
	moved.Version, moved.Name = 0x0700000000000000, string(make([]byte, 7))+place.Name
	if k.Tag(moved, sealed) == k.Tag(place, sealed) {
		t.Error("two places have one tag")
	}
}

// TestTag is that of two values of one version only one has the tag.
func TestTag(t *testing.T) {
	k := newKey(t, 1)
	seen := make(map[[32]byte]string)
	note := func(what string, tag [32]byte) {
		if was, ok := seen[tag]; ok {
			t.Errorf("%s has the tag of %s", what, was)
		}
		seen[tag] = what
	}
	one, err := k.Seal(place, nil)
	if err != nil {
		t.Fatal(err)
	}
	two, err := k.Seal(place, nil)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(one, two) {
		t.Error("one value is sealed twice to the same bytes: what is in etcd would show what stays the same")
	}
	note("one", k.Tag(place, one))
	note("two", k.Tag(place, two))
	note("another key's", newKey(t, 2).Tag(place, one))
	other := place
	other.Version++
	note("another version", k.Tag(other, one))
	other = place
	other.Token[0]++
	note("another token", k.Tag(other, one))
	if k.Tag(place, one) != newKey(t, 1).Tag(place, one) {
		t.Error("two machines with one key have two tags of one value")
	}
}

// TestGolden is that what an older p11fs sealed opens.
func TestGolden(t *testing.T) {
	sealed, err := hex.DecodeString(golden)
	if err != nil {
		t.Fatal(err)
	}
	k := newKey(t, 1)
	plain, version, err := k.Open(place.Name, place.Token, sealed)
	if err != nil || string(plain) != "a private key" || version != 7 {
		t.Errorf("Open: %q, %d, %v", plain, version, err)
	}
	if tag := k.Tag(place, sealed); hex.EncodeToString(tag[:]) != goldenTag {
		t.Errorf("the tag is %x", tag)
	}
}

const (
	golden    = "01000000000000000763a6f4f87362383ccb79873c39efaa3aade9349757f47f25a9297c6fa1eeb90a11769c3f847e4f6ec2d0ce801e1afa9196a7e29b7336f31b47238bcbe7"
	goldenTag = "23ab584fb135913abbc41ceef927228a487c08687c2fcc80c3dbe9cb43389dc3"
)

func TestTooLong(t *testing.T) {
	k := newKey(t, 1)
	if _, err := k.Seal(place, make([]byte, seal.MaxPlain+1)); p11.RVOf(err) != p11.CKR_DEVICE_MEMORY {
		t.Errorf("one byte too many: %v", err)
	}
	sealed, err := k.Seal(place, make([]byte, seal.MaxPlain))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := k.Open(place.Name, place.Token, sealed); err != nil {
		t.Error(err)
	}
}

func TestClosed(t *testing.T) {
	k := newKey(t, 1)
	sealed, err := k.Seal(place, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Seal(place, nil); err == nil {
		t.Error("a key seals that is closed")
	}
	if _, _, err := k.Open(place.Name, place.Token, sealed); err == nil || errors.Is(err, seal.ErrDamaged) {
		t.Errorf("of a key that is closed: %v", err)
	}
}

// TestFile reads keys from files as they come.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fleet.key")
	if err := seal.WriteKey(path); err != nil {
		t.Fatal(err)
	}
	if err := seal.WriteKey(path); !errors.Is(err, os.ErrExist) {
		t.Errorf("a key is written over another: %v", err)
	}
	k, err := seal.ReadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	sealed, err := k.Seal(place, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := seal.ReadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if _, _, err := again.Open(place.Name, place.Token, sealed); err != nil {
		t.Error(err)
	}
	digits := strings.Repeat("0f", 32)
	for _, c := range []struct {
		name, text string
		mode       os.FileMode
		want       string
	}{
		{"without end of line", digits, 0o400, ""},
		{"of another system", strings.ToUpper(digits) + "\r\n", 0o600, ""},
		{"empty", "", 0o600, "hexadecimal"},
		{"short", digits[2:], 0o600, "hexadecimal"},
		{"long", digits + "00", 0o600, "hexadecimal"},
		{"without bound", strings.Repeat("0", 1<<16), 0o600, "hexadecimal"},
		{"no digits", strings.Repeat("zz", 32), 0o600, "hexadecimal"},
		{"for the group", digits, 0o640, "others may"},
		{"for all", digits, 0o604, "others may"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "k")
			if err := os.WriteFile(path, []byte(c.text), c.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			k, err := seal.ReadKey(path)
			if err == nil {
				_ = k.Close()
			}
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, want %q", err, c.want)
			case err != nil && strings.Contains(err.Error(), "0f0f"):
				t.Errorf("the error shows the key: %v", err)
			}
		})
	}
	if os.Geteuid() == 0 { // who else gives files away?
		if err := os.Chown(path, 1, -1); err != nil {
			t.Fatal(err)
		}
		if _, err := seal.ReadKey(path); err == nil || !strings.Contains(err.Error(), "another user's") {
			t.Errorf("a key that another has put there: %v", err)
		}
	}
	for _, path := range []string{t.TempDir(), "/dev/null", filepath.Join(t.TempDir(), "absent")} {
		if _, err := seal.ReadKey(path); err == nil {
			t.Errorf("%s is read as a key", path)
		}
	}
}

// TestDoesNotPrint is that no way of printing shows a key.
func TestDoesNotPrint(t *testing.T) {
	k := newKey(t, 0xa7)
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%s", "%d"} {
		if text := fmt.Sprintf(verb, k); strings.Contains(strings.ToLower(text), "a7a7") || strings.Contains(text, "167 167") {
			t.Errorf("%s shows the key: %s", verb, text)
		}
	}
}

// FuzzOpen opens what may come from etcd: only what was sealed for the place opens.
func FuzzOpen(f *testing.F) {
	k := newKey(f, 1)
	good, err := k.Seal(place, []byte("value"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(place.Name, good)
	f.Add("", []byte{})
	f.Add("x", append([]byte{1}, make([]byte, 60)...))
	f.Fuzz(func(t *testing.T, name string, sealed []byte) {
		plain, version, err := k.Open(name, place.Token, sealed)
		if opens := err == nil; opens != (name == place.Name && bytes.Equal(sealed, good)) {
			t.Fatalf("Open(%q, %x): %q, %d, %v", name, sealed, plain, version, err)
		}
	})
}

// FuzzSeal seals anything for any place, and opens it.
func FuzzSeal(f *testing.F) {
	k := newKey(f, 1)
	f.Add("/p11fs/web/token", []byte("0123456789abcdef"), uint64(1), []byte("value"))
	f.Fuzz(func(t *testing.T, name string, id []byte, version uint64, plain []byte) {
		p := seal.Place{Name: name, Version: version}
		copy(p.Token[:], id)
		sealed, err := k.Seal(p, plain)
		if err != nil {
			t.Skip(err)
		}
		got, v, err := k.Open(p.Name, p.Token, sealed)
		if err != nil || v != version || !bytes.Equal(got, plain) {
			t.Fatalf("Open: %x, %d, %v", got, v, err)
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	k := newKey(b, 1)
	sealed, err := k.Seal(place, make([]byte, 1200))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, err := k.Open(place.Name, place.Token, sealed); err != nil {
			b.Fatal(err)
		}
		k.Tag(place, sealed)
	}
}
