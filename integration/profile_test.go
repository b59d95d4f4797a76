package integration

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

// TestProfileSocket: who runs a daemon sees for a second where its time goes, while it works,
// as the manual page has it; nobody else does; a daemon that was killed leaves nothing in the
// way of the next, and one that ends takes the socket with it.
func TestProfileSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "prof") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	d, term := ready(t, daemonConfig{args: []string{"--profile-socket", socket}})
	term.ok("echo 'ec:p256 label=busy' > $T/generate && cat $T/generate")

	enough := filepath.Join(dir, "enough")
	works := term.start("until test -e " + enough + "; do echo hello > $O/busy.key/sign && cat $O/busy.key/sign > /dev/null; done")
	// A machine with much else to do may give the daemon no time in that second.
	busy := false
	for range 20 {
		if busy = bytes.Contains(profileOf(t, socket, "profile?seconds=1"), []byte("p11fs/")); busy {
			break
		}
	}
	if !busy {
		t.Error("the time of a daemon that works goes nowhere")
	}
	if err := os.WriteFile(enough, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := works(); r.status != 0 {
		t.Errorf("the work: %+v", r)
	}
	for page, want := range map[string]string{"goroutine": "p11fs/mountd", "heap": "p11fs/"} {
		profile := profileOf(t, socket, page)
		if !bytes.Contains(profile, []byte(want)) {
			t.Errorf("%s has nothing of %s", page, want)
		}
		if bytes.Contains(profile, []byte(userPIN)) {
			t.Errorf("%s has the PIN", page)
		}
	}
	if fi, err := os.Stat(socket); err != nil || fi.Mode().Perm()&0o077 != 0 {
		t.Errorf("others than its user may use the socket: %v, %v", fi.Mode(), err)
	}

	d.crash()
	d.start()
	profileOf(t, socket, "goroutine")
	d.stop()
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

// profileOf is a profile that the daemon gives at its socket, unpacked.
func profileOf(t *testing.T, socket, page string) []byte {
	t.Helper()
	c := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://p11fs/"+page, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	packed, err := gzip.NewReader(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", page, resp.Status, err)
	}
	b, err := io.ReadAll(packed)
	if err != nil {
		t.Fatalf("%s: %v", page, err)
	}
	return b
}
