package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestStockLoad has stock processes and shell loops create, change and destroy
// objects at once, each its own. In the end the mount, stock, and a daemon
// after a restart of the machine have exactly what is left.
func TestStockLoad(t *testing.T) {
	t.Parallel()
	const rounds = 60
	root := workDir(t, "tokens")
	unpackToken(t, root)
	h := startLiveOver(t, root)
	m := readManifest(t)
	h.ok("echo " + m.UserPIN + " > $T/login")
	var want []string
	for _, o := range m.Objects {
		// By its name stock does not find the hardware feature, and one is empty.
		if o.attr("CLASS") != "0500000000000000" && o.Label != "" {
			want = append(want, strings.ReplaceAll(o.Label, " ", "_"))
		}
	}
	clients := []*client{h.client(0), h.client(1)}
	for i, c := range clients {
		c.want("login "+m.UserPIN, "ok")
		h.ok(fmt.Sprintf("echo 'load stock%d %d' >&%d", i, rounds, c.in))
	}
	for i := range 2 {
		h.ok(fmt.Sprintf(`cat > loop%[1]d <<'END'
set -e
i=0
while [ $i -lt %[2]d ]; do
	l=mount%[1]d-$i
	echo $l > $T/data/$l
	if [ $((i %% 3)) = 0 ]; then mv $T/data/$l $T/data/$l-new; l=$l-new; fi
	if [ $((i %% 4)) = 0 ]; then rm $T/data/$l; else echo $l >> left%[1]d; fi
	i=$((i+1))
done
END
sh loop%[1]d & loop%[1]d=$!`, i, rounds))
	}
	for _, c := range clients {
		left := strings.Fields(h.ok(fmt.Sprintf("IFS= read -r line <&%d; printf '%%s\\n' \"$line\"", c.out)))
		if len(left) == 0 || left[0] != "ok" {
			t.Fatalf("stock: %q", left)
		}
		want = append(want, left[1:]...)
	}
	for i := range 2 {
		h.ok(fmt.Sprintf("wait $loop%d", i))
		want = append(want, lines(h.ok(fmt.Sprintf("cat left%d", i)))...)
	}
	slices.Sort(want)
	compare := func(where string, got []string) {
		t.Helper()
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (- wanted, + found):\n%s", where, d)
		}
	}
	labels := func() []string {
		return lines(h.ok(`for o in $T/by-uid/*; do case $(cat $o/attr/class) in hw-feature) ;; *) cat $o/attr/label;; esac; done | grep . | tr ' ' _`))
	}
	compare("the mount", labels())
	for _, c := range clients {
		compare("a stock process", strings.Fields(c.do("list"))[1:])
		c.end()
	}
	// Names were given out once.
	names, err := os.ReadFile(filepath.Join(root, "swtok/TOK_OBJ/OBJ.IDX"))
	if err != nil {
		t.Fatal(err)
	}
	seen := lines(string(names))
	slices.Sort(seen)
	if len(slices.Compact(slices.Clone(seen))) != len(seen) {
		t.Errorf("OBJ.IDX has a name twice: %q", seen)
	}
	h.ok("kill -TERM $p11fs; wait $p11fs; rm /dev/shm/*; : > " + quote(h.log))
	h.serve()
	h.ok("echo " + m.UserPIN + " > $T/login")
	compare("after a restart of the machine", labels())
	h.stop()
}
