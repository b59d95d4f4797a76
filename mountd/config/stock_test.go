package config

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"p11fs/p11"
)

// stockReply is the size of the structure that the stock daemon sends.
const stockReply = 925792

// TestStockAgrees gives each row to the stock daemon, in private namespaces,
// and compares its slots with ours.
func TestStockAgrees(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the stock daemon starts for root only")
	}
	daemon, err := exec.LookPath("/usr/sbin/pkcsslotd")
	if err != nil {
		t.Skip("needs the stock daemon: apt-get install opencryptoki")
	}
	program, err := elf.Open(daemon)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if out, err := exec.Command("unshare", "--mount", "--ipc", "--pid", "--fork", "true").CombinedOutput(); err != nil {
		t.Skipf("needs private namespaces: %v: %s", err, out)
	}
	for _, r := range rows() {
		if r.differs != "" {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			var want []string
			ours, _, err := Parse("the.conf", r.src)
			if err == nil {
				byID := make([]string, MaxSlots)
				for _, s := range ours.Slots {
					byID[s.ID] = summary(s)
				}
				for _, s := range byID {
					if s != "" {
						want = append(want, s)
					}
				}
			}
			got, started := askStock(t, daemon, program.ByteOrder, r.src)
			if started != (err == nil) {
				t.Fatalf("the stock daemon started: %v; we: %v", started, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("slots (-ours +stock):\n%s", diff)
			}
		})
	}
}

// askStock starts the stock daemon on a configuration and returns its slots in
// order, and whether it started. Its reply is in its own byte order, which under
// qemu is not ours.
func askStock(t *testing.T, daemon string, order binary.ByteOrder, src string) (slots []string, started bool) {
	// The test's own directory has too long a name for the socket below it.
	dir, err := os.MkdirTemp("", "stock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	for _, d := range []string{"run/lock", "etc", "lib", "log"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, "etc/opencryptoki.conf"), src)
	script := `mount --bind run /run && mount --bind etc /etc/opencryptoki &&
		mount --bind lib /var/lib/opencryptoki && mkdir -p /var/log/opencryptoki &&
		mount --bind log /var/log/opencryptoki && exec "$1" -f`
	cmd := exec.Command("unshare", "--mount", "--ipc", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh", daemon)
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exit := make(chan struct{})
	go func() {
		defer close(exit)
		_ = cmd.Wait() // how it ends does not matter, and that it does
	}()
	stop := func() {
		_ = cmd.Process.Kill()
		<-exit
	}
	// The daemon has answered nothing yet when its socket appears, and a
	// configuration that it refuses ends it after that.
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		select {
		case <-exit:
			if !strings.Contains(out.String(), "opulate slot") && !strings.Contains(out.String(), "okname") && out.Len() > 0 {
				t.Logf("the stock daemon said: %s", out.String())
			}
			return nil, false
		case <-time.After(20 * time.Millisecond):
		}
		c, err := net.Dial("unix", filepath.Join(dir, "run/pkcsslotd.socket"))
		if err != nil {
			continue
		}
		_ = c.SetDeadline(deadline)
		reply, err := io.ReadAll(c)
		_ = c.Close()
		if err != nil || len(reply) != stockReply {
			continue
		}
		stop()
		return decodeReply(order, reply), true
	}
	stop()
	t.Fatalf("the stock daemon neither answers nor ends: %s", out.String())
	return nil, false
}

// decodeReply reads the slot table of the stock daemon's reply.
func decodeReply(order binary.ByteOrder, b []byte) []string {
	var out []string
	text := func(f []byte) string {
		s, _, _ := bytes.Cut(f, []byte{0})
		return string(s)
	}
	for n := range MaxSlots {
		e := b[96+904*n:][:904]
		if e[8] == 0 {
			continue
		}
		out = append(out, summary(Slot{
			ID:           p11.SlotID(order.Uint64(e)),
			Description:  text(e[16:80]),
			Manufacturer: text(e[80:112]),
			Hardware:     p11.Version{Major: e[120], Minor: e[121]},
			Firmware:     p11.Version{Major: e[122], Minor: e[123]},
			Library:      text(e[128:384]),
			ConfName:     text(e[384:640]),
			TokenName:    text(e[640:896]),
		}))
	}
	return out
}
