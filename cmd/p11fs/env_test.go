package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"testing"
)

// A shell that evaluates what p11fs env prints has the paths byte for byte.
func TestEnv(t *testing.T) {
	odd := "/tmp/o'dd $(false) 100%;,é"
	for _, c := range []struct {
		name        string
		args        []string
		runtime     string
		cache       string
		socket, kit string
	}{
		{name: "user", runtime: "/run/user/7", socket: "/run/user/7/p11fs/rpc.sock", kit: "unix:path=/run/user/7/p11fs/rpc.sock"},
		{name: "no runtime directory", cache: "/c", socket: "/c/p11fs/rpc.sock", kit: "unix:path=/c/p11fs/rpc.sock"},
		{name: "odd characters", runtime: odd, socket: odd + "/p11fs/rpc.sock",
			kit: "unix:path=/tmp/o%27dd%20$%28false%29%20100%25%3B%2C%C3%A9/p11fs/rpc.sock"},
		{name: "system", args: []string{"--system"}, socket: "/run/p11fs/rpc.sock", kit: "unix:path=/run/p11fs/rpc.sock"},
		{name: "root", args: []string{"--root", "/r"}, socket: "/r/run/p11fs/rpc.sock", kit: "unix:path=/r/run/p11fs/rpc.sock"},
	} {
		t.Run(c.name, func(t *testing.T) {
			home := t.TempDir()
			t.Setenv("HOME", home)
			t.Setenv("XDG_RUNTIME_DIR", c.runtime)
			t.Setenv("XDG_CACHE_HOME", c.cache)
			t.Setenv("XDG_DATA_HOME", filepath.Join(home, "data"))
			var out, errs bytes.Buffer
			if err := run(t.Context(), append([]string{"env"}, c.args...), streams{out: &out, err: &errs}); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("sh", "-c", out.String()+`printf '%s\n%s\n' "$P11FS_SOCKET" "$P11_KIT_SERVER_ADDRESS"`)
			got, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s\n%s", err, got, out.Bytes())
			}
			if want := c.socket + "\n" + c.kit + "\n"; string(got) != want {
				t.Errorf("the shell has\n%swant\n%s", got, want)
			}
		})
	}
}
