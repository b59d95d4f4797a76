package mountpoint

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const sample = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
90 22 0:40 / /home/a/p11 rw,nosuid,nodev shared:9 master:2 - fuse.p11fs p11fs rw,user_id=1000,group_id=1000
91 22 0:41 / /tmp/a\040b\134c\011d rw - fuse.p11fs p11fs rw,user_id=0
92 22 0:42 / /tmp/short rw - tmpfs tmpfs
broken line
93 22 0:42 / /x rw - tmpfs
`

func TestParse(t *testing.T) {
	want := []Mount{
		{Device: "8:1", Path: "/", Type: "ext4", Source: "/dev/sda1", Options: []string{"rw", "errors=remount-ro"}},
		{Device: "0:40", Path: "/home/a/p11", Type: Type, Source: "p11fs", Options: []string{"rw", "user_id=1000", "group_id=1000"}},
		{Device: "0:41", Path: "/tmp/a b\\c\td", Type: Type, Source: "p11fs", Options: []string{"rw", "user_id=0"}},
		{Device: "0:42", Path: "/tmp/short", Type: "tmpfs", Source: "tmpfs"},
	}
	got := parse(sample)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for i, id := range []string{"", "1000", "0", ""} {
		if got[i].UserID() != id {
			t.Errorf("%s: user %q, want %q", got[i].Path, got[i].UserID(), id)
		}
	}
}

func FuzzUnescape(f *testing.F) {
	for _, s := range []string{`a\040b`, `\134`, `\`, `\9`, `\77`, `plain`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := unescape(s); len(got) > len(s) {
			t.Errorf("%q became longer: %q", s, got)
		}
	})
}

func TestProbe(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name   string
		mounts []Mount
		want   State
	}{
		{"nothing", nil, Free},
		{"another file system", []Mount{{Path: dir, Type: "tmpfs"}}, Free},
		{"elsewhere", []Mount{{Path: dir + "x", Type: Type}}, Free},
		{"covered by another", []Mount{{Path: dir, Type: Type}, {Path: dir, Type: "tmpfs"}}, Free},
		// The directory itself answers, as a live mount would.
		{"live", []Mount{{Path: dir, Type: Type}}, Live},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := probe(c.mounts, dir); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestResolve(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(filepath.Join(dir, "real"), 0o700))
	must(os.Symlink("real", filepath.Join(dir, "link")))
	must(os.Symlink(filepath.Join(dir, "link"), filepath.Join(dir, "link2")))
	must(os.Symlink("loop", filepath.Join(dir, "loop")))
	for _, c := range []struct{ in, want string }{
		{"real", "real"},
		{"link", "real"},
		{"link2", "real"},
		{"link/below", "real/below"},
		{"absent", "absent"},
		{"absent/deeper", "absent/deeper"},
		{"real/../real", "real"},
	} {
		got, err := Resolve(filepath.Join(dir, c.in))
		if want := filepath.Join(dir, c.want); err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", c.in, got, err, want)
		}
	}
	if got, err := Resolve(filepath.Join(dir, "loop")); err == nil {
		t.Errorf("a loop of links resolved to %q", got)
	}
}
