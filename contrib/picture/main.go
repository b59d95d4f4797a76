// Picture draws contrib/picture/p11fs.svg, which the README shows: who comes through which
// door to the engine, and where the keys of its tokens lie.
//
//go:generate go run .
package main

import (
	"fmt"
	"html"
	"os"
	"strings"
)

// file is the picture, beside this program.
const file = "p11fs.svg"

func main() {
	if err := os.WriteFile(file, draw(), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "picture:", err)
		os.Exit(1)
	}
}

// The picture is drawn for the width of a page, with letters that can be read on a phone.
const (
	width, height = 700, 392
	margin        = 14
	row           = 96 // from one caller to the next
	first         = 62 // where the first begins
)

// A box is a rectangle with lines of text, the first of them in bold.
type box struct {
	x, y, w, h int
	class      string
	lines      []string
}

func (b box) svg() string {
	var s strings.Builder
	fmt.Fprintf(&s, `<rect class="%s" x="%d" y="%d" width="%d" height="%d" rx="7"/>`+"\n", b.class, b.x, b.y, b.w, b.h)
	const line = 18
	y := b.y + b.h/2 - line*(len(b.lines)-1)/2 + 5
	for i, text := range b.lines {
		class := "small"
		if i == 0 {
			class = "name"
		}
		fmt.Fprintf(&s, `<text class="%s" x="%d" y="%d">%s</text>`+"\n", class, b.x+b.w/2, y+i*line, html.EscapeString(text))
	}
	return s.String()
}

// arrow leads from a point to another, to the right.
func arrow(x1, y1, x2, y2 int) string {
	return fmt.Sprintf(`<path class="way" d="M%d %dL%d %d" marker-end="url(#head)"/>`+"\n", x1, y1, x2-7, y2)
}

// style has the colours for light and dark. The ground is drawn, so that the picture can be
// read whatever the page around it has chosen.
const style = `<style>
.ground{fill:#fff}.daemon{fill:#eef3f8;stroke:#7f93a8}.who,.token{fill:#fff;stroke:#7f93a8}
.door{fill:#d5e5f5;stroke:#3d76ad}.engine{fill:#d9ecdf;stroke:#3f8560}
text{fill:#1c2024;text-anchor:middle;font:13px system-ui,sans-serif}.name{font-weight:600;font-size:15px}
.head{fill:#56657a;font-size:14px}.way{stroke:#56657a;stroke-width:1.6;fill:none}.tip{fill:#56657a}
@media(prefers-color-scheme:dark){
.ground{fill:#14171a}.daemon{fill:#1d2329;stroke:#6d7d8d}.who,.token{fill:#14171a;stroke:#6d7d8d}
.door{fill:#1c3a56;stroke:#6ca3d8}.engine{fill:#1d4030;stroke:#63b98a}
text{fill:#e4e8eb}.head{fill:#a9b6c3}.way{stroke:#a9b6c3}.tip{fill:#a9b6c3}}
</style>
`

func draw() []byte {
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-labelledby="title">`+"\n", width, height)
	s.WriteString("<!-- Made by go generate ./contrib/picture. -->\n")
	s.WriteString(`<title id="title">Shells, programs with PKCS#11 modules and openCryptoki's own come through three doors to one engine in the daemon, which has the tokens.</title>` + "\n" + style)
	s.WriteString(`<defs><marker id="head" viewBox="0 0 8 8" refX="2" refY="4" markerWidth="6" markerHeight="6" orient="auto"><path class="tip" d="M0 0L8 4L0 8z"/></marker></defs>` + "\n")
	fmt.Fprintf(&s, `<rect class="ground" width="%d" height="%d"/>`+"\n", width, height)

	const left, wide, tall = margin, 164, 72
	const doorX, doorW = 230, 118
	const engineX, engineW = 386, 92
	const tokenX, tokenW = 538, 148
	const top, bottom = 40, first + 2*row + tall + 18
	s.WriteString(box{doorX - 16, top, engineX + engineW - doorX + 32, bottom - top, "daemon", nil}.svg())
	heads := []struct {
		x    int
		text string
	}{{left + wide/2, "who asks"}, {(doorX + engineX + engineW) / 2, "the daemon: p11fs mount"}, {tokenX + tokenW/2, "tokens"}}
	for _, h := range heads {
		fmt.Fprintf(&s, `<text class="head" x="%d" y="26">%s</text>`+"\n", h.x, html.EscapeString(h.text))
	}
	doors := []struct{ who, door []string }{
		{[]string{"shells, scripts", "cat, cp, openssl,", "p11fs for ssh, git, age"}, []string{"files", "a tree, FUSE"}},
		{[]string{"programs", "nginx, Java, OpenSSH,", "with PKCS#11 modules"}, []string{"socket", "rpc.sock"}},
		{[]string{"openCryptoki", "its own programs,", "unchanged"}, []string{"slot daemon", "shared memory"}},
	}
	middle := first + row + tall/2
	for i, d := range doors {
		y := first + i*row
		s.WriteString(box{left, y, wide, tall, "who", d.who}.svg())
		s.WriteString(box{doorX, y + 8, doorW, tall - 16, "door", d.door}.svg())
		s.WriteString(arrow(left+wide, y+tall/2, doorX, y+tall/2))
		s.WriteString(arrow(doorX+doorW, y+tall/2, engineX, middle+(i-1)*30))
	}
	s.WriteString(box{engineX, first + 40, engineW, 2*row + tall - 80, "engine", []string{"engine", "the rules of", "PKCS#11,", "once for", "all doors"}}.svg())
	tokens := [][]string{
		{"swtok", "files, encrypted"},
		{"tpm", "a TPM 2.0 or 1.2"},
		{"ep11tok, ccatok", "cards of IBM Z"},
		{"icsf", "a mainframe, LDAP"},
		{"lite", "a mainframe's files"},
	}
	const step, each = 53, 46
	for i, t := range tokens {
		y := first - 4 + i*step
		s.WriteString(box{tokenX, y, tokenW, each, "token", t}.svg())
		s.WriteString(arrow(engineX+engineW, middle+(i-2)*22, tokenX, y+each/2))
	}
	fmt.Fprintf(&s, `<text x="%d" y="%d">No program has the keys, but for openCryptoki's own: these open a token's files by themselves.</text>`+"\n", width/2, height-margin)
	s.WriteString("</svg>\n")
	return []byte(s.String())
}
