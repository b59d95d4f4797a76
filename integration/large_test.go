package integration

import (
	"flag"
	"fmt"
	"testing"
)

// large is how much TestLargeInput streams.
var large = flag.Int("large", 256, "MiB that TestLargeInput streams into each operation")

// TestLargeInput streams 256 MiB, or what -large says, into each operation that takes
// data of any length, with closes on the way: the daemon's memory must not grow with it.
func TestLargeInput(t *testing.T) {
	t.Parallel()
	needTools(t, "openssl")
	const most = 16 << 20
	size := *large << 20
	if testing.Short() {
		size = min(size, 1<<27)
	}
	// Without the race detector, whose shadow memory would be measured too.
	d, term := ready(t, daemonConfig{binary: plainBinary(t)})
	prepareKeys(term)
	data := fmt.Sprintf("openssl enc -aes-128-ctr -K 00 -iv 00 -nosalt -in /dev/zero 2>/dev/null | head -c %d", size)
	warm := "head -c 10000000 /dev/zero"
	for _, c := range []struct{ name, file, check string }{
		{"digest", "$T/digest/sha256", "openssl dgst -sha256 -binary | cmp - result"},
		{"rsa", "$O/web.key/sign", "openssl dgst -sha256 -verify web.pem -signature result"},
		{"ec", "$O/ec.key/sign", "openssl dgst -sha256 -verify ec.pem -signature result"},
	} {
		t.Run(c.name, func(t *testing.T) {
			term.ok(warm + " | cat > " + c.file + " && cat " + c.file + " > /dev/null")
			before := d.resident()
			term.ok(data + " | (head -c 1000000; head -c 50000000; cat) > " + c.file)
			grown := d.resident() - before
			term.ok("cat " + c.file + " > result")
			t.Logf("grown by %d KiB", grown>>10)
			if grown >= most {
				t.Errorf("resident memory grew by %d bytes, want less than %d", grown, most)
			}
			term.ok(data + " | " + c.check)
		})
	}
	t.Run("stream", func(t *testing.T) {
		before := d.resident()
		term.ok(data + " | p11fs encrypt aes > c")
		grown := d.resident() - before
		t.Logf("grown by %d KiB", grown>>10)
		if grown >= 2*most { // buffers of 1 MiB on their way
			t.Errorf("resident memory grew by %d bytes, want less than %d", grown, 2*most)
		}
		term.ok("p11fs decrypt aes < c | openssl dgst -sha256 -binary > result; rm c")
		term.ok(data + " | openssl dgst -sha256 -binary | cmp - result")
	})
}
