package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/term"
)

// A progress shows on a terminal how much was read.
type progress struct {
	done  atomic.Int64
	total int64 // 0 if it is not known
	ended chan struct{}
	gone  chan struct{}
}

// barTime is how long a command runs before it shows a bar, and then between two.
const barTime = 250 * time.Millisecond

// startProgress shows a bar, unless standard error is no terminal or what is read or
// written stands there too.
func startProgress(s streams, toFile bool) *progress {
	p := &progress{ended: make(chan struct{}), gone: make(chan struct{})}
	if !isTerminal(s.err) || isTerminal(s.in) || !toFile && isTerminal(s.out) {
		close(p.gone)
		return p
	}
	if st, err := s.in.Stat(); err == nil && st.Mode().IsRegular() {
		at, _ := s.in.Seek(0, io.SeekCurrent)
		p.total = st.Size() - at
	}
	go p.show(s.err, time.Now())
	return p
}

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (p *progress) show(w io.Writer, begun time.Time) {
	defer close(p.gone)
	tick := time.NewTicker(barTime)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			fmt.Fprintf(w, "\r%s\x1b[K", p.line(now.Sub(begun)))
		case <-p.ended:
			fmt.Fprint(w, "\r\x1b[K")
			return
		}
	}
}

// line is the bar after some time.
func (p *progress) line(since time.Duration) string {
	const width = 30
	done, rate := p.done.Load(), float64(p.done.Load())/since.Seconds()
	text := fmt.Sprintf("%8.1f MiB  %6.1f MiB/s", float64(done)/(1<<20), rate/(1<<20))
	if p.total <= 0 || done > p.total || done == 0 {
		return text
	}
	part := float64(done) / float64(p.total)
	bar := strings.Repeat("=", int(part*width))
	left := time.Duration(float64(p.total-done) / rate * float64(time.Second)).Round(time.Second)
	return fmt.Sprintf("[%-*s] %3.0f %%  %s  %s left", width, bar, part*100, text, left)
}

// stop takes the bar away.
func (p *progress) stop() {
	close(p.ended)
	<-p.gone
}

// counting is r, of which the bar shows how much was read.
func (p *progress) counting(r io.Reader) io.Reader { return countingReader{r, p} }

type countingReader struct {
	io.Reader
	p *progress
}

func (c countingReader) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.p.done.Add(int64(n))
	return n, err
}
