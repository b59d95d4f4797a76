package cgroup

import (
	"os"
	"testing"
)

func TestSystem(t *testing.T) {
	for path, want := range map[string]string{
		"/":                                   "",
		"":                                    "",
		"/system.slice":                       "",
		"/system.slice/nginx.service":         "nginx.service",
		"/system.slice/nginx.service/workers": "nginx.service",
		"/system.slice/nginx.service/cron.service":                                 "nginx.service",
		"/system.slice/system-getty.slice/getty@tty1.service":                      "getty@tty1.service",
		"/user.slice/user-1000.slice/session-3.scope":                              "session-3.scope",
		"/user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service":    "user@1000.service",
		"/user.slice/user-1000.slice/user@1000.service/system.slice/nginx.service": "user@1000.service",
		"/init.scope":                       "init.scope",
		"/../../system.slice/nginx.service": "",
		"/docker/0123":                      "",
		"/system.slice/docker-0123.scope":   "docker-0123.scope",
		"/lxc/x/system.slice/nginx.service": "",
		"//system.slice//nginx.service":     "nginx.service",
	} {
		if got := System(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestUser(t *testing.T) {
	const base = "/user.slice/user-1000.slice/user@1000.service"
	for path, want := range map[string]string{
		base + "/app.slice/backup.service": "backup.service",
		base + "/backup.service/x":         "backup.service",
		base:                               "",
		"/system.slice/backup.service":     "",
		"/user.slice/user-1001.slice/user@1001.service/app.slice/backup.service": "",
	} {
		if got := User(path, 1000); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestPath(t *testing.T) {
	for text, want := range map[string]string{
		"0::/system.slice/a.service\n":                               "/system.slice/a.service",
		"9:name=systemd:/system.slice/a.service\n8:pids:/b\n0::/c\n": "/system.slice/a.service",
		"0::/c\n9:name=systemd:/system.slice/a.service\n":            "/system.slice/a.service",
		"0::/system.slice/x:y@1.service\n":                           "/system.slice/x:y@1.service",
		"8:pids:/b\n":                                                "", "": "", "0\n": "",
	} {
		if got := path(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if Unit(1<<30, 0) != "" {
		t.Error("a process that is not there has a unit")
	}
	Unit(os.Getpid(), 0) // whatever it is
}
