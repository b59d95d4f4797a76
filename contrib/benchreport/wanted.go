package main

import (
	"fmt"
	"slices"
	"strings"
)

// A wanted is what p11fs is to reach at a door: a ratio within a run, or a time.
type wanted struct {
	name string
	want string
	// reached returns the figure, and what to know of it; false if it was not measured.
	reached func(r results) (figure float64, more string, ok bool)
	least   float64 // that the figure is to be
	most    float64 // likewise, if it is not 0
}

// at is what a door has reached at a work with so many threads.
type at struct{ work, how, door string }

func (r results) runs(a at) []run {
	for _, row := range r.Rows {
		if row.Work == a.work && row.How == a.how {
			return row.Doors[a.door]
		}
	}
	return nil
}

// per is the median, over the rounds, of how much faster one is than another.
func (r results) per(one, other at) (float64, bool) {
	return r.middle(one, other, func(a, b run) float64 { return a.Rate / b.Rate })
}

// middle is the median of f over the rounds.
func (r results) middle(one, other at, f func(a, b run) float64) (float64, bool) {
	a, b := r.runs(one), r.runs(other)
	var all []float64
	for i := range min(len(a), len(b)) {
		all = append(all, f(a[i], b[i]))
	}
	if len(all) == 0 {
		return 0, false
	}
	slices.Sort(all)
	return all[len(all)/2], true
}

const (
	own   = "libp11fs"
	files = "files"
	shell = "shell"
)

// ratio wants one to be at least so many times as fast as another.
func ratio(name, other string, one, two at, least float64) wanted {
	return wanted{name: name, want: fmt.Sprintf("≥ %.2g × %s", least, other), least: least,
		reached: func(r results) (float64, string, bool) {
			f, ok := r.per(one, two)
			return f, "", ok
		}}
}

// beside wants libp11fs to be so many times as fast as another door at the same.
func beside(name, work, door string, least float64) wanted {
	return ratio(name, door, at{work, "1", own}, at{work, "1", door}, least)
}

// threads wants more threads to do so many times as much as one.
func threads(name, work, how, door, limit string) wanted {
	return wanted{name: name, want: "≥ 1.8 × one", least: 1.8,
		reached: func(r results) (float64, string, bool) {
			f, ok := r.per(at{work, how, door}, at{work, "1", door})
			more := ""
			if l, ok := r.per(at{work, how, limit}, at{work, "1", limit}); ok {
				more = fmt.Sprintf("%s alone: %.2f", limit, l)
			}
			return f, more, ok
		}}
}

// micros wants one to take so many microseconds more than another, or at all.
func micros(name, want string, most float64, one, other at, less float64) wanted {
	return wanted{name: name, want: want, most: most,
		reached: func(r results) (float64, string, bool) {
			f, ok := r.middle(one, other, func(a, b run) float64 { return 1e6/a.Rate - less*1e6/b.Rate })
			more := ""
			if t, ok := r.middle(other, other, func(a, _ run) float64 { return 1e6 / a.Rate }); ok && other != one {
				more = fmt.Sprintf("%s: %.3g µs", other.door, t)
			}
			return f, more, ok
		}}
}

// crowd wants callers of one key to wait about equally long.
func crowd(name, work, how string) wanted {
	here := at{work, how, files}
	return wanted{name: name, want: "p99 < 5 × p50", most: 5,
		reached: func(r results) (float64, string, bool) {
			f, ok := r.middle(here, here, func(a, _ run) float64 { return a.Most / max(a.Half, 1e-3) })
			least, _ := r.middle(here, here, func(a, _ run) float64 { return a.Least })
			half, _ := r.middle(here, here, func(a, _ run) float64 { return a.Half })
			return f, fmt.Sprintf("p50 %.3g µs; who has least has %.2f of his share", half, least), ok
		}}
}

// wants are in the order of the table.
func wants() []wanted {
	const p256, rsa, lib, soft, stock, empty = "sign:p256", "sign:rsa2048", "libcrypto", peer, "opencryptoki", "empty"
	all := []wanted{
		micros("P-256, one thread", "≤ 27 µs", 27, at{p256, "1", own}, at{p256, "1", lib}, 0),
		beside("P-256, one thread", p256, soft, 1.4),
		threads("P-256, two threads", p256, "2", own, lib),
		beside("RSA-2048, one thread", rsa, lib, 0.92),
		beside("RSA-2048, one thread", rsa, stock, 1),
		threads("RSA-2048, two threads", rsa, "2", own, lib),
	}
	for _, w := range []struct {
		work, size string
		least      float64
	}{{"64 KiB", ":65536", 0.9}, {"16 MiB", ":16777216", 1}} {
		all = append(all,
			beside("AES-CBC, "+w.work, "encrypt:cbc"+w.size, soft, w.least),
			beside("AES-GCM, "+w.work, "encrypt:gcm"+w.size, soft, w.least),
			beside("SHA-256, "+w.work, "digest"+w.size, soft, w.least))
	}
	all = append(all,
		micros("C_GetSessionInfo", "≤ 1.5 µs", 1.5, at{"info", "1", own}, at{"info", "1", own}, 0),
		beside("session object create+destroy", "object:session", soft, 0.6),
		beside("EC generation", "generate:p256", soft, 0.9))
	for _, how := range []string{"two", "one", "held"} {
		all = append(all, ratio("mount, digest, "+how, "an empty handler", at{"digest:" + how, "1", files}, at{"digest:" + how, "1", empty}, 1/1.1))
	}
	return append(all,
		micros("mount, P-256, two opens", "≤ digest + 60 µs", 60, at{p256 + ":two", "1", files}, at{"digest:two", "1", files}, 1),
		ratio("mount, RSA-2048, held", lib, at{rsa + ":held", "1", files}, at{rsa, "1", lib}, 0.9),
		threads("mount, P-256, 64 callers", p256+":one", "64", files, ""),
		crowd("mount, P-256, 64 callers", p256+":one", "64"),
		threads("mount, RSA-2048 held, 64 callers", rsa+":held", "64", files, ""),
		crowd("mount, RSA-2048 held, 64 callers", rsa+":held", "64"),
		ratio("shell line", "two cat on tmpfs", at{"shell:p11fs", "1", shell}, at{"shell:tmpfs", "1", shell}, 1/1.35),
		ratio("shell line", "pkcs11-tool", at{"shell:p11fs", "1", shell}, at{"shell:pkcs11-tool", "1", shell}, 5))
}

// table says of each what is wanted and what was reached.
func (r results) table() string {
	var b strings.Builder
	b.WriteString("| row | wanted | reached | holds | |\n|---|---|---:|---|---|\n")
	for _, w := range wants() {
		f, more, ok := w.reached(r)
		holds := "yes"
		switch {
		case !ok:
			fmt.Fprintf(&b, "| %s | %s | | not measured | |\n", w.name, w.want)
			continue
		case f < w.least || w.most != 0 && f > w.most:
			holds = "**no**"
		}
		if more != "" {
			more += " "
		}
		fmt.Fprintf(&b, "| %s | %s | %.3g | %s | %s|\n", w.name, w.want, f, holds, more)
	}
	return b.String()
}
