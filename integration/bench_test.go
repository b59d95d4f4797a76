package integration

import (
	"os"
	"testing"
	"time"
)

// memoryDir is a directory whose files are memory. It goes with the benchmark, whatever
// becomes of the shell that uses it.
func memoryDir(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "p11fs-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			b.Error(err)
		}
	})
	return dir
}

// BenchmarkStream encrypts and decrypts 1 GiB in memory files by the program, and does
// the same with openssl enc. The ratio is that of their speeds, by turns in one run.
func BenchmarkStream(b *testing.B) {
	needTools(b, "openssl")
	_, term := ready(b, daemonConfig{binary: plainBinary(b)})
	term.ok("cd " + memoryDir(b) + " && p11fs generate swtok aes:256 label=disk && head -c 1073741824 /dev/urandom > plain && p11fs encrypt disk < plain > sealed")
	for _, c := range []struct{ name, line string }{
		{"encrypt", "p11fs encrypt disk < plain > out"},
		{"decrypt", "p11fs decrypt disk < sealed > out"},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(1 << 30)
			var ours, theirs time.Duration
			for b.Loop() {
				begun := time.Now()
				term.ok(c.line)
				ours += time.Since(begun)
				b.StopTimer()
				begun = time.Now()
				term.ok("openssl enc -aes-256-ctr -K 00 -iv 00 -nosalt < plain > out 2>/dev/null")
				theirs += time.Since(begun)
				b.StartTimer()
			}
			b.ReportMetric(float64(theirs)/float64(ours), "of-openssl")
		})
	}
}
