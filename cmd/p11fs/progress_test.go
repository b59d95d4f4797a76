package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestProgressLine(t *testing.T) {
	p := &progress{}
	p.total.Store(4 << 20)
	p.done.Store(1 << 20)
	if got, want := p.line(2*time.Second), "[=======                       ]  25 %       1.0 MiB     0.5 MiB/s  6s left"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	p.total.Store(0)
	if got, want := p.line(2*time.Second), "     1.0 MiB     0.5 MiB/s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// The bar is for a terminal, and for one where nothing else is shown.
func TestProgress(t *testing.T) {
	master, slave := openTerminal(t)
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for name, c := range map[string]struct {
		s      streams
		toFile bool
		want   bool
	}{
		"to a file":               {streams{file, file, slave}, false, true},
		"to --output":             {streams{file, slave, slave}, true, true},
		"no terminal":             {streams{file, file, file}, true, false},
		"a buffer":                {streams{file, file, &bytes.Buffer{}}, true, false},
		"output at the terminal":  {streams{file, slave, slave}, false, false},
		"input from the terminal": {streams{slave, file, slave}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := startProgress(c.s, c.toFile)
			if _, err := io.Copy(io.Discard, p.counting(strings.NewReader("12345"))); err != nil {
				t.Fatal(err)
			}
			if !c.want {
				p.stop()
				return
			}
			b := make([]byte, 200)
			n, err := master.Read(b)
			if err != nil || !strings.Contains(string(b[:n]), "MiB/s") {
				t.Errorf("%q, %v", b[:n], err)
			}
			p.stop()
			for text := ""; !strings.HasSuffix(text, "\r\x1b[K"); text += string(b[:n]) {
				if n, err = master.Read(b); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	// Nothing was shown that no case has read.
	if _, err := slave.WriteString("end"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 200)
	if n, err := master.Read(b); string(b[:n]) != "end" {
		t.Errorf("%q, %v", b[:n], err)
	}
}
