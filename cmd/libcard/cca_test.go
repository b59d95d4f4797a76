package libcard

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"p11fs/tokens/card"
)

// generous is a card that answers with more than anybody asked for, as far as it is let.
type generous struct{}

func (generous) Close() error { return nil }

func (generous) Call(_ context.Context, c *card.Call) error {
	for i, k := range c.Function.Args {
		if a := &c.Args[i]; k == card.Output {
			a.Give(bytes.Repeat([]byte{'x'}, int(min(a.Room, 256))))
		}
	}
	return nil
}

const queries = `
#include <stdio.h>
#include <string.h>
extern void CSUACFQ(long *, long *, long *, unsigned char *, long *, unsigned char *, long *, unsigned char *);

int main(void)
{
	static const struct { char word[9]; long answer; } queries[] = {
		{"STATCCAE", 9}, {"STATAES ", 4}, {"STATAPKA", 3}, {"STATICSB", 1}, {"STATCRD2", 15},
	};
	for (size_t i = 0; i < sizeof queries / sizeof queries[0]; i++) {
		unsigned char rules[32 * 8];
		long rc, reason, count = 1, none = 0, end = 0;

		memset(rules, '-', sizeof rules);
		memcpy(rules, queries[i].word, 8);
		CSUACFQ(&rc, &reason, NULL, NULL, &count, rules, &none, NULL);
		for (end = sizeof rules; end > 0 && rules[end - 1] == '-'; end--)
			;
		if (rc != 0 || end > 8 * queries[i].answer || count > queries[i].answer)
			printf("%s: %ld, %ld bytes, %ld keywords\n", queries[i].word, rc, end, count);
	}
	return 0;
}
`

// TestRuleArray: a card cannot write more into a program's rule array than the answer to its
// query has. It takes 3 s.
func TestRuleArray(t *testing.T) {
	t.Parallel()
	dir := libraries(t)
	socket := filepath.Join(t.TempDir(), "card")
	serve(t, socket, card.CCA, generous{})
	program := exec.Command(compile(t, dir, "csulcca", queries))
	program.Env = append(os.Environ(), "P11FS_CARD="+socket)
	if out, err := program.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "" {
		t.Errorf("%s%v", out, err)
	}
}
