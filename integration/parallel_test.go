package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// worker is a script that runs beside others of its terminal: it works in a
// session directory of its own, and through single read-write opens, which need
// none. Its results must be its own, whatever the others do.
const worker = `set -e
n=$1 W=$T/sessions/w$1
mkdir $W
for i in 1 2 3 4 5; do
	echo "message $i of $n" >m.$n
	cat m.$n >$W/objects/web.key/sign; cat $W/objects/web.key/sign >s.$n
	openssl dgst -sha256 -verify web.pem -signature s.$n m.$n >/dev/null
	p11io rw $O/ec.key/sign <m.$n >s.$n
	openssl dgst -sha256 -verify ec.pem -signature s.$n m.$n >/dev/null
	cat m.$n >$W/objects/aes.sec/encrypt; cat $W/objects/aes.sec/encrypt >c.$n
	p11io rw $O/aes.sec/decrypt <c.$n | cmp - m.$n
	echo "aes:128 label=w$n.$i token=false" >$W/generate; test "$(cat $W/generate)" = w$n.$i.sec
	cp m.$n $T/data/w$n; cmp m.$n $T/data/w$n
	echo "label=w$n" >$W/find; test "$(cat $W/find)" = w$n.dat
	if echo "colour$n=red" >$W/find 2>/dev/null; then exit 1; fi
	grep -q "colour$n" $W/error
	mv $T/data/w$n $T/data/v$n; rm $T/data/v$n
	ls -l $W $W/objects >/dev/null 2>&1 || true # others destroy what it lists
done
rmdir $W
`

// TestParallelScripts runs many of them at once at two terminals.
func TestParallelScripts(t *testing.T) {
	t.Parallel()
	needTools(t, "openssl")
	d, term := ready(t, daemonConfig{})
	prepareKeys(term)
	other := d.terminal()
	other.ok("cp " + term.cmd.Dir + "/*.pem . && echo " + userPIN + " > $T/login")
	before := term.ok("ls $O $T/data $T/sessions")
	script := filepath.Join(workDir(t, "worker"), "worker")
	if err := os.WriteFile(script, []byte(worker), 0o644); err != nil {
		t.Fatal(err)
	}
	// wait forgets the status of all but the last, so each leaves a file.
	run := "for n in $(seq %d %d); do { sh -x " + script + " $n >log.$n 2>&1 && echo done >ok.$n; } & done; wait; for n in $(seq %d %d); do test -e ok.$n || { tail -n 20 log.$n; false; } || exit 1; done"
	first := term.start("( " + fmt.Sprintf(run, 1, 3, 1, 3) + " )")
	second := other.start("( " + fmt.Sprintf(run, 11, 13, 11, 13) + " )")
	for _, r := range []result{first(), second()} {
		if r.status != 0 {
			t.Errorf("a worker failed:\n%s%s", r.out, r.err)
		}
	}
	if after := term.ok("ls $O $T/data $T/sessions"); after != before {
		t.Errorf("the workers left something:\n%s", difference(before, after))
	}
}
