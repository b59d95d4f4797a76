package mountd

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSystemPaths(t *testing.T) {
	for _, c := range []struct {
		root string
		want Paths
	}{
		{"", Paths{
			Config: "/etc/opencryptoki/opencryptoki.conf", Policy: "/etc/opencryptoki/policy.conf", Strength: "/etc/opencryptoki/strength.conf", Grants: "/etc/p11fs/grants.d", Data: "/var/lib/opencryptoki",
			Locks: "/var/lock/opencryptoki", Guard: "/var/lock/opencryptoki/LCK..p11fs", Mount: "/p11", RPC: "/run/p11fs/rpc.sock",
			SlotDaemon: "/usr/sbin/pkcsslotd", SlotSocket: "/var/run/pkcsslotd.socket", SlotConfig: "/etc/opencryptoki/opencryptoki.conf", PIDFile: "/var/run/pkcsslotd.pid", SharedMemory: "/dev/shm", Trace: "/var/log/opencryptoki",
		}},
		{"/tmp/r", Paths{
			Config: "/tmp/r/etc/opencryptoki/opencryptoki.conf", Policy: "/tmp/r/etc/opencryptoki/policy.conf", Strength: "/tmp/r/etc/opencryptoki/strength.conf", Grants: "/tmp/r/etc/p11fs/grants.d", Data: "/tmp/r/var/lib/opencryptoki",
			Locks: "/tmp/r/var/lock/opencryptoki", Guard: "/tmp/r/var/lock/opencryptoki/LCK..p11fs", Mount: "/tmp/r/p11", RPC: "/tmp/r/run/p11fs/rpc.sock",
			SlotDaemon: "/tmp/r/usr/sbin/pkcsslotd", SlotSocket: "/tmp/r/var/run/pkcsslotd.socket", SlotConfig: "/tmp/r/etc/opencryptoki/opencryptoki.conf", PIDFile: "/tmp/r/var/run/pkcsslotd.pid",
			SharedMemory: "/tmp/r/dev/shm",
			Trace:        "/tmp/r/var/log/opencryptoki",
		}},
	} {
		if diff := cmp.Diff(c.want, SystemPaths(c.root)); diff != "" {
			t.Errorf("root %q (-want +got):\n%s", c.root, diff)
		}
	}
}

func TestUserPaths(t *testing.T) {
	for _, c := range []struct {
		name string
		home string
		env  map[string]string
		want Paths
	}{
		{"home only", "/home/a", nil, Paths{
			Config: "/home/a/.config/p11fs/opencryptoki.conf", Policy: "/home/a/.config/p11fs/policy.conf", Strength: "/home/a/.config/p11fs/strength.conf", Grants: "/home/a/.config/p11fs/grants.d", Data: "/home/a/.local/share/p11fs",
			Locks: "/home/a/.local/share/p11fs/.lock", Guard: "/home/a/.local/share/p11fs/.lock/LCK..p11fs",
			Mount: "/home/a/p11", RPC: "/home/a/.cache/p11fs/rpc.sock",
		}},
		{"all set", "", map[string]string{"XDG_DATA_HOME": "/d", "XDG_CONFIG_HOME": "/c", "XDG_RUNTIME_DIR": "/r"}, Paths{
			Config: "/c/p11fs/opencryptoki.conf", Policy: "/c/p11fs/policy.conf", Strength: "/c/p11fs/strength.conf", Grants: "/c/p11fs/grants.d", Data: "/d/p11fs",
			Locks: "/d/p11fs/.lock", Guard: "/d/p11fs/.lock/LCK..p11fs", Mount: "/r/p11", RPC: "/r/p11fs/rpc.sock",
		}},
		{"relative is ignored", "/home/a", map[string]string{"XDG_DATA_HOME": "d", "XDG_RUNTIME_DIR": "./r"}, Paths{
			Config: "/home/a/.config/p11fs/opencryptoki.conf", Policy: "/home/a/.config/p11fs/policy.conf", Strength: "/home/a/.config/p11fs/strength.conf", Grants: "/home/a/.config/p11fs/grants.d", Data: "/home/a/.local/share/p11fs",
			Locks: "/home/a/.local/share/p11fs/.lock", Guard: "/home/a/.local/share/p11fs/.lock/LCK..p11fs",
			Mount: "/home/a/p11", RPC: "/home/a/.cache/p11fs/rpc.sock",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := UserPaths(func(k string) string { return c.env[k] }, c.home)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if got, err := UserPaths(func(string) string { return "" }, ""); err == nil {
		t.Errorf("without a home: got %+v", got)
	}
}
