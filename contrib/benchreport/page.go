package main

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// rate prints a number a second in three digits.
func rate(n float64) string {
	switch {
	case n == 0:
		return ""
	case n >= 1e6:
		return fmt.Sprintf("%.3gM", n/1e6)
	case n >= 1000:
		return fmt.Sprintf("%.3gk", n/1000)
	}
	return fmt.Sprintf("%.3g", n)
}

func (r results) page() string {
	var b strings.Builder
	b.WriteString("<!-- Made by make bench. -->\n\n# How fast it is\n\n")
	fmt.Fprintf(&b, "Measured on %s, with %s: each work some times at each door by turns, in one run; the median. ", r.Date, r.Machine)
	b.WriteString("Only ratios within the run say something about another machine. ")
	var versions []string
	for name, version := range r.Programs {
		versions = append(versions, name+" "+version)
	}
	slices.Sort(versions)
	fmt.Fprintf(&b, "Beside: %s. ", strings.Join(versions, ", "))
	b.WriteString("`make bench` measures anew, and `make bench-check` fails where a ratio has fallen by a fifth.\n\n")
	b.WriteString("softhsm2, opencryptoki: the library in the program's own process. libp11fs, p11-kit, stock-over-p11fs (openCryptoki's library), files, shell: the doors of p11fs, another process. empty: a mount whose calls do nothing. libcrypto: openssl speed, without PKCS#11.\n\n")
	b.WriteString("## What is wanted\n\nThe medians of the rounds' ratios. `make bench-rows` measures these alone.\n\n" + r.table() + "\n## All\n\n")
	b.WriteString("![libp11fs.so beside SoftHSM2](doors.svg)\n\n")
	b.WriteString("A second, and in brackets the least and the most of the rounds; × is libp11fs beside SoftHSM2 and beside libcrypto. The last columns are microseconds of processor time of the program and of the daemon for one, and switches of threads of the program, through libp11fs or files.\n\n")
	b.WriteString("| work | " + strings.Join(doors(), " | ") + " | × SoftHSM2 | × libcrypto | program | daemon | switches |\n|---|" + strings.Repeat("---:|", len(doors())+5) + "\n")
	for _, row := range r.Rows {
		r.line(&b, row)
	}
	return b.String()
}

func (r results) line(b *strings.Builder, row row) {
	fmt.Fprintf(b, "| %s |", row.name())
	for _, d := range doors() {
		rates := row.rates(d)
		if len(rates) == 0 {
			b.WriteString(" |")
			continue
		}
		fmt.Fprintf(b, " %s (%s–%s) |", rate(row.median(d)), rate(rates[0]), rate(rates[len(rates)-1]))
	}
	own := row.median("libp11fs")
	for _, d := range []string{"softhsm2", "libcrypto"} {
		if peer := row.median(d); own > 0 && peer > 0 {
			fmt.Fprintf(b, " %.2f |", own/peer)
		} else {
			b.WriteString(" |")
		}
	}
	for _, d := range []string{"libp11fs", "files"} {
		if runs := row.Doors[d]; len(runs) > 0 {
			slices.SortFunc(runs, func(a, b run) int { return int(math.Copysign(1, a.CPU+a.Daemon-b.CPU-b.Daemon)) })
			m := runs[len(runs)/2]
			fmt.Fprintf(b, " %.1f | %.1f | %.2f |\n", m.CPU, m.Daemon, m.Switches)
			return
		}
	}
	b.WriteString(" | | |\n")
}

// picture draws how libp11fs.so stands beside SoftHSM2, a bar for each work that both have.
func (r results) picture() string {
	const left, width, high, most = 230, 420, 18, 16.0 // the scale goes from 1/most to most
	type bar struct {
		name  string
		ratio float64
	}
	var bars []bar
	for _, row := range r.Rows {
		if own, peer := row.median("libp11fs"), row.median("softhsm2"); own > 0 && peer > 0 {
			bars = append(bars, bar{row.name(), own / peer})
		}
	}
	at := func(ratio float64) float64 {
		x := math.Log(ratio) / math.Log(most)
		return left + width/2 + width/2*max(-1, min(1, x))
	}
	var b strings.Builder
	tall := high*len(bars) + 40
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">`+"\n", left+width+60, tall)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#fff"/>`+"\n")
	for _, ratio := range []float64{1.0 / 16, 0.25, 1, 4, 16} {
		fmt.Fprintf(&b, `<line x1="%.1[1]f" y1="20" x2="%.1[1]f" y2="%[2]d" stroke="#ccc"/><text x="%.1[1]f" y="14" text-anchor="middle">%.3[3]g ×</text>`+"\n", at(ratio), tall-10, ratio)
	}
	for i, bar := range bars {
		y := 24 + i*high
		from, to := at(1), at(bar.ratio)
		colour := "#2a7f62"
		if bar.ratio < 1 {
			from, to, colour = to, from, "#c2703d"
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text><rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/><text x="%.1f" y="%d">%.2f</text>`+"\n",
			left-8, y+12, html.EscapeString(bar.name), from, y+2, to-from, high-5, colour, at(max(bar.ratio, 1))+4, y+12, bar.ratio)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
