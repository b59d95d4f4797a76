package libp11fs

import (
	"strconv"
	"strings"
	"testing"

	"p11fs/engine/enginetest"
	"p11fs/p11"
)

// testStates makes every call in every state of a session.
func testStates(t *testing.T, b build) {
	cases := enginetest.Cases(11)
	for seed := range uint64(4) {
		cases = append(cases, enginetest.Walk(seed, 1000)...)
	}
	t.Logf("%d cases", len(cases))
	var lines strings.Builder
	for _, c := range cases {
		for _, step := range c.Steps {
			lines.WriteString(step.Line + "\n")
		}
	}
	c := serve(t).command(b, "states")
	c.Stdin = strings.NewReader(lines.String())
	answers := splitLines(run(t, c))
	wrong := 0
	for _, c := range cases {
		for _, step := range c.Steps {
			if len(answers) == 0 {
				t.Fatalf("%s: no answer", c.Name)
			}
			n, err := strconv.ParseUint(answers[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			answers = answers[1:]
			if !step.Check(p11.RV(n)) {
				t.Errorf("%s: %s: %v, want %v", c.Name, step.Line, p11.RV(n), step.Want)
				wrong++
			}
		}
		if wrong > 12 {
			t.Fatal("and more")
		}
	}
}
