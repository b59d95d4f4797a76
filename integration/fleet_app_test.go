package integration

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens/fleet/historytest"
)

// A fleetApp is an application on a machine of a fleet, of files or of the module. It implements
// historytest.Client, with private keys, whose names and values are secrets. One
// goroutine uses it.
type fleetApp struct {
	t    *testing.T
	h    *fleetHost
	door string
	o    *orders

	session string // the user is logged in; "" is none
	known   map[string]string
	locked  atomic.Bool // the user's PIN was, when it was last tried
}

// app starts an application.
func (h *fleetHost) app(t *testing.T, door string) *fleetApp {
	t.Helper()
	a := &fleetApp{t: t, h: h, door: door, known: map[string]string{}}
	if door == "files" {
		a.o = newOrders(t, h.d, "p11io", "conformance", h.d.path())
	} else {
		needTools(t, "python3")
		a.o = newOrders(t, h.d, "sh", "-c", `P11FS_SOCKET="$1" exec python3 -B testdata/conformance.py "$2"`, "sh", filepath.Join(h.d.dir, "p11fs", "rpc.sock"), ownModule(t))
	}
	return a
}

// errUnknown is of a call of which nobody knows what came of it, with what the application said.
type errUnknown struct{ call, said string }

func (e errUnknown) Error() string { return e.call + ": " + e.said }

var errLocked = errors.New("the PIN is locked")

// is reports whether the answer is one of these.
func (e errUnknown) is(list ...p11.RV) bool {
	for _, rv := range list {
		if strings.HasPrefix(e.said+" ", fmt.Sprintf("0x%x ", uint64(rv))) {
			return true
		}
	}
	return false
}

// call makes a call.
func (a *fleetApp) call(words ...string) ([]string, error) {
	line := strings.Join(words, " ")
	if _, err := fmt.Fprintln(a.o.in, line); err != nil {
		return nil, errUnknown{words[0], err.Error()}
	}
	timer := time.AfterFunc(lineTimeout, func() { _ = a.o.kill() })
	defer timer.Stop()
	said, err := a.o.answers.ReadString('\n')
	if err != nil {
		a.t.Errorf("host %d, %s: %s: no answer: %v", a.h.n, a.door, words[0], err)
		return nil, errUnknown{words[0], err.Error()}
	}
	if rest, ok := strings.CutPrefix(said, "0x0"); ok {
		return strings.Fields(rest), nil
	}
	e := errUnknown{words[0], strings.TrimSpace(said)}
	switch {
	case e.said == "ENOENT", e.is(p11.CKR_OBJECT_HANDLE_INVALID, p11.CKR_KEY_HANDLE_INVALID):
		return nil, fmt.Errorf("%w: %s", historytest.ErrAbsent, e.Error())
	case e.is(p11.CKR_PIN_INCORRECT):
		return nil, historytest.ErrWrong
	case e.is(p11.CKR_PIN_LOCKED):
		return nil, errLocked
	}
	return nil, e
}

// in makes a call in a session in which the user is logged in. An answer that may come of the
// session's end is none.
func (a *fleetApp) in(call string, words ...string) ([]string, error) {
	if err := a.open(); err != nil {
		return nil, err
	}
	args := append([]string{call, a.session}, words...)
	if call == "one" {
		args = append([]string{call, words[0], a.session}, words[1:]...)
	}
	values, err := a.call(args...)
	nothing := err == nil && call == "find" && len(values) == 0
	if errors.Is(err, historytest.ErrAbsent) || nothing {
		if state, serr := a.call("state", a.session); serr != nil || state[0] != fmt.Sprintf("%x", uint64(p11.CKS_RW_USER_FUNCTIONS)) {
			err = errUnknown{call, "the session has ended"}
		} else if nothing {
			err = fmt.Errorf("%w: %s gives nothing", historytest.ErrAbsent, call)
		}
	}
	if e := (errUnknown{}); errors.As(err, &e) && !e.is(p11.CKR_DEVICE_ERROR) {
		a.session = ""
	}
	return values, err
}

// open logs the user in, if he is not.
func (a *fleetApp) open() error {
	if a.session != "" {
		return nil
	}
	session, err := a.newSession()
	if err != nil {
		return err
	}
	_, err = a.call("login", session, "1", hexOf(fleetUser))
	a.locked.Store(errors.Is(err, errLocked))
	if errors.Is(err, historytest.ErrAbsent) {
		err = errUnknown{"login", err.Error()}
	}
	if e := (errUnknown{}); errors.As(err, &e) && e.is(p11.CKR_USER_ALREADY_LOGGED_IN) {
		err = nil
	}
	if err == nil {
		a.session = session
		clear(a.known)
	} else {
		_, _ = a.call("close", session)
	}
	return err
}

func (a *fleetApp) newSession() (string, error) {
	session, err := a.call("open", readWrite)
	if errors.Is(err, historytest.ErrAbsent) { // there is no daemon, and so no mount
		return "", errUnknown{"open", err.Error()}
	}
	if err != nil {
		return "", err
	}
	if len(session) != 1 {
		return "", errUnknown{"open", fmt.Sprintf("gives %q", session)}
	}
	return session[0], nil
}

// Host is historytest.Client.
func (a *fleetApp) Host() int { return a.h.n }

// Door is historytest.Client.
func (a *fleetApp) Door() string { return a.door }

// fleetKey is the key of a name: its private value.
func fleetKey(name string) []byte {
	sum := sha256.Sum256([]byte(name))
	copy(sum[4:], fleetSecret)
	sum[0] = 1 // below the order of the curve
	return sum[:]
}

func fleetLabel(name string) string { return fleetSecret + "-" + name }

// Create is historytest.Client.
func (a *fleetApp) Create(name, value string) error {
	_, err := a.in("create", words(fmt.Sprintf("class=private-key key-type=ec ec-params=0x06082a8648ce3d030107 value=0x%x label=%s id=%s token=true private=true sign=true",
		fleetKey(name), fleetLabel(name), valueWord(value))))
	return err
}

// valueWord is a value as an identifier.
func valueWord(value string) string { return "0x" + hex.EncodeToString([]byte(value)) }

// look is the handle of an object, which is asked for, or the one that was known of it.
func (a *fleetApp) look(name string, known bool) (string, error) {
	if h := a.known[name]; h != "" && known {
		return h, nil
	}
	found, err := a.in("find", words("class=private-key label="+fleetLabel(name)))
	if err != nil {
		return "", err
	}
	if len(found) > 1 {
		a.t.Errorf("host %d: %s: there are %q", a.h.n, name, found)
	}
	a.known[name] = found[0]
	return found[0], nil
}

// Find is historytest.Client.
func (a *fleetApp) Find(name string) (string, error) {
	h, err := a.look(name, false)
	if err != nil {
		return "", err
	}
	values, err := a.in("get", h, fmt.Sprintf("%x", uint64(p11.CKA_ID)))
	if err != nil {
		return "", err
	}
	b, err := hex.DecodeString(values[0])
	return string(b), err
}

// Change is historytest.Client.
func (a *fleetApp) Change(name, value string) error {
	h, err := a.look(name, false)
	if err == nil {
		_, err = a.in("set", h, words("id="+valueWord(value)))
	}
	return err
}

// Destroy is historytest.Client.
func (a *fleetApp) Destroy(name string) error {
	h, err := a.look(name, false)
	if err == nil {
		_, err = a.in("destroy", h)
	}
	return err
}

// Sign is historytest.Client. A handle that is known is used without another look.
func (a *fleetApp) Sign(name string) error {
	h, err := a.look(name, true)
	if err != nil {
		return err
	}
	digest := sha256.Sum256([]byte(name))
	values, err := a.in("one", "sign", h, mech(p11.CKM_ECDSA), hex.EncodeToString(digest[:]))
	if err != nil {
		return err
	}
	sig, err := hex.DecodeString(values[0])
	if err != nil {
		return err
	}
	key, err := ecdh.P256().NewPrivateKey(fleetKey(name))
	if err != nil {
		return err
	}
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), key.PublicKey().Bytes())
	if err != nil {
		return err
	}
	if len(sig) != 64 || !ecdsa.Verify(public, digest[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		a.t.Errorf("host %d, %s: a signature of %s is another key's", a.h.n, a.door, name)
	}
	return nil
}

// tryPIN logs a role in, in a session of its own, and out again.
func (a *fleetApp) tryPIN(role p11.UserType, pin string) error {
	return a.as(role, pin, func(string) error { return nil })
}

// as does something in a session of a role's.
func (a *fleetApp) as(role p11.UserType, pin string, f func(session string) error) error {
	session, err := a.newSession()
	if err != nil {
		return err
	}
	if _, err = a.call("login", session, strconv.Itoa(int(role)), hexOf(pin)); err == nil {
		err = f(session)
		_, _ = a.call("logout", session)
	}
	_, _ = a.call("close", session)
	return err
}

// setUser has the security officer set the user's PIN.
func (a *fleetApp) setUser(so string) error {
	return a.as(p11.CKU_SO, so, func(session string) error {
		_, err := a.call("initpin", session, hexOf(fleetUser))
		return err
	})
}

// setSO changes the security officer's PIN.
func (a *fleetApp) setSO(old, pin string) error {
	return a.as(p11.CKU_SO, old, func(session string) error {
		_, err := a.call("setpin", session, hexOf(old), hexOf(pin))
		return err
	})
}
