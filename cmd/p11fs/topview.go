package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A topOrder is what callers are sorted by: what there is most of comes first, but names and
// numbers of processes come as they are.
type topOrder struct {
	key     byte // that chooses it
	name    string
	compare func(a, b topCall) int
}

func topOrders() []topOrder {
	most := func(of func(topCall) float64) func(a, b topCall) int {
		return func(a, b topCall) int { return cmp.Compare(of(b), of(a)) }
	}
	return []topOrder{
		{'c', "calls", most(func(c topCall) float64 { return c.rates.Calls })},
		{'l', "latency", most(func(c topCall) float64 { return c.Latency })},
		{'e', "errors", most(func(c topCall) float64 { return c.rates.Errors })},
		{'s', "sessions", most(func(c topCall) float64 { return float64(c.Sessions) })},
		{'o', "operations", most(func(c topCall) float64 { return float64(c.Operations) })},
		{'w', "waits", most(func(c topCall) float64 {
			waits := float64(c.Waits.Processor + c.Waits.Long)
			if c.Busy != nil {
				waits += c.Busy.Seconds
			}
			if c.Lock != nil {
				waits += c.Lock.Seconds
			}
			return waits
		})},
		{'u', "user", func(a, b topCall) int { return cmp.Compare(a.User, b.User) }},
		{'p', "process", func(a, b topCall) int { return cmp.Compare(a.PID, b.PID) }},
	}
}

func topOrderNamed(name string) (topOrder, error) {
	for _, o := range topOrders() {
		if o.name == name {
			return o, nil
		}
	}
	return topOrder{}, &usageError{err: fmt.Errorf("%q is nothing to sort by: name calls, latency, errors, sessions, operations, waits, user or process", name)}
}

// sort puts the callers into an order, and those that are alike into that in which they came.
func (v *topView) sort(o topOrder, reversed bool) {
	slices.SortFunc(v.Callers, func(a, b topCall) int {
		n := o.compare(a, b)
		if reversed {
			n = -n
		}
		return cmp.Or(n, cmp.Compare(a.Number, b.Number))
	})
	slices.SortFunc(v.Tokens, func(a, b topToken) int {
		return cmp.Or(cmp.Compare(b.Calls, a.Calls), cmp.Compare(a.Token, b.Token), cmp.Compare(a.Mechanism, b.Mechanism), cmp.Compare(a.Door, b.Door))
	})
}

// A topLine is a line of the table. colour begins it where there are colours.
type topLine struct{ text, colour string }

// The colours: the names of columns stand out, and what is wrong is red, what waits yellow.
const (
	colourHead  = "\x1b[7m"
	colourError = "\x1b[31m"
	colourWait  = "\x1b[33m"
)

// slow is how long a call of a token may take before the caller is said to wait for it.
const slow = 0.1

// waits says what a caller waits for; "-" for nothing.
func (c presence) waits() string {
	var all []string
	if l := c.Lock; l != nil {
		holder := ""
		if l.Holder > 0 {
			holder = fmt.Sprintf(", which process %d has", l.Holder)
		}
		all = append(all, fmt.Sprintf("%s: its lock%s, %s", l.Token, holder, shortTime(l.Seconds)))
	}
	if b := c.Busy; b != nil && b.Seconds >= slow {
		all = append(all, fmt.Sprintf("%s: %s %s, %s", b.Token, b.Does, b.Mechanism, shortTime(b.Seconds)))
	}
	if n := c.Waits.Processor; n > 0 {
		all = append(all, fmt.Sprintf("a processor (%d)", n))
	}
	if n := c.Waits.Long; n > 0 {
		all = append(all, fmt.Sprintf("long work (%d)", n))
	}
	if len(all) == 0 {
		return "-"
	}
	return strings.Join(all, "; ")
}

// head is what stands above the tables.
func (v topView) head() topLine {
	var all rates
	for _, c := range v.Callers {
		all.Calls += c.rates.Calls
		all.Errors += c.rates.Errors
	}
	return topLine{text: fmt.Sprintf("p11fs %s  %s  callers %d  sessions %.0f  programs %.0f  open files %.0f  calls/s %s  errors/s %s",
		cell(v.Mount), v.Time.Format(time.TimeOnly)+"Z", len(v.Callers), v.Sessions, v.Programs, v.Handles, rate(all.Calls), rate(all.Errors))}
}

// callers are the lines of the callers, the first of them the names of the columns.
func (v topView) callers() (lines []topLine) {
	rows := [][]string{{"USER", "PID", "COMMAND", "DOOR", "SESSIONS", "OPERATIONS", "CALLS/S", "LATENCY", "ERRORS/S", "WAITS FOR"}}
	for _, c := range v.Callers {
		rows = append(rows, []string{c.User, fmt.Sprint(c.PID), c.Command, c.Door, fmt.Sprint(c.Sessions), fmt.Sprint(c.Operations), rate(c.rates.Calls), shortTime(c.Latency), rate(c.rates.Errors), c.waits()})
	}
	for i, text := range table(rows) {
		line := topLine{text: text}
		switch {
		case i == 0:
			line.colour = colourHead
		case v.Callers[i-1].rates.Errors > 0:
			line.colour = colourError
		case v.Callers[i-1].waits() != "-":
			line.colour = colourWait
		}
		lines = append(lines, line)
	}
	return lines
}

// tokens are the lines of the mechanisms that were used; none if there are none, or they are
// not for this user's eyes.
func (v topView) tokens() (lines []topLine) {
	rows := [][]string{{"TOKEN", "MECHANISM", "DOOR", "CALLS/S", "LATENCY", "P99", "ERRORS/S"}}
	colour := []string{colourHead}
	for _, t := range v.Tokens {
		if t.Calls == 0 {
			continue
		}
		rows = append(rows, []string{t.Token, t.Mechanism, t.Door, rate(t.Calls), shortTime(t.Latency), shortTime(t.P99), rate(t.Errors)})
		colour = append(colour, "")
		if t.Errors > 0 {
			colour[len(colour)-1] = colourError
		}
	}
	if len(rows) == 1 {
		return nil
	}
	for i, text := range table(rows) {
		lines = append(lines, topLine{text, colour[i]})
	}
	return lines
}

// lines are all of it.
func (v topView) lines() []topLine {
	all := append([]topLine{v.head(), {}}, v.callers()...)
	if tokens := v.tokens(); tokens != nil {
		all = append(append(all, topLine{}), tokens...)
	}
	return all
}

// page are as many lines as there is room for, and one that says what the keys do. Where it
// is not enough, the mechanisms have a third of it at most, and what is left out is counted.
func (v topView) page(room int, help string) []topLine {
	const around = 3 // the head, and a line before each table
	tokens := v.tokens()
	callers := v.callers()
	tokens = shorten(tokens, max(room/3, room-around-len(callers)))
	callers = shorten(callers, room-around-len(tokens))
	page := append([]topLine{v.head(), {}}, callers...)
	if len(tokens) > 0 {
		page = append(append(page, topLine{}), tokens...)
	}
	page = page[:max(0, min(len(page), room))]
	return append(page, topLine{text: help})
}

// shorten leaves out what there is no room for, and says how much that is.
func shorten(lines []topLine, room int) []topLine {
	if len(lines) <= room {
		return lines
	}
	if room < 2 { // the names of columns alone tell nothing
		return nil
	}
	return append(slices.Clip(lines[:room-1]), topLine{text: fmt.Sprintf("… %d more", len(lines)-room+1)})
}

// table puts rows into columns.
func table(rows [][]string) []string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i := range row {
			row[i] = cell(row[i])
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	_ = w.Flush() // a strings.Builder takes everything
	return strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
}

// cell is text of others in a table.
func cell(text string) string { return strings.ReplaceAll(printableLine(text), "\t", " ") }

// rate is a number a second.
func rate(n float64) string {
	if n == 0 || n >= 10 {
		return fmt.Sprintf("%.0f", n)
	}
	return fmt.Sprintf("%.1f", n)
}

// shortTime is a time in three digits; "-" for none.
func shortTime(seconds float64) string {
	switch {
	case seconds <= 0:
		return "-"
	case seconds < 1e-3:
		return fmt.Sprintf("%.0fµs", seconds*1e6)
	case seconds < 1:
		return fmt.Sprintf("%.3gms", seconds*1e3)
	}
	return fmt.Sprintf("%.3gs", seconds)
}
