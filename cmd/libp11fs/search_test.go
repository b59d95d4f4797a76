package libp11fs

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"p11fs/mountd/rpc/wire"
)

// The slots of the daemons of TestSearch, one at each place.
const (
	noDaemon = iota - 1
	namedSocket
	namedMount
	inRuntime
	inCache
	inHome
	inMount
	system
)

// TestSearch: the module finds the daemon that the p11fs command finds. The
// machine's socket, and what is mounted, are the test's, in a mount namespace.
func TestSearch(t *testing.T) {
	t.Parallel()
	namespace := []string{need(t, "unshare"), "--map-root-user", "--mount"}
	if os.Getuid() == 0 {
		namespace = []string{namespace[0], "--mount"}
	}
	if out, err := exec.Command(namespace[0], append(namespace[1:], "true")...).CombinedOutput(); err != nil {
		t.Skipf("%v: %v\n%s", namespace, err, out)
	}
	// The sanitizer does not hold in a program with more rights than its caller.
	bare, b := compile(t, ""), compile(t, addressSanitizer)
	root := t.TempDir()
	if err := os.Chmod(filepath.Dir(root), 0o755); err != nil { // for other users
		t.Fatal(err)
	}
	for slot, place := range map[int]string{
		namedSocket: "named",
		namedMount:  "mount/rpc.sock",
		inRuntime:   "runtime/p11fs/rpc.sock",
		inCache:     "cache/p11fs/rpc.sock",
		inHome:      "home/.cache/p11fs/rpc.sock",
		inMount:     "my mount/rpc.sock",
		system:      "run/p11fs/rpc.sock",
	} {
		place = filepath.Join(root, place)
		if err := os.MkdirAll(filepath.Dir(place), 0o755); err != nil {
			t.Fatal(err)
		}
		socket := fakeServe(t, 1, func(_ *rand.Rand, code uint32, call wire.Call) []byte {
			one := []byte{1, 0, 0, 0, 1}
			return honest(code, call, binary.BigEndian.AppendUint64(one, uint64(slot)))
		})
		if err := os.Chmod(socket, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(socket, place); err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(root, name) }
	everything := []string{
		"P11FS_SOCKET=" + in("named"), "P11FS_MOUNT=" + in("mount"), "XDG_RUNTIME_DIR=" + in("runtime"),
		"XDG_CACHE_HOME=" + in("cache"), "HOME=" + in("home"),
	}
	// mount is a line of /proc/self/mountinfo.
	mount := func(path, source, user string) string {
		return "99 1 0:50 / " + strings.ReplaceAll(path, " ", `\040`) + " rw,nosuid shared:5 - fuse.p11fs " + source + " rw,user_id=" + user + ",group_id=0\n"
	}
	mine := mount(in("my mount"), "p11fs", "0")
	noise := "22 1 0:20 / /proc rw - proc proc rw\n23 1 0:51 / /x rw - fuse.sshfs x rw,user_id=0\n"
	const (
		plain   = `exec "$0" "$@"`
		another = `exec setpriv --reuid 65534 --clear-groups "$0" "$@"`
		setUID  = `mount -t tmpfs tmpfs /mnt && cp "$0" /mnt/check && chown 65534 /mnt/check && chmod u+s /mnt/check && exec /mnt/check "$@"`
	)
	for _, c := range []struct {
		name   string
		env    []string
		mounts string
		as     string
		want   int
	}{
		{"a socket is named", everything, noise, plain, namedSocket},
		{"a socket is named that is not there", []string{"P11FS_SOCKET=" + in("no"), "HOME=" + in("home")}, noise, plain, noDaemon},
		{"a mount is named", everything[1:], noise, plain, namedMount},
		{"a mount is named that is not there", []string{"P11FS_MOUNT=" + in("no"), "HOME=" + in("home")}, noise, plain, noDaemon},
		{"one's own", everything[2:], noise, plain, inRuntime},
		{"without a runtime directory", everything[3:], noise, plain, inCache},
		{"a relative runtime directory", append([]string{"XDG_RUNTIME_DIR=runtime"}, everything[3:]...), noise, plain, inCache},
		{"without either", everything[4:], noise, plain, inHome},
		{"a relative cache", append([]string{"XDG_CACHE_HOME=cache"}, everything[4:]...), noise, plain, inHome},
		{"without one's own", []string{"XDG_RUNTIME_DIR=" + in("no"), "HOME=" + in("home")}, noise, plain, system},
		{"without anything", nil, noise, plain, system},
		{"another user's directory", everything[2:], noise, another, system},
		{"another user's socket is named", everything, noise, another, namedSocket},
		{"a program with more rights", everything, mine, setUID, system},
		{"one's own before a mount", everything[2:], mine, plain, inRuntime},
		{"one's own mount", nil, noise + mine, plain, inMount},
		{"one's own mount without a socket", nil, mount(in("no"), "p11fs", "0"), plain, noDaemon},
		{"two mounts of one's own", nil, mine + mount(in("mount"), "p11fs", "0"), plain, noDaemon},
		{"another user's mount", nil, mount(in("my mount"), "p11fs", "1"), plain, system},
		{"another user's mount of a false name", nil, mount(in("my mount"), ",user_id=0", "1"), plain, system},
		{"the machine's mount", nil, mount("/p11", "p11fs", "0"), plain, system},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(in("mountinfo"), []byte(c.mounts), 0o644); err != nil {
				t.Fatal(err)
			}
			if c.as != plain && os.Getuid() != 0 {
				t.Skip("only root can be another user")
			}
			b := b
			if c.as == setUID {
				b = bare
			}
			script := `mount --bind "$RUN" /run && mount --bind mountinfo "/proc/$$/mountinfo" && ` + c.as
			cmd := exec.Command(namespace[0], append(namespace[1:len(namespace):len(namespace)], "sh", "-c", script, b.check, b.module, "find")...)
			cmd.Dir = root
			cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "RUN=" + in("run"), "P11FS_TIMEOUT=0"}, c.env...)
			if got := strings.TrimSpace(run(t, cmd)); got != fmt.Sprint(c.want) {
				t.Errorf("found the daemon of slot %s, want %d", got, c.want)
			}
		})
	}
}
