package fs

import (
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"p11fs/tokens/tokentest/hooks"
)

// TestWords is what the file error says where its words once misled: each line has
// what fails, and words that it says and that it does not.
func TestWords(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	p := w.person(1000, 100)
	p.keys()
	p.must(p.echo("aes:256 label=kek wrap=true unwrap=true", "tok/generate"))
	p.must(p.echo("", "tok/logout"))
	const key, pub = "tok/objects/tls.key/", "tok/objects/tls.pub/"
	for _, c := range []struct {
		name, path, data string
		want, never      string
	}{
		{"logout twice", "tok/logout", "", "nobody is logged in to token tok: nothing to do", "log in first"},
		{"nobody sets a PIN", "tok/ctl", "init-pin 5678abcd", "so:SO-PIN to the file login", "write the PIN"},
		{"the user logs in", "tok/login", userPIN, "", ""},
		{"twice", "tok/login", userPIN, "the user is logged in already: nothing to do", "you are"},
		{"and the SO", "tok/login", "so:" + soPIN, "the user is logged in, who is another one: write an empty line to the file logout", "log out first"},
		{"the user sets a PIN", "tok/ctl", "init-pin 5678abcd", "so:SO-PIN to the file login", "write the PIN"},
		{"an EC key encrypts", key + "encrypt", "x", "no key of type ec can encrypt", "names in this directory are fixed"},
		{"its public half", pub + "encrypt", "x", "no key of type ec can encrypt", "is false"},
		{"and decrypts", key + "decrypt", "x", "no key of type ec can decrypt", "encrypt"},
		{"a public key signs", pub + "sign", "x", "a public-key does not sign: use the other key of the pair", "fixed"},
		{"a private key verifies", key + "verify", "x", "a private-key does not verify: use the other key of the pair", "fixed"},
		{"a key does what keys do not", key + "frob", "x", "names in this directory are fixed", "pair"},
		{"no bytes of a wrapped key", "tok/objects/kek.sec/unwrap:aes-cbc-pad,iv=000102030405060708090a0b0c0d0e0f", strings.Repeat("x", 31), "CKR_WRAPPED_KEY_INVALID: name the mechanism", "CKR_ENCRYPTED"},
		{"nor of that length", "tok/objects/kek.sec/unwrap:aes-cbc-pad,iv=000102030405060708090a0b0c0d0e0f", "x", "name the mechanism", "CKR_ENCRYPTED"},
	} {
		errno := p.echo(c.data, c.path)
		if (errno == 0) != (c.want == "") {
			t.Errorf("%s: %v", c.name, errno)
		}
		line, _ := p.cat("tok/error")
		if !strings.Contains(line, c.want) || c.never != "" && strings.Contains(line, c.never) {
			t.Errorf("%s: error is %q, want %q and not %q", c.name, line, c.want, c.never)
		}
		if strings.Count(line, "CKR_") != 1 {
			t.Errorf("%s: there are several names in %q", c.name, line)
		}
	}
}

// TestLockingWords: what a wrong PIN says agrees with what can be done.
func TestLockingWords(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	p := w.person(1000, 100)
	for _, role := range []struct{ prefix, unlock string }{{"", "init-pin PIN to ctl"}, {"so:", "make a new token"}} {
		for try, want := range []string{"2 tries are left: write the right PIN", "1 try is left: write the right PIN", "locked now: ", "locked after three wrong tries: "} {
			wantErrno(t, "a wrong PIN", p.echo(role.prefix+"0000", "tok/login"), syscall.EKEYREJECTED)
			line, _ := p.cat("tok/error")
			if !strings.Contains(line, want) || (try >= 2) != strings.Contains(line, role.unlock) || try >= 2 && strings.Contains(line, "right PIN") {
				t.Errorf("try %d of %q: %q", try+1, role.prefix, line)
			}
		}
	}
}

// TestSessionIsOpenedByName: sessions/new is found and not listed, so that who reads
// all files of the tree opens none.
func TestSessionIsOpenedByName(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	p := w.person(1000, 100)
	if names := p.ls("tok/sessions"); len(names) != 0 {
		t.Errorf("before any session there is %q", names)
	}
	number, errno := p.cat("tok/sessions/new")
	p.must(errno)
	if names := p.ls("tok/sessions"); !slices.Equal(names, []string{strings.TrimSpace(number)}) {
		t.Errorf("there is %q, want %q", names, number)
	}
}

// TestErrorOfNobody: who has lost the leader of their session reads why nothing works.
func TestErrorOfNobody(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	p := w.person(1000, 100)
	p.must(p.echo(userPIN, "tok/login"))
	close(w.leaders[100].ended)
	wantErrno(t, "a login", p.echo(userPIN, "tok/login"), syscall.EOPNOTSUPP)
	if line, _ := p.cat("tok/error"); !strings.Contains(line, "its session leader has exited") {
		t.Errorf("error is %q", line)
	}
}

// TestHalfAPair: who wants the public key of a private one that is there alone is told so,
// and how it comes back.
func TestHalfAPair(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	p := w.person(1000, 100)
	p.keys()
	p.must(p.rmdir("tok/objects/web.pub"))
	_, errno := p.cat("tok/objects/web.pub/verify")
	wantErrno(t, "the public key", errno, syscall.ENOENT)
	if line, _ := p.cat("tok/error"); !strings.Contains(line, "the private key is there alone: write its file public.pem to import") {
		t.Errorf("error is %q", line)
	}
	pem, errno := p.cat("tok/objects/web.key/public.pem")
	p.must(errno)
	p.must(p.print(pem, "tok/import:pub,label=web"))
	p.must(p.rmdir("tok/objects/web.pub"))
	p.must(p.echo("", "tok/logout"))
	_, _ = p.cat("tok/objects/web.pub/verify")
	if line, _ := p.cat("tok/error"); strings.Contains(line, "private key") {
		t.Errorf("without a login error is %q", line)
	}
}

// TestOneLabel: a second key of a class and label is refused, however it is made,
// unless it is given an id; and one only is left of two that were made at once.
func TestOneLabel(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	p, twin := w.person(1000, 100), w.person(1000, 200)
	p.keys()
	twin.must(twin.echo(userPIN, "tok/login"))
	before := p.ls("tok/objects")
	for what, want := range map[string]syscall.Errno{
		"aes:256 label=disk": syscall.EEXIST, "aes:128 label=disk token=false": syscall.EEXIST, "aes:256 label=disk private=false": syscall.EEXIST,
		"rsa:2048 label=web": syscall.EEXIST, "ec:p256 label=web": syscall.EEXIST,
		"aes:256 label=disk id=0x77": 0, "rsa:1024 label=disk": 0, "aes:256": 0,
	} {
		for _, who := range []person{p, twin} {
			if errno := who.echo(what, "tok/generate"); errno != want && (want != 0 || errno != syscall.EEXIST) {
				t.Errorf("%s: %v, want %v", what, errno, want)
			}
			if line, _ := who.cat("tok/error"); want != 0 && !strings.Contains(line, "choose another label") {
				t.Errorf("%s: error is %q", what, line)
			}
		}
	}
	if n := len(p.ls("tok/objects")); n != len(before)+6 {
		t.Errorf("there are %d objects, before %d", n, len(before))
	}
	const wrap = "wrap:aes-cbc-pad,iv=000102030405060708090a0b0c0d0e0f"
	p.must(p.echo("aes:128 label=moved extractable=true", "tok/generate"))
	p.must(p.echo("moved.sec", "tok/objects/disk.sec/"+wrap))
	wrapped, errno := p.cat("tok/objects/disk.sec/" + wrap)
	p.must(errno)
	wantErrno(t, "unwrapping under a label that is taken", p.print(wrapped, "tok/objects/disk.sec/un"+wrap+",label=moved"), syscall.EEXIST)
	p.must(p.print(wrapped, "tok/objects/disk.sec/un"+wrap+",label=other"))
	wantErrno(t, "a label that is taken", p.echo("moved", "tok/objects/other.sec/attr/label"), syscall.EEXIST)
	p.must(p.echo("other", "tok/objects/other.sec/attr/label"))

	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { _ = p.echo("aes:256 label=raced", "tok/generate") })
	}
	wg.Wait()
	names := p.ls("tok/objects")
	if n := len(slices.DeleteFunc(names, func(s string) bool { return !strings.HasPrefix(s, "raced") })); n != 1 {
		t.Errorf("%d keys have one label", n)
	}
}
