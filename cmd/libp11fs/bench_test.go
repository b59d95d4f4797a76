package libp11fs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const softHSM = "/usr/lib/softhsm/libsofthsm2.so"

// kitClient is the path of p11-kit's client module.
func kitClient() (path string, ok bool) {
	// The pattern is right, so there is no error.
	found, _ := filepath.Glob("/usr/lib/*/pkcs11/p11-kit-client.so")
	if len(found) == 0 {
		return "", false
	}
	return found[0], true
}

// BenchmarkLatency prints what a call that does nothing takes, and a P-256
// signature (C_SignInit and C_Sign), in microseconds: the median of 11 runs of
// thousands of calls. In process is the least that there can be.
func BenchmarkLatency(b *testing.B) {
	built := compile(b, "")
	d := serve(b)
	type path struct {
		name, module string
		env          []string
	}
	paths := []path{{"libp11fs", built.module, environment(d.socket)}}
	client, hasClient := kitClient()
	if hasClient {
		paths = append(paths, path{"p11-kit-client", client, append(environment(d.socket), "P11_KIT_SERVER_ADDRESS=unix:path="+d.socket)})
	}
	if _, err := os.Stat(softHSM); err == nil {
		env := softToken(b)
		paths = append(paths, path{"SoftHSM2 in process", softHSM, env})
		if hasClient {
			if address, ok := kitServer(b, env); ok {
				paths = append(paths, path{"p11-kit server, SoftHSM2", client, append(env, "P11_KIT_SERVER_ADDRESS="+address)})
			}
		}
	}
	for _, p := range paths {
		b.Run(p.name, func(b *testing.B) {
			var info, sign float64
			for range b.N {
				c := exec.Command(built.check, p.module, "bench", "0")
				c.Env = p.env
				if _, err := fmt.Sscan(run(b, c), &info, &sign); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(0, "ns/op") // says nothing here
			b.ReportMetric(info, "info-us")
			b.ReportMetric(sign, "sign-us")
		})
	}
}

// softToken makes a token of SoftHSM2 with the PIN of the others, and returns the
// environment that leads to it.
func softToken(b *testing.B) []string {
	b.Helper()
	dir := b.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+dir+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	env := append(os.Environ(), "SOFTHSM2_CONF="+conf)
	c := exec.Command(need(b, "softhsm2-util"), "--init-token", "--free", "--label", "bench", "--so-pin", soPIN, "--pin", userPIN)
	c.Env = env
	if out, err := c.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return env
}

// kitServer runs p11-kit's own server over SoftHSM2.
func kitServer(b *testing.B, env []string) (address string, ok bool) {
	b.Helper()
	program, err := exec.LookPath("p11-kit")
	if err != nil {
		return "", false
	}
	socket := filepath.Join(b.TempDir(), "kit")
	c := exec.Command(program, "server", "-f", "-n", socket, "--provider", softHSM, "pkcs11:token=bench")
	c.Env = env
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait() // killed
	})
	for range 100 {
		if _, err := os.Stat(socket); err == nil {
			return "unix:path=" + socket, true
		}
		time.Sleep(20 * time.Millisecond)
	}
	b.Log(strings.Join(c.Args, " "), "made no socket")
	return "", false
}
