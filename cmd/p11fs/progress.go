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

// A progress shows on a terminal how much was read, or how many objects are done.
type progress struct {
	done  atomic.Int64
	total atomic.Int64 // 0 if it is not known
	count bool         // of objects
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
		p.total.Store(st.Size() - at)
	}
	go p.show(s.err, time.Now())
	return p
}

// startCount shows a bar of the objects that are done, unless standard error is no
// terminal.
func startCount(s streams) *progress {
	p := &progress{count: true, ended: make(chan struct{}), gone: make(chan struct{})}
	if !isTerminal(s.err) {
		close(p.gone)
		return p
	}
	go p.show(s.err, time.Now())
	return p
}

// reached says how many of how many objects are done.
func (p *progress) reached(done, total int) {
	p.total.Store(int64(total))
	p.done.Store(int64(done))
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
	done, total := p.done.Load(), p.total.Load()
	rate := float64(done) / since.Seconds()
	text := fmt.Sprintf("%8.1f MiB  %6.1f MiB/s", float64(done)/(1<<20), rate/(1<<20))
	if p.count {
		text = fmt.Sprintf("%d of %d objects", done, total)
	}
	if total <= 0 || done > total || done == 0 {
		return text
	}
	part := float64(done) / float64(total)
	bar := strings.Repeat("=", int(part*width))
	left := time.Duration(float64(total-done) / rate * float64(time.Second)).Round(time.Second)
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
