package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// An event is one line of go test -json (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Output     string
}

// A skip is one test that was skipped.
type skip struct{ pkg, test, reason string }

// result counts the tests, and lists those skipped.
type result struct {
	passed, failed int
	skips          []skip
}

// printEvents prints the events as go test without -v does: the output of what
// failed, and a line for each package.
func printEvents(in io.Reader, out io.Writer) (result, error) {
	var res result
	type id struct{ pkg, test string }
	held := map[id]*strings.Builder{}
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				// What is no event comes from the tool itself.
				fmt.Fprintf(out, "%s", line)
				continue
			}
			k := id{e.Package, e.Test}
			switch {
			case e.Action == "build-output":
				fmt.Fprint(out, e.Output)
			case e.Action == "output" && e.Test == "":
				if e.Output != "PASS\n" {
					fmt.Fprint(out, e.Output)
				}
			case e.Action == "output":
				if held[k] == nil {
					held[k] = &strings.Builder{}
				}
				held[k].WriteString(e.Output)
			case e.Test == "":
			case e.Action == "pass":
				res.passed++
				if held[k] != nil && strings.Contains(held[k].String(), "DATA RACE") { // for which another one fails
					fmt.Fprint(out, held[k].String())
				}
				delete(held, k)
			case e.Action == "skip":
				res.skips = append(res.skips, skip{e.Package, e.Test, reason(held[k])})
				delete(held, k)
			case e.Action == "fail":
				res.failed++
				if held[k] != nil {
					fmt.Fprint(out, held[k].String())
				}
				delete(held, k)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return res, err
		}
	}
	// A test that never ended was cut off by a panic or a timeout: what it
	// said tells why.
	for _, b := range held {
		fmt.Fprint(out, b.String())
	}
	return res, nil
}

// reason finds in a skipped test's output what t.Skip was given.
func reason(b *strings.Builder) string {
	if b == nil {
		return ""
	}
	for line := range strings.Lines(b.String()) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "===") || strings.HasPrefix(line, "---") {
			continue
		}
		// file.go:12: reason
		if parts := strings.SplitN(line, ": ", 2); len(parts) == 2 && strings.Contains(parts[0], ".go:") {
			return parts[1]
		}
		return line
	}
	return ""
}
