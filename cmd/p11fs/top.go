package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func newTop(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "top",
		Short: "Show who works with the daemon, how fast, and what waits for what",
		Long: `Show the applications that have sessions, as top shows processes: who it is, how many
sessions and operations there are, how many calls of a token a second, how long one takes on
average, how many fail, and what it waits for: a token's lock, which another process or
application has, a call of a token that takes long, a processor
that others work on, or others' long work, such as keys that are made. Below that, to root
and the owner of the mount, the same of each token and mechanism. You see your own
applications; root and the owner of the mount see all.

At a terminal it goes on until q or ^C; a key chooses what is sorted by: c calls, l latency,
e errors, s sessions, o operations, w waits, u user, p process. r turns the order round, and
the space bar looks at once. Elsewhere, and with --once, it prints the table once, of the
time --delay.`,
		Example: `  p11fs top
  p11fs top --once --sort errors
  p11fs top --json --once | jq '.callers[] | select(.calls_per_second > 1000)'`,
		Args: takes(0, 0),
	}
	mount := mountFlag(c)
	delay := c.Flags().Float64P("delay", "d", 2, "look every so many `SECONDS`, of 0.1 to 3600")
	once := c.Flags().Bool("once", false, "print the table once, and end")
	asJSON := c.Flags().Bool("json", false, "print a JSON object each time, on a line of its own")
	by := c.Flags().String("sort", "calls", "what the callers are sorted by: calls, latency, errors, sessions, operations, waits, user or process")
	_ = c.RegisterFlagCompletionFunc("sort", func(*cobra.Command, []string, string) (words []cobra.Completion, _ cobra.ShellCompDirective) {
		for _, o := range topOrders() {
			words = append(words, o.name)
		}
		return words, cobra.ShellCompDirectiveNoFileComp
	})
	c.RunE = func(c *cobra.Command, _ []string) error {
		if !(*delay >= 0.1 && *delay <= 3600) {
			return &usageError{err: fmt.Errorf("%v is no time to look again: name 0.1 to 3600 seconds", *delay)}
		}
		t, err := findTree(*mount, os.Getenv)
		if err != nil {
			return err
		}
		top := &top{tree: t, s: s, delay: time.Duration(*delay * float64(time.Second)), reversed: map[byte]bool{}}
		if top.order, err = topOrderNamed(*by); err != nil {
			return err
		}
		if top.last, err = t.reading(time.Now()); err != nil {
			return err
		}
		live := isTerminal(s.in) && isTerminal(s.out) && os.Getenv("TERM") != "dumb"
		switch {
		case *asJSON:
			return top.lines(c.Context(), *once)
		case *once || !live:
			return top.once(c.Context())
		}
		return top.live(c.Context())
	}
	return c
}

// A top is the table that p11fs top shows.
type top struct {
	tree  tree
	s     streams
	delay time.Duration
	last  reading

	order    topOrder
	reversed map[byte]bool // by the key of the order
	view     topView       // of the two last readings
}

// look reads again, and compares with the reading before.
func (t *top) look() error {
	now, err := t.tree.reading(time.Now())
	if err != nil {
		return err
	}
	t.view = compare(t.last, now)
	t.view.Mount = t.tree.dir
	t.last = now
	t.sort()
	return nil
}

func (t *top) sort() { t.view.sort(t.order, t.reversed[t.order.key]) }

// wait waits until it is time to look again; false when ctx ends.
func (t *top) wait(ctx context.Context) bool {
	select {
	case <-time.After(t.delay):
		return true
	case <-ctx.Done():
		return false
	}
}

// once prints the table of one stretch of time.
func (t *top) once(ctx context.Context) error {
	if !t.wait(ctx) {
		return ctx.Err()
	}
	if err := t.look(); err != nil {
		return err
	}
	for _, line := range t.view.lines() {
		fmt.Fprintln(t.s.out, line.text)
	}
	return nil
}

// lines prints JSON, once or until it is interrupted.
func (t *top) lines(ctx context.Context, once bool) error {
	out := json.NewEncoder(t.s.out)
	for t.wait(ctx) {
		err := t.look()
		if err == nil {
			err = out.Encode(t.view)
		}
		if err != nil || once {
			return err
		}
	}
	return ctx.Err()
}

// What a terminal is told: to show another page, without a cursor and with long lines cut, and its own again; to begin
// at the top; to forget the rest of a line, and of the page.
const (
	pageOn  = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	pageOff = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	home    = "\x1b[H"
	toEnd   = "\x1b[K"
	below   = "\x1b[J"
)

// live shows the table at a terminal until q, ^C or a signal. The terminal is as it was in
// the end, whatever ends it.
func (t *top) live(ctx context.Context) error {
	in, out := t.s.in, t.s.out.(*os.File)
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return fmt.Errorf("the terminal takes no single keys: use --once: %w", err)
	}
	defer func() { _ = term.Restore(int(in.Fd()), before) }()
	if _, err := io.WriteString(out, pageOn); err != nil {
		return err
	}
	defer func() { _, _ = io.WriteString(out, pageOff) }()
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	tick := time.NewTicker(t.delay)
	defer tick.Stop()
	typed := keys(in)
	t.view = compare(t.last, t.last) // what is there, before there are times to compare
	t.view.Mount = t.tree.dir
	t.sort()
	for {
		if err := t.draw(out); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil // asked to end, as by q
		case <-resized:
		case <-tick.C:
			err = t.look()
		case key, ok := <-typed:
			if !ok || key == 'q' || key == 'Q' || key == 3 { // ^C
				return nil
			}
			if key == ' ' {
				tick.Reset(t.delay)
				err = t.look()
			}
			t.press(key)
		}
		if err != nil {
			return err
		}
	}
}

// keys gives what is typed. The last read ends with the process.
func keys(in io.Reader) <-chan byte {
	typed := make(chan byte)
	go func() {
		defer close(typed)
		for key := make([]byte, 1); ; {
			if n, err := in.Read(key); err != nil && !errors.Is(err, syscall.EINTR) || n == 0 && err == nil {
				return
			} else if n == 1 {
				typed <- key[0]
			}
		}
	}()
	return typed
}

// press takes a key that chooses the order.
func (t *top) press(key byte) {
	if key == 'r' {
		t.reversed[t.order.key] = !t.reversed[t.order.key]
	}
	for _, o := range topOrders() {
		if o.key == key {
			t.order = o
		}
	}
	t.sort()
}

// draw fills the page, and never more: a line too much would have it roll.
func (t *top) draw(out *os.File) error {
	width, height, err := term.GetSize(int(out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24 // as of old
	}
	coloured := colours(t.s, os.Getenv)
	var b bytes.Buffer
	b.WriteString(home)
	page := t.view.page(height-1, "sorted by "+t.order.name+"; c l e s o w u p sort, r reverse, q quit")
	for i, line := range page {
		if i > 0 {
			b.WriteString("\r\n")
		}
		text := cutRunes(line.text, width)
		if coloured && line.colour != "" {
			text = line.colour + text + "\x1b[0m"
		}
		b.WriteString(text + toEnd)
	}
	b.WriteString(below)
	_, err = out.Write(b.Bytes())
	return err
}

// cutRunes is the beginning of a line that fits.
func cutRunes(text string, width int) string {
	n := 0
	for i := range text {
		if n == width {
			return text[:i]
		}
		n++
	}
	return text
}
