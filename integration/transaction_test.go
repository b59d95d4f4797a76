package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// prelude starts every script of this file. The working directory holds msg,
// a and b (msg is both after each other), and the public keys web.pem and
// ec.pem; $S signs with an RSA key, $V verifies, $D digests.
const prelude = `set -e
S=$O/web.key/sign V=$O/web.pub/verify E=$O/ec.key/sign D=$T/digest/sha256

good() { # good SIGNATURE MESSAGE: openssl says that the RSA signature is right
	openssl dgst -sha256 -verify web.pem -signature "$1" "$2" >/dev/null
}
fails() { # fails TEXT COMMAND...: the command fails and says TEXT
	text=$1; shift
	if "$@" 2>complaint; then echo "succeeded: $*" >&2; exit 1; fi
	if ! grep -qiF "$text" complaint; then echo "$* said, instead of $text:" >&2; cat complaint >&2; exit 1; fi
}
nothing() { # nothing FILE: no result is waiting
	fails 'No data available' cat "$1"
}
noise() { # noise N: N bytes, the same each time
	openssl enc -aes-128-ctr -K 00 -iv 00 -nosalt -in /dev/zero 2>/dev/null | head -c "$1"
}
`

// A rule is one sentence of the design about file transactions, and a script
// that fails where it does not hold.
type rule struct {
	name   string
	script string
}

// rules are the ten rules of docs/tree.md, and the tools people use.
var rules = []rule{
	// Two opens, joined by the session.
	{"two opens sign", `cat msg >$S; cat $S >sig; good sig msg`},
	{"two opens digest", `cat msg >$D; cat $D >got; openssl dgst -sha256 -binary msg | cmp - got`},
	{"two opens verify", `cat msg >$S; cat $S >sig; cat sig msg >$V; cat $V >/dev/null`},
	{"a result is read once", `cat msg >$S; cat $S >sig; nothing $S`},
	{"a result is of its own file", `cat msg >$S; nothing $E; nothing $D; cat $S >sig; good sig msg`},
	{"exact names", `for m in sha256-rsa-pkcs CKM_SHA256_RSA_PKCS; do cat msg >$O/web.key/sign:$m; cat $O/web.key/sign:$m >sig; good sig msg; done`},
	{"a name with parameters", `cat msg >$O/web.key/sign:sha256-rsa-pkcs-pss,salt=32; cat $O/web.key/sign:sha256-rsa-pkcs-pss,salt=32 >sig
		openssl dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 -verify web.pem -signature sig msg`},
	{"ec signatures are der", `cat msg >$E; cat $E >sig; openssl dgst -sha256 -verify ec.pem -signature sig msg`},
	{"ec exact signatures are raw", `openssl dgst -sha256 -binary msg >hash; cat hash >$O/ec.key/sign:ecdsa; cat $O/ec.key/sign:ecdsa >sig; test $(wc -c <sig) = 64
		cat sig hash >$O/ec.pub/verify:ecdsa; cat $O/ec.pub/verify:ecdsa >/dev/null`},

	// One read-write open is a private transaction.
	{"read-write open", `p11io rw $S <msg >sig; good sig msg`},
	{"a read-write open leaves nothing for others", `p11io rw $S <msg >sig; nothing $S`},
	{"a read-write open does not see what waits", `cat a >$D; p11io rw $D <b >got; openssl dgst -sha256 -binary b | cmp - got; cat $D >got; openssl dgst -sha256 -binary a | cmp - got`},
	{"exec 3<>", `exec 3<>$S; cat msg >&3; cat <&3 >sig; exec 3>&-; good sig msg`},
	{"exec 3<> with shell output", `exec 3<>$S; printf 'hello\n' >&3; cat <&3 >sig; exec 3>&-; echo hello >m; good sig m`},
	{"exec 3<> on two files at once", `exec 3<>$S 4<>$D; cat a >&3; cat b >&4; cat <&4 >got; cat <&3 >sig; exec 3>&- 4>&-
		good sig a; openssl dgst -sha256 -binary b | cmp - got`},
	{"one writes slowly, one reads", `exec 3<>$S; (echo a; sleep 0.5; echo b) >&3 & cat <&3 >sig; exec 3>&-; wait; printf 'a\nb\n' >m; good sig m`},
	{"one reads before one writes", `exec 3<>$S; cat <&3 >sig & sleep 0.2; cat msg >&3; exec 3>&-; wait; good sig msg`},
	{"one writes more than is held", `exec 3<>$O/aes.sec/encrypt:aes-ctr,counter=00000000000000000000000000000000; dd if=/dev/zero bs=1M count=80 2>/dev/null >&3 & cat <&3 | openssl sha256 -binary >c; exec 3>&-; wait
		exec 3<>$O/aes.sec/encrypt:aes-ctr,counter=00000000000000000000000000000000; dd if=/dev/zero bs=1M count=80 2>/dev/null >&3 & openssl sha256 -binary <&3 >d; exec 3>&-; wait; cmp c d`},
	{"an iv serves one message", `exec 3<>$O/aes.sec/encrypt:aes-ctr,counter=00000000000000000000000000000000; cat a >&3; cat <&3 >c; fails 'Invalid argument' cat b >&3; exec 3>&-; grep -q IV $T/error`},
	{"a read cursor of its own", `exec 3<>$S; cat msg >&3; head -c 10 <&3 >sig; cat <&3 >>sig; cat <&3 >end; exec 3>&-; good sig msg; test ! -s end`},
	{"small reads", `cat msg >$S; dd if=$S of=sig bs=7 2>/dev/null; good sig msg`},

	// Data streams, and a FLUSH in the middle is no end.
	{"(cat a; cat b)", `(cat a; cat b) >$S; cat $S >sig; good sig msg`},
	{"{ cat a; cat b; }", `{ cat a; cat b; } >$S; cat $S >sig; good sig msg`},
	{"40 MB and 40 MB", `noise 40000000 >x; noise 80000000 | tail -c 40000000 >y
		(cat x; cat y) >$S; cat $S >sig; noise 80000000 >m; good sig m
		(cat x; cat y) >$E; cat $E >sig; openssl dgst -sha256 -verify ec.pem -signature sig m
		(cat x; cat y) >$D; cat $D >got; openssl dgst -sha256 -binary m | cmp - got; rm x y m`},
	{"three pieces of one file", `noise 8000000 >x; (head -c 3000000 x; tail -c +3000001 x | head -c 17; tail -c +3000018 x) >$S; cat $S >sig; good sig x`},
	{"a result on the way", `exec 3>$S; cat a >&3; cat $S >sig; good sig a; cat b >&3; exec 3>&-; cat $S >sig; good sig msg`},
	{"a signature, then its data", `cat msg >$S; cat $S >sig; if ! (cat sig; cat msg) >$V 2>first; then exit 1; fi; grep -qi 'bad message' first; test "$(cat $V)" = ok`},
	{"three pieces into ciphers", `noise 8000000 >x
		for m in '' :stream :aes-cbc-pad,iv=00000000000000000000000000000000 :aes-ctr,counter=00000000000000000000000000000000 :aes-gcm,iv=000000000000000000000000; do
			(head -c 3000001 x; tail -c +3000002 x | head -c 17; tail -c +3000019 x) >$O/aes.sec/encrypt$m; cat $O/aes.sec/encrypt$m >c
			cat c >$O/aes.sec/decrypt$m; cat $O/aes.sec/decrypt$m | cmp - x
			if ! (head -c 3000001 c; tail -c +3000002 c | head -c 17; tail -c +3000019 c) >$O/aes.sec/decrypt$m 2>/dev/null; then exit 1; fi
			cat $O/aes.sec/decrypt$m | cmp - x
		done`},
	{"output on the way", `C=$O/aes.sec/encrypt:aes-ctr,counter=00000000000000000000000000000000; noise 3000000 >x; noise 8000000 | tail -c 5000000 >y
		exec 3>$C; cat x >&3; cat $C >c1; cat y >&3; exec 3>&-; cat $C >c2; head -c 3000000 c2 | cmp - c1; test $(wc -c <c2) = 8000000
		C=$O/aes.sec/decrypt:aes-ctr,counter=00000000000000000000000000000000; cat c2 >$C; noise 8000000 >m; cat $C | cmp - m`},
	{"one nonce, one tag", `C=$O/aes.sec/encrypt; exec 3>$C; cat a >&3; cat $C >c; fails 'Invalid argument' cat b >&3; exec 3>&-; grep -q 'one result' $T/error
		fails 'Invalid argument' cat $C; cat c >$O/aes.sec/decrypt; cat $O/aes.sec/decrypt | cmp - a`},
	{"many small writes", `while read -r line; do printf '%s\n' "$line"; done <lines >$S; cat $S >sig; good sig lines`},
	{"writes of a shell and its children", `{ printf 1; /bin/echo 2; printf 3; sh -c 'printf 4'; } >$D; cat $D >got; printf '12\n34' | openssl dgst -sha256 -binary | cmp - got`},
	{"a big message", `head -c 5000000 /dev/zero >big; cat big >$S; cat $S >sig; good sig big`},
	{"output as it comes", `p11io rw $O/aes.sec/encrypt:aes-cbc-pad,iv=000102030405060708090a0b0c0d0e0f <big1 >c
		p11io rw $O/aes.sec/decrypt:aes-cbc-pad,iv=000102030405060708090a0b0c0d0e0f <c | cmp - big1`},

	// An empty write.
	{"an empty write leaves no result", `: >$S; nothing $S; cat /dev/null >$S; nothing $S; printf '' >$S; nothing $S; cp /dev/null $S; nothing $S`},
	{"an empty write drops the result before", `cat msg >$S; : >$S; nothing $S`},
	{"an empty flush does nothing", `(true; cat msg; true; cat /dev/null) >$S; cat $S >sig; good sig msg`},

	// Truncation to 0 starts anew, before or after, by handle or by name.
	{"truncate before", `truncate -s 0 $S; cat msg >$S; cat $S >sig; good sig msg`},
	{"truncate after", `cat msg >$S; truncate -s 0 $S; nothing $S`},
	{"truncate by name after", `cat msg >$S; p11io truncate $S 0; nothing $S`},
	{"truncate by handle, then write", `cat b >$S; p11io ftruncate $S 0 <msg; cat $S >sig; good sig msg`},
	{"truncate in the middle of an open", `exec 3>$S; cat b >&3; p11io truncate $S 0; exec 3>&-; cat msg >$S; cat $S >sig; good sig msg`},
	{"other truncation", `fails EINVAL p11io truncate $S 5; fails EINVAL p11io ftruncate $S 1 <msg; fails 'Invalid argument' truncate -s 100 $S`},
	{"a newer generation wins", `cat a >$S; cat b >$S; cat msg >$S; cat $S >sig; good sig msg; nothing $S`},

	// Append, gaps and rewinds.
	{"append signs", `cat msg >>$S; cat $S >sig; good sig msg`},
	{"append starts anew", `cat a >>$S; cat b >>$S; cat $S >sig; good sig b`},
	{"dd append", `dd if=msg of=$S oflag=append conv=notrunc 2>/dev/null; cat $S >sig; good sig msg`},
	{"a gap", `fails EINVAL p11io pwrite $S 10 <msg; fails EINVAL p11io read $S; nothing $S; cat msg >$S; cat $S >sig; good sig msg`},
	{"dd seek", `fails 'Illegal seek' dd if=msg of=$S bs=10 seek=3 conv=notrunc; nothing $S`},

	// Errors that the shell loses are kept.
	{"a lost close error", `cat msg >$S; cat $S >sig; cat sig b >$V 2>/dev/null || true; fails 'Bad message' cat $V; grep -q CKR_SIGNATURE_INVALID $T/error`},
	{"a close error of a builtin", `printf '%0256d' 0 >bad; { cat bad; printf x; } >$V || true; fails 'Bad message' cat $V; grep -q CKR_SIGNATURE $T/error`},
	{"too long for the key", `fails 'File too large' cp big1 $O/web.pub/encrypt; grep -q CKR_DATA_LEN_RANGE $T/error`},
	{"a bad tag", `cat msg >$O/aes.sec/encrypt; cat $O/aes.sec/encrypt >c; printf x >>c; cat c >$O/aes.sec/decrypt 2>/dev/null || true; fails 'Bad message' cat $O/aes.sec/decrypt`},
	{"a good one after a bad one", `printf bad >$V 2>/dev/null || true; cat msg >$S; cat $S >sig; cat sig msg >$V; cat $V`},

	// Commands run inside WRITE, so that echo sees the errno.
	{"echo sees the errno", `fails 'Invalid argument' /bin/echo class=nothing >$T/find
		fails 'Device or resource busy' /bin/echo so:00000000 >$T/login
		echo >$T/logout; fails 'Key was rejected' /bin/echo 00000000 >$T/login
		if echo 00000000 >$T/login 2>/dev/null; then exit 1; fi; grep -q CKR_PIN_INCORRECT $T/error; echo $PIN >$T/login`},
	{"a trailing newline is dropped", `printf 'label=web' >$T/find; cat $T/find >1; echo 'label=web' >$T/find; cat $T/find >2; cmp 1 2; test -s 1`},
	{"one command an open", `fails 'Invalid argument' sh -c '{ /bin/echo label=web; /bin/echo label=ec; } >$T/find'`},
	{"a command in one read-write open", `exec 3<>$T/find; echo label=web >&3; cat <&3 >names; exec 3>&-; grep -q web.key names; grep -q web.pub names`},
	{"attributes", `echo renamed >$O/web.pub/attr/label; test "$(cat $O/renamed.pub/attr/label)" = renamed; echo web >$O/renamed.pub/attr/label; test -e $O/web.pub/info`},

	// Nothing is created twice.
	{"import creates once", `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out k.pem 2>/dev/null
		n=$(ls $O | wc -l); cat k.pem >$T/import:label=once; cat $T/import:label=once >names; cat names; test $(ls $O | wc -l) = $((n + $(wc -l <names)))
		for f in $(cat names); do rmdir $O/$f; done; test $(ls $O | wc -l) = $n`},
	{"generate creates once", `n=$(ls $O | wc -l); echo 'aes:128 label=once' >$T/generate; cat $T/generate >names; test "$(cat names)" = once.sec; nothing $T/generate
		test $(ls $O | wc -l) = $((n + 1)); rmdir $O/once.sec`},

	// An interrupt in the middle.
	{"an interrupt in the middle of a message", `{ cat a; sleep 30; cat b; } >$S & sleep 0.2; kill -INT $! 2>/dev/null; kill -TERM $!; wait $! || true; cat msg >$S; cat $S >sig; good sig msg`},
	{"an interrupt of a generation", `n=$(ls $O | wc -l); timeout -s INT -k 1 0.05 sh -c 'echo "rsa:4096 label=slow" >$T/generate' || test $? = 124
		m=$(ls $O | wc -l); test $m = $n -o $m = $((n + 2)); rmdir $O/slow.* 2>/dev/null || true; test $(ls $O | wc -l) = $n`},

	// Login is looked at again when a handle is used.
	{"logout cuts live handles", `exec 3<>$S; cat msg >&3; echo >$T/logout; fails 'ermission denied' cat <&3; exec 3>&-; echo $PIN >$T/login`},
	{"a session directory has its own results", `mkdir $T/sessions/mine; W=$T/sessions/mine; cat a >$W/digest/sha256; nothing $D; cat b >$D
		cat $W/digest/sha256 >got; openssl dgst -sha256 -binary a | cmp - got; cat $D >got; openssl dgst -sha256 -binary b | cmp - got; rmdir $W; test ! -e $W`},

	// The tools people use.
	{"cp", `cp msg $S; cp $S sig; good sig msg`},
	{"cp over an existing file", `echo old >sig; cp msg $S; cp $S sig; good sig msg`},
	{"dd", `dd if=msg of=$S bs=100 2>/dev/null; dd if=$S of=sig 2>/dev/null; good sig msg`},
	{"dd conv=notrunc", `dd if=msg of=$S conv=notrunc 2>/dev/null; dd if=$S of=sig 2>/dev/null; good sig msg`},
	{"tee", `tee $S <msg >/dev/null; cat $S >sig; good sig msg`},
	{"tee -a", `tee -a $S <msg >copy; cat $S >sig; good sig copy`},
	{"echo", `echo hello >$S; cat $S >sig; echo hello >m; good sig m`},
	{"printf", `printf hello >$S; cat $S >sig; printf hello >m; good sig m`},
	{"head", `head -c 100 msg >$S; head -c 1000 $S >sig; head -c 100 msg >m; good sig m`},
	{"openssl -in", `cat msg >$S; openssl base64 -in $S -out sig64; openssl base64 -d -in sig64 -out sig; good sig msg`},
	{"openssl -out", `openssl base64 -in msg -out $S; cat $S >sig; openssl base64 -in msg -out m; good sig m`},
	{"openssl dgst -out", `openssl dgst -sha256 -binary -out $O/ec.key/sign:ecdsa msg; cat $O/ec.key/sign:ecdsa >sig; test $(wc -c <sig) = 64`},
	{"openssl -pubin from the mount", `cat msg >$S; cat $S >sig; openssl dgst -sha256 -verify $O/web.pub/public.pem -signature sig msg`},
	{"openssl x509 -in", `openssl x509 -in $T/certs/site.pem -noout -subject | grep -q site.example`},
	{"openssl encrypts for us", `openssl pkeyutl -encrypt -pubin -inkey web.pem -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -in a1 -out c
		cat c >$O/web.key/decrypt; cat $O/web.key/decrypt | cmp - a1`},
	{"we encrypt for ourselves", `cat a1 >$O/web.pub/encrypt; cat $O/web.pub/encrypt >c; cat c >$O/web.key/decrypt; cat $O/web.key/decrypt | cmp - a1`},
	{"aes", `cat msg >$O/aes.sec/encrypt; cat $O/aes.sec/encrypt >c; cat c >$O/aes.sec/decrypt; cat $O/aes.sec/decrypt | cmp - msg; test $(wc -c <c) = $(($(wc -c <msg) + 28))`},
	{"python3", `python3 - $S <<'EOF' >sig
import sys
with open("msg", "rb") as m, open(sys.argv[1], "r+b", buffering=0) as f:
    f.write(m.read())
    sys.stdout.buffer.write(f.read())
EOF
		good sig msg`},
	{"python3 with buffers", `python3 - $S <<'EOF' >sig
import sys
with open("msg", "rb") as m, open(sys.argv[1], "wb") as f:
    for line in m:
        f.write(line)
with open(sys.argv[1], "rb") as f:
    sys.stdout.buffer.write(f.read())
EOF
		good sig msg`},
	{"a go program", `p11io write $S <msg; p11io read $S >sig; good sig msg; p11io rw $E <msg >sig; openssl dgst -sha256 -verify ec.pem -signature sig msg`},
	{"random", `head -c 100000 $T/random >r; test $(wc -c <r) = 100000; dd if=$T/random of=r bs=16 count=1 2>/dev/null; test $(wc -c <r) = 16`},
	{"data files", `cp msg $T/data/note; cmp msg $T/data/note; mv $T/data/note $T/data/memo; cat $T/data/memo | cmp - msg; test ! -e $T/data/note; rm $T/data/memo; test ! -e $T/data/memo`},
	{"data files that many append to", `for i in $(seq 64); do (echo $i >>$T/data/log) & done; wait; seq 64 >want; sort -n $T/data/log | cmp - want; rm $T/data/log`},
	{"data files that are too long", `echo old >$T/data/k; fails 'File too large' sh -c "head -c 2000000 /dev/zero >$T/data/k"; fails 'File too large' cp -f /dev/stdin $T/data/k </dev/zero; test "$(cat $T/data/k)" = old; rm $T/data/k`},
	{"data files by echo", `echo secret >$T/data/pw; test "$(cat $T/data/pw)" = secret; echo more >$T/data/pw; test "$(cat $T/data/pw)" = more; rm $T/data/pw`},
}

// TestTransactions runs each rule in bash, with the race detector where the tests have it,
// and in dash without.
func TestTransactions(t *testing.T) {
	t.Parallel()
	needTools(t, "bash", "dash", "openssl", "python3")
	for shell, program := range map[string]string{"bash": binary(), "dash": plainBinary(t)} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			_, term := ready(t, daemonConfig{binary: program})
			transact(t, term, shell, rules)
		})
	}
}

// transact runs rules at a terminal that is logged in.
func transact(t *testing.T, term *terminal, shell string, rules []rule) {
	term.ok("PIN=" + userPIN + "; export PIN")
	prepareKeys(term)
	for _, r := range rules {
		t.Run(strings.ReplaceAll(r.name, "/", "-"), func(t *testing.T) {
			script := filepath.Join(term.dir, "script")
			if err := os.WriteFile(script, []byte(prelude+r.script+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			if res := term.run(shell + " -x " + script); res.status != 0 {
				t.Errorf("%s\nended with status %d\n%s%s\nerror: %s", r.script, res.status, res.out, trace(res.err), term.run("cat $T/error").out)
			}
		})
	}
}

// trace is the part of a shell's -x output that tells what went wrong.
func trace(s string) string {
	all := strings.SplitAfter(s, "\n")
	if len(all) > 25 {
		all = all[len(all)-25:]
	}
	return strings.Join(all, "")
}

// prepareKeys makes the keys and the files that prelude promises.
func prepareKeys(term *terminal) {
	term.t.Helper()
	for _, line := range []string{
		"echo 'rsa:2048 label=web' > $T/generate && cat $T/generate",
		"echo 'ec:p256 label=ec' > $T/generate && cat $T/generate",
		"echo 'aes:256 label=aes' > $T/generate && cat $T/generate",
		"cat $O/web.pub/public.pem > web.pem && cat $O/ec.pub/public.pem > ec.pem",
		"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -subj /CN=site.example -days 2 -out site.pem && cp site.pem $T/certs/site.pem",
		"seq 100 > a && seq 200 300 > b && cat a b > msg && seq 2000 > lines && head -c 100 a > a1 && seq 20000 > big1",
	} {
		term.ok(line)
	}
}
