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
	_, _ = p.cat("tok/digest/sha256")
	_, _ = p.cat("tok/objects/web.key/sign")
	says("an error of now", wrong)
	w.pass(2 * errorStays)
	says("an error of before", wrong)
	_, _ = p.cat("tok/digest/sha256")
	says("and another answer", nothing)

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
