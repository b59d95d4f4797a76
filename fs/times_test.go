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
	// What is set stays until the content changes, and copies have it.
	term.ok("old='2020-01-02 03:04:05 UTC' was=1577934245; is() { test $(stat -c %Y $1) = $was; }; mkdir from; printf kept > from/kept; cp cert.pem from/c2.pem; touch -d \"$old\" from/*")
	for _, line := range []string{
		"touch -d \"$old\" $T/data/b; is $T/data/b && test $(($(date +%s) - $(stat -c %Z $T/data/b))) -lt 30; test \"$(cat $T/data/b)\" = one",
		"touch $T/data/b; ! is $T/data/b",
		"cp -p from/kept $T/data/; is $T/data/kept && cmp from/kept $T/data/kept",
		"printf more >> $T/data/kept; ! is $T/data/kept",
		"rsync -a from/kept $T/data/; is $T/data/kept; rsync -a -i from/kept $T/data/ > said; ! grep -q '^>' said",
		"cp -p from/c2.pem $T/certs/; is $T/certs/c2.pem && cmp from/c2.pem $T/certs/c2.pem; touch $T/certs/c2.pem; ! is $T/certs/c2.pem",
		"rsync -a from/c2.pem $T/certs/; is $T/certs/c2.pem",
		"cp -p from/c2.pem $T/certs/; is $T/certs/c2.pem",
		"printf t > $T/data/.t2; touch -d \"$old\" $T/data/.t2; is $T/data/.t2; mv $T/data/.t2 $T/data/t2; is $T/data/t2; test $(cat $T/data/t2) = t",
		"tar -cf k.tar -C from kept; rm $T/data/kept; tar -xf k.tar --no-same-owner -C $T/data; is $T/data/kept; test $(cat $T/data/kept) = kept",
		": > from/empty; touch -d \"$old\" from/empty; echo x > $T/data/empty; cp -p from/empty $T/data/; sleep 0.1; test ! -s $T/data/empty; is $T/data/empty",
		"echo aes:128 label=s token=false > $T/generate; touch -d \"$old\" $O/s.sec $O/s.sec/info",
	} {
		term.ok("set -e; " + line)
		term.ok("set +e")
	}
	term.ok("printf x > $T/data/.t; stat -c %Y $T/data/.t > a; sleep 1.1; printf y >> $T/data/.t; stat -c %Y $T/data/.t > b; ! cmp -s a b")
	term.ok("echo > $T/logout; test \"$(stat -c %Y $P)\" -le $(cat then)")
}
