package fs

import (
	"strings"
	"syscall"
	"testing"

	"p11fs/tokens/tokentest/hooks"
)

// TestHints: what programs are told all the time shows in error where nothing
// else went wrong lately.
func TestHints(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	p := w.person(1000, 100)
	says := func(what, want string) {
		t.Helper()
		if got, errno := p.cat("tok/error"); errno != 0 || !strings.Contains(got, want) {
			t.Errorf("%s: error is %q, %v; want %q", what, got, errno, want)
		}
	}
	fails := func(what string, errno, want syscall.Errno) {
		t.Helper()
		if errno != want {
			t.Errorf("%s: %v, want %v", what, errno, want)
		}
	}
	const unseen, nothing, wrong = "you are not logged in", "nothing was written in this session", "CKR_PIN_INCORRECT"

	_, errno := p.cat("tok/objects/web.key/sign")
	fails("an object", errno, syscall.ENOENT)
	says("an object", unseen)
	_, errno = p.cat("tok/data/safe")
	fails("a data file", errno, syscall.ENOENT)
	says("a data file", unseen)
	_, errno = p.cat("tok/digest/sha256")
	fails("a result", errno, syscall.ENODATA)
	says("a result", nothing)

	fails("a wrong PIN", p.echo("0000", "tok/login"), syscall.EKEYREJECTED)
	says("an error of now", wrong)
	_, _ = p.cat("tok/digest/sha256")
	says("another file", nothing)
	_, _ = p.cat("tok/objects/web.key/sign")
	says("another object", unseen)

	// That there is no result does not hide why, for as long as it is news.
	fails("a bad line", p.echo("aes:999", "tok/generate"), syscall.EINVAL)
	_, errno = p.cat("tok/generate")
	fails("its result", errno, syscall.ENODATA)
	says("its result", "a secret key has whole bytes")
	w.pass(2 * errorStays)
	says("an error of before", "a secret key has whole bytes")
	_, _ = p.cat("tok/generate")
	says("its result, later", nothing)

	p.must(p.echo(userPIN, "tok/login"))
	says("what went well", "CKR_OK")
	_, errno = p.cat("tok/objects/web.key/sign")
	fails("an object after login", errno, syscall.ENOENT)
	says("an object after login", "CKR_OBJECT_HANDLE_INVALID")
	if got, _ := p.cat("tok/error"); strings.Contains(got, unseen) {
		t.Errorf("after login error says %q", got)
	}

	other := w.person(1000, 200)
	other.reads("tok/error", "0x00000000 CKR_OK\n")
}
