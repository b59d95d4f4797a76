package fs

import "testing"

// TestTimes: programs that copy what is new see what has changed.
func TestTimes(t *testing.T) {
	m := mount(t)
	term := m.terminal("bash")
	term.login()
	term.ok("echo aes:256 label=old token=false > $T/generate; printf one > $T/data/a; printf one > $T/data/b; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out cert.pem -subj /CN=x -days 9 2>/dev/null; cp cert.pem $T/certs/c.pem; sleep 1.1; touch now; date +%s > then; mkdir cp rsync; cp -u $T/data/* cp; cp cp/a two; tar -g list -C $T -cf 0.tar data certs; rsync -a $T/data/ rsync")
	term.ok("for f in $T/data/a $T/data/b $T/certs/c.pem $O/a.dat $O/a.dat/value $O/a.dat/attr $O/a.dat/attr/label $O/old.sec $O/old.sec/info; do test now -nt $f || echo $f; test $(($(date +%s) - $(stat -c %Y $f))) -lt 30 || echo $f; test $(stat -c %Y $f) = $(stat -c %Z $f) || echo $f; done > wrong; cmp /dev/null wrong")
	term.ok("sleep 1.1; printf two > $T/data/a; echo 0x0102 > $O/old.sec/attr/id; cp cert.pem $T/certs/new.pem")
	term.ok("for f in $T/data/a $T/certs/new.pem $O/a.dat/value $O/old.sec $O/old.sec/attr/id; do test $f -nt now || echo $f; done > wrong; test now -nt $T/data/b || echo b >> wrong; cmp /dev/null wrong")
	term.want("cp -u $T/data/* cp; cat cp/a cp/b", "twoone")
	term.want("rsync -a -i $T/data/ rsync | grep f; cat rsync/a", ">f..t...... a\ntwo")
	term.want("tar -g list -C $T -cf 1.tar data certs; tar -tf 1.tar | grep -v '/$' | sort", "certs/new.pem\ndata/a\n")
	term.ok("printf x > $T/data/.t; stat -c %Y $T/data/.t > a; sleep 1.1; printf y >> $T/data/.t; stat -c %Y $T/data/.t > b; ! cmp -s a b")
	term.ok("echo > $T/logout; test \"$(stat -c %Y $P)\" -le $(cat then)")
}
