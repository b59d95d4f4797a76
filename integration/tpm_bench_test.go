package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"p11fs/tokens/tpm"
	"p11fs/tokens/tpm/tpmtest"
)

// tpmPeer is the module of libtpm2-pkcs11-1. contrib/setup.sh keeps it from p11-kit.
const tpmPeer = "/usr/lib/*/pkcs11/libtpm2_pkcs11.so"

// BenchmarkTPMAgainstPeer has the keys of a software TPM used through libp11fs.so, and
// through tpm2-pkcs11 of another one, by turns in one run, of which the fastest counts. Each
// figure is how many times faster p11fs is: to start (load the module, initialise it, open a
// session), to log in, as the first and while somebody is, and to sign with RSA of 2048 bits
// and on P-256; and the same of the processor time of the program, the daemon and the TPM,
// which what else the machine does changes little. "bound" is what the figure of RSA
// could be at most: if p11fs took none of the time, and the TPM alone its own. On an idle
// machine that is 2.2: of the 2.8 ms of a signature one command of the TPM takes 2.4, ten
// times what openssl speed says of such keys. Run it with -benchtime=3x.
func BenchmarkTPMAgainstPeer(b *testing.B) {
	needTools(b, "swtpm", "pkcs11-tool", "python3")
	found, _ := filepath.Glob(tpmPeer)
	need(b, len(found) > 0, tpmPeer)
	ports := func() int {
		for {
			port := freePort(b)
			if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+1)); err == nil {
				_ = l.Close()
				return port
			}
		}
	}
	own, peer := tpmtest.Start(b, nil), tpmtest.Start(b, nil)
	own.Listen(b, ports())
	port := ports()
	peer.Listen(b, port)

	d, term := ready(b, daemonConfig{token: tpm.Kind, modern: true, wrap: []string{"env", "P11FS_TPM=" + own.Device()}})
	term.ok("p11fs generate tpm rsa:2048 label=rsa && p11fs generate tpm ec:p256 label=ec")

	ours := append(os.Environ(), d.env()...)
	store := workDir(b, "peer")
	theirs := append(os.Environ(), "TPM2_PKCS11_STORE="+store, fmt.Sprintf("TPM2_PKCS11_TCTI=swtpm:host=127.0.0.1,port=%d", port))
	for _, args := range [][]string{
		{"--slot-index", "0", "--init-token", "--label", "test token", "--so-pin", soPIN},
		{"--login", "--login-type", "so", "--so-pin", soPIN, "--init-pin", "--new-pin", userPIN},
		{"--login", "--pin", userPIN, "--keypairgen", "--key-type", "rsa:2048", "--label", "rsa"},
		{"--login", "--pin", userPIN, "--keypairgen", "--key-type", "EC:prime256v1", "--label", "ec"},
	} {
		c := exec.Command("pkcs11-tool", append([]string{"--module", found[0]}, args...)...)
		c.Env = theirs
		if out, err := c.CombinedOutput(); err != nil {
			b.Fatalf("%v: %v\n%s", c, err, out)
		}
		peer.Restart(b) // it flushes nothing, and there is no resource manager
	}

	took := map[string][3]float64{}
	for b.Loop() {
		for _, side := range []struct {
			name, module, before, seconds string
			env                           []string
			pids                          []int
		}{
			{"p11fs-first", ownModule(b), "p11fs logout tpm", "0", ours, []int{own.PID(), d.pid()}},
			{"p11fs", ownModule(b), "echo " + userPIN + " > $T/login", "2", ours, []int{own.PID(), d.pid()}},
			{"tpm2-pkcs11", found[0], "true", "2", theirs, []int{peer.PID()}},
		} {
			term.ok(side.before)
			c := exec.Command("python3", "-B", "testdata/tpm_speed.py", side.module, "test token", userPIN, side.seconds)
			for _, pid := range side.pids {
				c.Args = append(c.Args, strconv.Itoa(pid))
			}
			c.Env = side.env
			out, err := c.Output()
			if err != nil {
				b.Fatalf("%v: %v\n%s", c, err, out)
			}
			for line := range strings.Lines(string(out)) {
				noteTime(b, took, side.name, line)
			}
		}
		peer.Restart(b)
	}
	b.ReportMetric(0, "ns/op") // says nothing here
	took["first-login p11fs"], took["first-login tpm2-pkcs11"] = took["login p11fs-first"], took["login tpm2-pkcs11"]
	for _, what := range []string{"start", "first-login", "login", "rsa", "ec"} {
		own, peer := took[what+" p11fs"], took[what+" tpm2-pkcs11"]
		b.ReportMetric(peer[0]/own[0], what+"-times-peer")
		b.ReportMetric(peer[1]/own[1], what+"-processor-times-peer")
		if what == "rsa" {
			b.ReportMetric(peer[0]/own[2], "rsa-bound-times-peer")
		}
	}
}

// noteTime keeps the least that a line of testdata/tpm_speed.py tells of one side: the
// milliseconds of something in all, of processors, and the TPM's of that.
func noteTime(b *testing.B, took map[string][3]float64, side, line string) {
	b.Helper()
	var what string
	var ms [3]float64
	if _, err := fmt.Sscan(line, &what, &ms[0], &ms[1], &ms[2]); err != nil {
		b.Fatal(err)
	}
	b.Logf("%s: %s takes %.2f ms, %.2f of processors, %.2f of that the TPM's", side, what, ms[0], ms[1], ms[2])
	best, ok := took[what+" "+side]
	for i := range ms {
		if !ok || ms[i] < best[i] {
			best[i] = ms[i]
		}
	}
	took[what+" "+side] = best
}
