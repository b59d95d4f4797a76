package main

import (
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestManual checks that p11fs(1), which is written by hand, has every command
// and every option.
func TestManual(t *testing.T) {
	page, err := os.ReadFile("../../docs/man/p11fs.1")
	if err != nil {
		t.Fatal(err)
	}
	root := newRoot(streams{})
	root.InitDefaultCompletionCmd("completion")
	for _, c := range root.Commands() {
		if c.Hidden {
			continue
		}
		if !strings.Contains(string(page), "\n.It Cm "+c.Name()+"\n") {
			t.Errorf("no command %s", c.Name())
		}
		for _, c := range append(c.Commands(), c) {
			c.Flags().VisitAll(func(f *pflag.Flag) {
				if f.Name != "help" && f.Name != "no-descriptions" && !strings.Contains(string(page), "Fl -"+f.Name) {
					t.Errorf("no option --%s of %s", f.Name, c.CommandPath())
				}
			})
		}
	}
	checkExamples(t, root, string(page))
}

// checkExamples checks that what the examples call exists.
func checkExamples(t *testing.T, root *cobra.Command, page string) {
	t.Helper()
	_, examples, ok := strings.Cut(page, ".Sh EXAMPLES")
	if !ok {
		t.Fatal("no examples")
	}
	n := 0
	for _, line := range strings.Split(examples, "\n") {
		_, call, ok := strings.Cut(line, "p11fs ")
		if !ok || strings.HasPrefix(line, ".") {
			continue
		}
		n++
		name, _, _ := strings.Cut(strings.TrimRight(call, ")/"), " ")
		if c, _, err := root.Find([]string{name}); err != nil || c == root {
			t.Errorf("an example calls %q", name)
		}
	}
	if n == 0 {
		t.Error("no example calls the program")
	}
}
