package integration

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A wrong row is one input that must be refused: a p11io call on a path below
// the token's folder, with content on its standard input.
type wrong struct {
	call    string // "write PATH", "read PATH", "mkdir PATH", …
	content string
	want    string // the call that fails and its errno; empty for what succeeds
	silent  bool   // the kernel refuses by itself, so error has nothing to tell
	public  bool   // by a terminal that is not logged in
	mode    bool   // the file's mode stops all but root, who gets as far as want
}

var (
	long      = strings.Repeat("x", 100_000)
	binary256 = string(repeat(256))
)

// wrongs is grouped by file: empty, too long, binary, wrong order, unknown and
// forbidden content. Terminals: one logged in as the user, one public.
var wrongs = []wrong{
	// login. The right PIN is given in between, which sets the counter of
	// wrong ones back.
	{call: "write login", content: "\n", want: "write EINVAL", public: true},
	{call: "write login", content: "wrongpin", want: "write EKEYREJECTED", public: true},
	{call: "write login", content: userPIN, public: true},
	{call: "write logout", content: "\n", public: true},
	{call: "write login", content: binary256, want: "write EKEYREJECTED", public: true},
	{call: "write login", content: long, want: "write EFBIG", public: true},
	{call: "write login", content: userPIN, public: true},
	{call: "write logout", content: "\n", public: true},
	{call: "write login", content: "nobody:" + userPIN, want: "write EKEYREJECTED", public: true},
	{call: "write login", content: "so:wrongpin", want: "write EKEYREJECTED", public: true},
	{call: "write login", content: "user:wrong", want: "write EKEYREJECTED", public: true},
	{call: "write login", content: userPIN, public: true},
	{call: "write logout", content: "\n", public: true},
	{call: "write login", content: userPIN, want: "write EBUSY"},
	{call: "write login", content: "so:" + soPIN, want: "write EBUSY"},
	{call: "write logout", content: "now", want: "write EINVAL"},
	{call: "write logout", content: "\n", want: "write EACCES", public: true},

	// ctl
	{call: "write ctl", content: "\n", want: "write EINVAL"},
	{call: "write ctl", content: "frobnicate", want: "write EINVAL"},
	{call: "write ctl", content: "init", want: "write EINVAL"},
	{call: "write ctl", content: "init " + soPIN + " new", want: "write EBUSY"},
	{call: "write ctl", content: "init-pin", want: "write EINVAL"},
	{call: "write ctl", content: "init-pin 11111111", want: "write EACCES"},
	{call: "write ctl", content: "init-pin 11111111", want: "write EACCES", public: true},
	{call: "write ctl", content: binary256, want: "write EINVAL"},
	{call: "write ctl", content: long, want: "write EFBIG"},
	{call: "read ctl", mode: true, want: "read ENODATA"},

	// pin
	{call: "write pin", content: "\n", want: "write EINVAL"},
	{call: "write pin", content: "onlyone", want: "write EINVAL"},
	{call: "write pin", content: "one two three", want: "write EINVAL"},
	{call: "write pin", content: "wrongpin 11111111", want: "write EKEYREJECTED"},
	{call: "write pin", content: userPIN + " 1", want: "write EINVAL"},
	{call: "write pin", content: userPIN + " 123456789012", want: "write EINVAL"},
	{call: "write pin", content: long, want: "write EFBIG"},

	// generate
	{call: "read generate", want: "read ENODATA"},
	{call: "write generate", content: "\n", want: "write EINVAL"},
	{call: "write generate", content: binary256, want: "write EINVAL"},
	{call: "write generate", content: long, want: "write EFBIG"},
	{call: "write generate", content: "frob:12", want: "write EOPNOTSUPP"},
	{call: "write generate", content: "rsa:17", want: "write EINVAL"},
	{call: "write generate", content: "rsa:1000000", want: "write EINVAL"},
	{call: "write generate", content: "ec:p999", want: "write EINVAL"},
	{call: "write generate", content: "aes:100", want: "write EINVAL"},
	{call: "write generate", content: "aes:128 label=\"open", want: "write EINVAL"},
	{call: "write generate", content: "aes:128 colour=red", want: "write EINVAL"},
	{call: "write generate", content: "aes:128 sign=maybe", want: "write EINVAL"},
	{call: "write generate", content: "aes:128 class=public-key", want: "write EINVAL"},
	{call: "write generate", content: "aes:128 local=true", want: "write EPERM"},
	{call: "write generate", content: "aes:128 private=true", want: "write EACCES", public: true},

	// find
	{call: "read find", want: "read ENODATA"},
	{call: "write find", content: binary256, want: "write EINVAL"},
	{call: "write find", content: long, want: "write EFBIG"},
	{call: "write find", content: "class=frob", want: "write EINVAL"},
	{call: "write find", content: "colour=red", want: "write EINVAL"},
	{call: "write find", content: "id=0xzz", want: "write EINVAL"},
	{call: "write find", content: "label=\"open", want: "write EINVAL"},

	// import
	{call: "read import", want: "read ENODATA"},
	{call: "rw import", content: "hello", want: "read EINVAL"},
	{call: "rw import", content: binary256, want: "read EINVAL"},
	{call: "rw import", content: "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n", want: "read EINVAL"},
	{call: "rw import", content: "-----BEGIN PRIVATE KEY-----\nMAA", want: "read EINVAL"},
	{call: "rw import", content: "-----BEGIN PGP MESSAGE-----\nAAAA\n-----END PGP MESSAGE-----\n", want: "read EINVAL"},
	{call: "rw import", content: strings.Repeat(long, 100), want: "write EFBIG"},
	{call: "write import:colour=red", content: "hello", want: "open EINVAL"},

	// sign
	{call: "read objects/web.key/sign", want: "read ENODATA"},
	{call: "write objects/web.key/sign:frob", content: "x", want: "open EOPNOTSUPP"},
	{call: "write objects/web.key/sign:aes-cbc", content: "x", want: "open EOPNOTSUPP"},
	{call: "write objects/web.key/sign:ecdsa", content: "x", want: "open EINVAL"},
	{call: "write objects/web.key/sign:sha256-rsa-pkcs,salt=32", content: "x", want: "open EINVAL"},
	{call: "write objects/web.key/sign:sha256-rsa-pkcs-pss,salt=many", content: "x", want: "open EINVAL"},
	{call: "write objects/web.key/sign:sha256-rsa-pkcs-pss,salt=100000", content: "x", want: "open EINVAL"},
	{call: "write objects/web.pub/sign", content: "x", want: "open ENOENT", silent: true},
	{call: "rw objects/web.key/sign:rsa-pkcs", content: long, want: "write EFBIG"},
	{call: "rw objects/ec.key/sign:ecdsa", content: long, want: "write EFBIG"},
	{call: "pwrite objects/web.key/sign", content: "x", want: "write EINVAL"},

	// verify
	{call: "read objects/web.pub/verify", want: "read ENODATA"},
	{call: "rw objects/web.pub/verify", content: "short", want: "read EBADMSG"},
	{call: "rw objects/web.pub/verify", content: strings.Repeat("s", 256) + "message", want: "read EBADMSG"},
	{call: "rw objects/ec.pub/verify", content: binary256, want: "read EBADMSG"},
	{call: "write objects/web.key/verify", content: "x", want: "open ENOENT", silent: true},

	// encrypt, decrypt
	{call: "read objects/aes.sec/encrypt", want: "read ENODATA"},
	{call: "rw objects/web.pub/encrypt", content: long, want: "write EFBIG"},
	{call: "rw objects/web.key/decrypt", content: "short", want: "read EINVAL"},
	{call: "rw objects/web.key/decrypt", content: binary256, want: "read EBADMSG"},
	{call: "rw objects/aes.sec/decrypt", content: "short", want: "read EBADMSG"},
	{call: "rw objects/aes.sec/decrypt", content: binary256, want: "read EBADMSG"},
	{call: "rw objects/aes.sec/encrypt:aes-cbc,iv=000102030405060708090a0b0c0d0e0f", content: "fifteen bytes..", want: "read EFBIG"},
	{call: "write objects/aes.sec/encrypt:aes-cbc,iv=00", content: "x", want: "open EINVAL"},
	{call: "write objects/aes.sec/encrypt:aes-cbc", content: "x", want: "open EINVAL"},
	{call: "write objects/aes.sec/encrypt:aes-cbc,iv=zz", content: "x", want: "open EINVAL"},
	{call: "write objects/aes.sec/encrypt:aes-gcm,iv=000000000000000000000000,tag=7", content: "x", want: "open EINVAL"},
	{call: "write objects/aes.sec/encrypt:rsa-pkcs", content: "x", want: "open EINVAL"},

	// wrap, unwrap, derive
	{call: "rw objects/aes.sec/wrap:aes-key-wrap", content: "fixed.sec", want: "open EPERM"},
	{call: "rw objects/aes.sec/unwrap:aes-key-wrap,class=secret-key,key-type=aes", content: "x", want: "open EPERM"},
	{call: "rw objects/ec.key/derive:ecdh1-derive,class=secret-key,key-type=generic-secret", content: "x", want: "open EPERM"},
	{call: "rw objects/wrapper.sec/wrap:aes-key-wrap", content: "nothing.sec", want: "write ENOENT"},
	{call: "rw objects/wrapper.sec/wrap:aes-key-wrap", content: long, want: "write EFBIG"},
	{call: "rw objects/wrapper.sec/wrap:aes-key-wrap", content: "fixed.sec", want: "write EPERM"},
	{call: "rw objects/wrapper.sec/unwrap:aes-key-wrap,class=secret-key,key-type=aes", content: "garbage", want: "read EINVAL"},
	{call: "write objects/wrapper.sec/unwrap:aes-key-wrap,colour=red", content: "x", want: "open EINVAL"},
	{call: "rw objects/agree.key/derive:ecdh1-derive,class=secret-key,key-type=generic-secret", content: "no point", want: "read EINVAL"},

	// attributes
	{call: "write objects/web.key/attr/class", mode: true, content: "data", want: "write EPERM"},
	{call: "write objects/web.key/attr/modulus", mode: true, content: "0x00", want: "write EPERM"},
	{call: "write objects/web.key/attr/label", content: long, want: "write EFBIG"},
	{call: "write objects/web.key/attr/id", content: "0xzz", want: "write EINVAL"},
	{call: "write objects/web.key/attr/sign", content: "maybe", want: "write EINVAL"},
	{call: "write objects/web.key/attr/sensitive", content: "false", want: "write EPERM"},
	{call: "write objects/fixed.sec/attr/extractable", content: "true", want: "write EPERM"},
	{call: "write objects/web.key/attr/start-date", content: "yesterday", want: "write EINVAL"},
	{call: "read objects/web.key/attr/nothing", want: "open ENOENT", silent: true},
	{call: "read objects/web.key/attr/private-exponent", want: "open EPERM", silent: true},

	// names
	{call: "stat objects/nothing.key", want: "stat ENOENT", silent: true},
	{call: "mkdir objects/new.key", want: "mkdir EPERM"},
	{call: "rmdir objects", want: "rmdir EPERM"},
	{call: "rename objects/web.key objects/web.pub", want: "rename EPERM"},
	{call: "rename objects/web.key objects/web.sec", want: "rename EPERM"},
	{call: "rename objects/web.key data/web", want: "rename EXDEV"},
	{call: "rename info slot", want: "rename EPERM"},
	{call: "link info info2", want: "link EOPNOTSUPP", silent: true},
	{call: "symlink x objects/x", want: "symlink EOPNOTSUPP", silent: true},
	{call: "mknod objects/x", want: "mknod EOPNOTSUPP", silent: true},
	{call: "chmod info", want: "chmod EPERM", silent: true},
	{call: "chown info", want: "chown EPERM", silent: true},
	{call: "unlink info", want: "unlink EPERM"},
	{call: "write info", content: "x", want: "open EACCES"},
	{call: "write mechanisms", content: "x", want: "open EACCES"},
	{call: "truncate random 5", want: "truncate EINVAL"},

	// data, certs, digest, sessions
	{call: "stat data/" + strings.Repeat("n", 300), want: "stat ENAMETOOLONG", silent: true},
	{call: "read data/nothing", want: "open ENOENT", silent: true},
	{call: "mkdir data/dir", want: "mkdir EPERM"},
	{call: "truncate data/nothing 0", want: "truncate ENOENT", silent: true},
	{call: "read digest/sha256", want: "read ENODATA"},
	{call: "write digest/frob", content: "x", want: "open EOPNOTSUPP"},
	{call: "write digest/aes-cbc", content: "x", want: "open EOPNOTSUPP"},
	{call: "mkdir sessions/work", want: "mkdir EEXIST", silent: true},
	{call: "mkdir sessions/12", want: "mkdir EINVAL"},
	{call: "rmdir sessions/99", want: "rmdir ENOENT", silent: true},
	{call: "rmdir sessions/new", want: "rmdir ENOTDIR", silent: true},
	{call: "rmdir sessions/self", want: "rmdir ENOTDIR", silent: true},
}

func TestWrongInputs(t *testing.T) {
	t.Parallel()
	if len(wrongs) < 80 {
		t.Fatalf("%d rows, want at least 80", len(wrongs))
	}
	d, term := ready(t, daemonConfig{})
	prepareKeys(term)
	term.ok("echo 'aes:128 label=fixed extractable=false' > $T/generate && cat $T/generate")
	term.ok("echo 'aes:256 label=wrapper wrap=true unwrap=true' > $T/generate && echo 'ec:p256 label=agree derive=true' > $T/generate && cat $T/generate")
	// Two applications: one that is logged in, and a public one.
	content := filepath.Join(workDir(t, "content"), "content")
	user, public := newOrders(t, d, "p11io", "serve", d.path()), newOrders(t, d, "p11io", "serve", d.path())
	call := func(who *orders, line, data string) string {
		t.Helper()
		if err := os.WriteFile(content, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
		return who.begin(content + " " + line)()
	}
	for _, who := range []*orders{user, public} { // so that both have their session
		if got := call(who, "rw find", "label=none"); got != "ok " {
			t.Fatal(got)
		}
	}
	if got := call(user, "write login", userPIN); got != "ok " {
		t.Fatal(got)
	}
	if got := call(user, "mkdir sessions/work", ""); got != "ok " {
		t.Fatal(got)
	}
	const state = "ls -lR $O $T/data $T/certs | sed 's/ [0-9:]* / /g'; cat $T/login; for f in $O/web.key/attr/*; do echo $f; cat $f; done"
	before, holds := term.ok(state), held(t, term)
	sessions := counted(t, term, "sessions")
	for _, w := range wrongs {
		t.Run(w.name(), func(t *testing.T) {
			who := user
			if w.public {
				who = public
			}
			line := w.call
			if strings.HasPrefix(line, "pwrite ") {
				line += " 7"
			}
			if w.mode && os.Geteuid() != 0 {
				w.want, w.silent = "open EACCES", true
			}
			got := call(who, line, w.content)
			if w.want == "" {
				if got != "ok " {
					t.Error(got)
				}
				return
			}
			why := call(who, "read error", "")
			if got != w.want {
				t.Errorf("%q, want %s; error: %s", got, w.want, why)
			}
			// The line names the CK_RV and says why: more than a number.
			if !w.silent && (!strings.Contains(why, "CKR_") || len(strings.Fields(why)) < 5) {
				t.Errorf("error says %q", why)
			}
		})
	}
	if after := term.ok(state); after != before {
		t.Errorf("wrong inputs changed what is there:\n%s", difference(before, after))
	}
	if n := counted(t, term, "sessions"); n != sessions {
		t.Errorf("%d sessions, before %d", n, sessions)
	}
	eventually(t, fmt.Sprint("what the daemon holds to be again ", holds), func() bool { return maps.Equal(held(t, term), holds) })
}

// name is the row's subtest: the call, and the kind of content.
func (w wrong) name() string {
	name := w.call
	if w.content != "" {
		name += " " + w.content[:min(len(w.content), 20)]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '/' {
			return '_'
		}
		return r
	}, name[:min(len(name), 80)])
}
