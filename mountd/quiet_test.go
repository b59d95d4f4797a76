package mountd

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestLogIsQuiet: what is said again and again is logged some times a minute, with how
// often it was not, and holds up nothing else.
func TestLogIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(newQuietHandler(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
		const times = 1000
		lines := func(word string) (n int) {
			for line := range strings.Lines(out.String()) {
				if strings.Contains(line, word) {
					n++
				}
			}
			return n
		}
		for n := range times {
			log.With("client", n).Info("a client went away")
			log.Debug("a detail")
		}
		log.Warn("something else")
		if n := lines("went away"); n != quietLines {
			t.Errorf("%d lines of %d", n, times)
		}
		if lines("left out") != 1 || lines("something else") != 1 || lines("a detail") != times {
			t.Errorf("not what was said:\n%s", &out)
		}
		out.Reset()
		time.Sleep(quietTime)
		log.Info("a client went away")
		if lines("omitted=950") != 1 {
			t.Errorf("a minute later:\n%s", &out)
		}
	})
}
