package integration

import (
	"strings"
	"testing"
)

// TestMechanismExamples pastes the example of every mechanism that p11fs mechanisms tells into
// a shell over the mount, as it stands, one after the other.
func TestMechanismExamples(t *testing.T) {
	t.Parallel()
	needTools(t, "openssl")
	d, term := ready(t, daemonConfig{binary: plainBinary(t)})
	told := term.ok("cut -d' ' -f1 $T/mechanisms | while read m; do echo \"== $m\"; " + plainBinary(t) + " mechanisms $m | sed -n '/^example/,$ s/^............//p'; done")
	ran := 0
	for _, one := range strings.Split(told, "== ")[1:] {
		name, text, _ := strings.Cut(one, "\n")
		switch {
		case strings.HasPrefix(name, "x9-42-dh-"): // the primes of its keys fill a page
			continue
		case strings.HasSuffix(name, "-parameter-gen"): // looks for primes, which takes long
			continue
		}
		ran++
		if r := term.run("(set -e\n" + text + ")"); r.status != 0 {
			t.Errorf("%s: %s%s%s", name, text, r.err, term.run("cat $T/error").out)
		}
	}
	if ran < 100 {
		t.Errorf("%d examples only", ran)
	}
	d.stop()
}
