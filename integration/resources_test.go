package integration

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A resourceLine is one line of /p11/resources. Numbers that are not told are
// negative.
type resourceLine struct {
	name, state        string
	count, size, users int64
}

// readResources reads the list, and its names in order.
func readResources(t testing.TB, text string) (map[string]resourceLine, []string) {
	t.Helper()
	all := map[string]resourceLine{}
	var names []string
	for i, line := range lines(text) {
		f := strings.Fields(line)
		if i == 0 {
			if line := strings.Join(f, " "); line != "name count size users state" {
				t.Errorf("the first line is %q", line)
			}
			continue
		}
		if len(f) != 5 {
			t.Fatalf("line %q has not five fields", line)
		}
		number := func(s string) int64 {
			if s == "-" {
				return -1
			}
			n, err := strconv.ParseInt(s, 10, 64)
			if err != nil {
				t.Fatalf("line %q: %v", line, err)
			}
			return n
		}
		all[f[0]] = resourceLine{name: f[0], count: number(f[1]), size: number(f[2]), users: number(f[3]), state: f[4]}
		names = append(names, f[0])
	}
	return all, names
}

// TestResources compares the list of resources with what the system's own tools
// show, on a machine where ours is the slot daemon of two tokens, a stock
// process is attached, and the trace is on.
func TestResources(t *testing.T) {
	t.Parallel()
	needTools(t, "ipcs", "ss", "setpriv")
	h := newSlotHost(t, stockConfig+"slot 1\n{\nstdll = libpkcs11_sw.so\ntokname = other\nconfname = other.conf\n}\nslot 2\n{\nstdll = libpkcs11_ep11.so\nconfname = ep11tok.conf\n}\n")
	h.ok("export OPENCRYPTOKI_TRACE_LEVEL=4; cd $STATE")
	h.startSlotd()
	h.ok("T=/p11/swtok; echo init " + soPIN + " 'resources' > $T/ctl && echo so:" + soPIN + " > $T/login && echo init-pin " + userPIN + " > $T/ctl && echo > $T/logout && echo " + userPIN + " > $T/login")
	h.ok("echo 'rsa:2048 label=web' > $T/generate && echo 'aes:256 label=open private=false' > $T/generate")
	h.ok("mkdir $T/sessions/one && echo 'aes:128 label=short token=false private=false' > $T/sessions/one/generate && echo 'aes:128 label=hidden token=false' > $T/sessions/one/generate")
	text := h.ok("cat /p11/resources")
	all, names := readResources(t, text)
	h.want("p11fs status --mount /p11 --resources | awk '{ print $1 }'", strings.Join(append([]string{"name"}, names...), "\n")+"\n")

	t.Run("order", func(t *testing.T) {
		kinds := []string{"shm", "socket", "lock", "trace", "config", "token", "objects", "mutex", "tree"}
		var got []string
		for _, name := range names {
			kind, _, _ := strings.Cut(name, "/")
			if len(got) == 0 || got[len(got)-1] != kind {
				got = append(got, kind)
			}
		}
		if !slices.Equal(got, kinds) {
			t.Errorf("the kinds come as %q, want %q", got, kinds)
		}
	})
	check := func(t *testing.T, name string, count, size, users int64) {
		t.Helper()
		got, ok := all[name]
		if want := (resourceLine{name, "on", count, size, users}); !ok || got != want {
			t.Errorf("%s: %+v, want %+v\n%s", name, got, want, text)
		}
	}
	number := func(line string) int64 {
		n, err := strconv.ParseInt(strings.TrimSpace(h.ok(line)), 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return n
	}
	t.Run("shared memory", func(t *testing.T) {
		// key shmid owner perms bytes nattch
		f := strings.Fields(h.ok("ipcs -m | grep ^0x"))
		if len(f) < 6 || f[2] != "root" || f[3] != "660" {
			t.Fatalf("ipcs -m: %q", f)
		}
		size, _ := strconv.ParseInt(f[4], 10, 64)
		attached, _ := strconv.ParseInt(f[5], 10, 64)
		check(t, "shm/slot-manager", 1, size, attached)
		h.want("ipcs -m -i "+f[1]+" | grep -o 'gid=[0-9]*' | head -n 1", "gid="+h.ok("getent group pkcs11 | cut -d: -f3"))
		segments := lines(h.ok("ls /dev/shm"))
		var want []string
		for name := range all {
			if token, ok := strings.CutPrefix(name, "shm/"); ok && token != "slot-manager" {
				segment := "var.lib.opencryptoki." + token
				want = append(want, segment)
				check(t, name, 1, number("stat -c %s /dev/shm/"+segment), number("od -An -tu4 -N4 /dev/shm/"+segment))
				h.want("stat -c '%a %U %G' /dev/shm/"+segment, "660 root pkcs11\n")
			}
		}
		slices.Sort(want)
		if !slices.Equal(segments, want) || len(want) != 2 {
			t.Errorf("/dev/shm holds %q, the list %q", segments, want)
		}
	})
	t.Run("sockets", func(t *testing.T) {
		paths := map[string]string{"socket/slots": "/var/run/pkcsslotd.socket", "socket/rpc": "/run/p11fs/rpc.sock"}
		listening := h.ok("ss -xlH | awk '{ print $5 }'")
		for name, path := range paths {
			if all[name].state != "on" || all[name].count != 1 {
				t.Errorf("%+v", all[name])
			}
			if !strings.Contains(listening, path) && !strings.Contains(listening, strings.TrimPrefix(path, "/var")) {
				t.Errorf("nobody listens on %s:\n%s", path, listening)
			}
		}
	})
	t.Run("lock files", func(t *testing.T) {
		var want []string
		for name, r := range all {
			if strings.HasPrefix(name, "lock/") {
				want = append(want, map[string]string{
					"lock/api": "LCK..APIlock", "lock/daemon": "LCK..p11fs",
					"lock/swtok": "swtok/LCK..swtok", "lock/other": "other/LCK..other",
				}[name])
				if r.state != "on" || r.count != 1 {
					t.Errorf("%+v", r)
				}
			}
		}
		slices.Sort(want)
		if got := lines(h.ok("cd /var/lock/opencryptoki && find . -type f | sed 's|^./||' | LC_ALL=C sort")); !slices.Equal(got, want) {
			t.Errorf("/var/lock/opencryptoki holds %q, the list %q", got, want)
		}
		// Nothing but the daemon's own lock is held while nothing happens.
		inode := h.ok("stat -c %i /var/lock/opencryptoki/LCK..p11fs")
		if held := h.ok("grep FLOCK /proc/locks | grep -c ':" + strings.TrimSpace(inode) + " ' || true"); held != "1\n" {
			t.Errorf("%s locks in /proc/locks on LCK..p11fs", held)
		}
		for _, file := range []string{"LCK..APIlock", "swtok/LCK..swtok", "other/LCK..other"} {
			h.ok("flock --nonblock /var/lock/opencryptoki/" + file + " true")
			h.want("stat -c '%a %G %s' /var/lock/opencryptoki/"+file, "440 pkcs11 0\n")
		}
	})
	t.Run("trace", func(t *testing.T) {
		pid := strings.TrimSpace(h.ok("echo $slotd"))
		file := "/var/log/opencryptoki/trace." + pid
		h.want("ls /var/log/opencryptoki; stat -c '%a %U %G' "+file, "trace."+pid+"\n640 root pkcs11\n")
		if r := all["trace/trace."+pid]; r.state != "on" || r.count != 1 || r.size <= 0 || r.size > number("stat -c %s "+file) {
			t.Errorf("%+v", r)
		}
		h.ok(`! grep -vE '^[0-9]{2}/[0-9]{2}/[0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} \[[a-z_]+\.go:[0-9]+ (api|swtok|other)\] (ERROR|WARN|INFO|DEVEL): ' ` + file)
		h.ok("! grep -qE '" + userPIN + "|" + soPIN + "' " + file)
	})
	t.Run("configuration", func(t *testing.T) {
		check(t, "config/opencryptoki.conf", 1, number("stat -c %s /etc/opencryptoki/opencryptoki.conf"), 1)
		if r := all["config/other.conf"]; r.state != "absent" {
			t.Errorf("%+v", r)
		}
		if _, ok := all["config/ep11tok.conf"]; !ok {
			t.Error("ep11tok.conf is not listed")
		}
	})
	t.Run("token files", func(t *testing.T) {
		for _, token := range []string{"swtok", "other"} {
			dir := filepath.Join("/var/lib/opencryptoki", token)
			for _, file := range []string{"NVTOK.DAT", "MK_SO", "MK_USER"} {
				name := "token/" + token + "/" + file
				if h.run("[ -e "+dir+"/"+file+" ]").status != 0 {
					if r := all[name]; r.state != "absent" || r.count != 0 {
						t.Errorf("%+v", r)
					}
					continue
				}
				check(t, name, 1, number("stat -c %s "+dir+"/"+file), 1)
				h.want("stat -c '%a %G' "+dir+"/"+file, "660 pkcs11\n")
			}
		}
	})
	t.Run("objects and trees", func(t *testing.T) {
		// The key pair's public half and the open AES keys; the private half and the
		// private session key are in no number.
		check(t, "objects/swtok/public", 2, -1, 1)
		check(t, "objects/other/public", 0, -1, 1)
		if r := all["objects/swtok/private"]; r.count != 0 || r.size != -1 || r.state != "hidden" {
			t.Errorf("%+v", r)
		}
		if files := number("ls /var/lib/opencryptoki/swtok/TOK_OBJ | grep -vc '\\.'"); files != 3 {
			t.Errorf("%d object files", files)
		}
		for name, count := range map[string]int64{"sessions": 2, "session-objects": 1, "public-token-objects": 2, "object-handles": 3} {
			if r := all["tree/"+name]; r.count != count || r.state != "on" {
				t.Errorf("%+v, want %d\n%s", r, count, text)
			}
		}
		if r := all["tree/private-token-objects"]; r.state != "hidden" || r.count != 0 {
			t.Errorf("%+v", r)
		}
		for _, name := range []string{"mutex/engine", "mutex/tokens", "mutex/sessions", "mutex/applications"} {
			if all[name].state != "on" {
				t.Errorf("%+v", all[name])
			}
		}
	})
	t.Run("it is live", func(t *testing.T) {
		h.dumper()
		h.ok("$dump hold " + h.module + " 0 2 0 > held & tool=$!; for i in $(seq 200); do [ -s held ] && break; sleep 0.05; done; [ -s held ]")
		with, _ := readResources(t, h.ok("cat /p11/resources"))
		for _, name := range []string{"shm/slot-manager", "shm/swtok"} {
			if got, want := with[name].users, all[name].users+1; got != want {
				t.Errorf("%s has %d users with a stock process, want %d", name, got, want)
			}
		}
		h.ok("kill $tool; wait $tool || :")
		h.ok("rmdir $T/objects/open.sec && rmdir $T/sessions/one")
		now, _ := readResources(t, h.ok("cat /p11/resources"))
		if a, b := now["objects/swtok/public"].count, now["tree/session-objects"].count; a != 1 || b != 0 {
			t.Errorf("%d public objects and %d session objects, want 1 and 0", a, b)
		}
	})
	h.endSlotd()
	// The token segments are stock processes' too, and stay.
	if left := h.ok("ipcs -m | grep ^0x || true; ss -xlH | awk '{ print $5 }' | grep -E 'pkcsslotd|p11fs' || true"); left != "" {
		t.Errorf("left after the end: %s", left)
	}
	h.stop()
}
