package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/mountd"
	"p11fs/mountd/rpc/wire"
	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
)

// socketEnv names the socket of a daemon, as for libp11fs.so.
const socketEnv = "P11FS_SOCKET"

// maxRequest is more than any request here, so that no copy of a PIN is left behind by one
// that grows.
const maxRequest = 4 * maxLine

// closePatience is how long a command that is done waits for the daemon to note it.
const closePatience = 2 * time.Second

// A remote is a token of a daemon that is reached by its socket for PKCS#11 programs alone, as
// in a container. The connection is an application of its own: nobody is logged in at first.
type remote struct {
	conn    *net.UnixConn
	in      *bufio.Reader
	code    uint32
	ended   func() error // tells whether nobody waits any more
	token   remoteToken
	session uint64 // 0 for none yet, or none any more
	who     string // is logged in
}

// A remoteToken is what the daemon tells of a token.
type remoteToken struct {
	slot              uint64
	label             string
	description       string // of the slot
	flags             p11.Flags
	shortest, longest uint64 // PINs
}

// dialDaemon connects to a socket. With own it must be a daemon of this user's.
func dialDaemon(ctx context.Context, path string, own bool) (*remote, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	k := &remote{conn: c.(*net.UnixConn), in: bufio.NewReader(c), code: 15, ended: ctx.Err, who: "public"}
	context.AfterFunc(ctx, func() { _ = c.Close() }) // which ends a call that waits
	if own && k.peer() != os.Getuid() {
		return nil, errors.Join(fmt.Errorf("the daemon at %s is another user's: name it by %s, if it is meant", path, socketEnv), c.Close())
	}
	answer := byte(0)
	if _, err = c.Write([]byte{byte(wire.Own)}); err == nil {
		answer, err = k.in.ReadByte()
	}
	if err != nil && ctx.Err() != nil {
		err = ctx.Err() // and not that of the connection, which that has closed
	}
	if err == nil && answer != wire.Own.Answer() {
		err = fmt.Errorf("what listens on %s is no p11fs: name the socket of one by %s", path, socketEnv)
	}
	if err == nil {
		_, err = k.call(wire.CallInitialize, func(w *wire.Writer) {
			w.Array(wire.Array{Data: []byte(wire.Handshake)})
			w.B = append(w.B, 0)
			w.Array(wire.Array{Null: true})
		})
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return k, nil
}

// peer is the uid of the daemon, or -1.
func (k *remote) peer() int { return peerUID(k.conn) }

// peerUID is the uid of who is at the other end of a connection, or -1.
func peerUID(c *net.UnixConn) int {
	uid := -1
	raw, err := c.SyscallConn()
	if err != nil {
		return uid
	}
	_ = raw.Control(func(fd uintptr) { // without an answer it is nobody
		if u, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid = int(u.Uid)
		}
	})
	return uid
}

// call sends a request, whose arguments put writes, and returns what the reply brings. The
// errors of the daemon are CK_RVs.
func (k *remote) call(call wire.Call, put func(w *wire.Writer)) (*wire.Reader, error) {
	s, _ := wire.Signatures(call)
	k.code++
	b, start := wire.AppendFrame(make([]byte, 0, maxRequest), k.code, "")
	w := wire.NewWriter(b, wire.Own)
	w.Header(uint32(call), s.Request)
	if put != nil {
		put(w)
	}
	defer func() { secret.Wipe(w.B) }()
	if err := wire.EndFrame(w.B, start); err != nil {
		return nil, err
	}
	if _, err := k.conn.Write(w.B); err != nil {
		return nil, k.lost(err)
	}
	code, body, err := wire.ReadFrame(k.in, nil, nil)
	if err != nil {
		return nil, k.lost(err)
	}
	r := wire.NewReader(body, wire.Own)
	got, signature := r.Header()
	if wire.Call(got) == wire.CallError && signature == "u" {
		if rv := p11.RV(r.Ulong()); r.End() == nil && rv != p11.CKR_OK {
			return nil, rv
		}
	}
	if code != k.code || wire.Call(got) != call || signature != s.Response || r.Err() != nil {
		return nil, fmt.Errorf("the daemon does not answer %s: it may be of another version, so restart it", s.Name)
	}
	return r, nil
}

// lost is the error of a connection that ended.
func (k *remote) lost(err error) error {
	if ended := k.ended(); ended != nil {
		return ended
	}
	return fmt.Errorf("the daemon has ended: start it again (%w)", err)
}

// Close ends the connection, once the daemon has ended the application: the command after
// this one then meets no session of it.
func (k *remote) Close() error {
	_ = k.conn.SetDeadline(time.Now().Add(closePatience))
	_, _ = k.call(wire.CallFinalize, nil) // which may have ended with the daemon
	return k.conn.Close()
}

// tokens are those that the daemon has.
func (k *remote) tokens() (list []remoteToken, err error) {
	r, err := k.call(wire.CallGetSlotList, func(w *wire.Writer) {
		w.B = append(w.B, 1) // with a token
		w.B = binary.BigEndian.AppendUint32(w.B, 1<<16)
	})
	if err != nil {
		return nil, err
	}
	r.Byte() // the list, and not its length
	slots := make([]uint64, 0, 16)
	for n := r.Room(); n > 0 && r.Err() == nil; n-- {
		slots = append(slots, r.Ulong())
	}
	if r.End() != nil {
		return nil, errors.New("the daemon lists no slots: restart it")
	}
	for _, slot := range slots {
		t, err := k.info(slot)
		if err == nil {
			list = append(list, t)
		}
	}
	return list, nil
}

// info asks for what is told of one token.
func (k *remote) info(slot uint64) (t remoteToken, err error) {
	t.slot = slot
	number := func(w *wire.Writer) { w.Ulong(slot) }
	r, err := k.call(wire.CallGetSlotInfo, number)
	if err != nil {
		return t, err
	}
	t.description = strings.TrimSpace(r.Text())
	if r, err = k.call(wire.CallGetTokenInfo, number); err != nil {
		return t, err
	}
	t.label = strings.TrimSpace(r.Text())
	for range 3 { // manufacturer, model, serial number
		r.Text()
	}
	t.flags = p11.Flags(r.Ulong())
	for range 4 { // sessions
		r.Ulong()
	}
	t.longest, t.shortest = r.Ulong(), r.Ulong()
	return t, r.Err()
}

// is reports whether name means the token: its label, its slot's number, or the folder that
// it has in the mount, where no configuration describes the slot.
func (t remoteToken) is(name string) bool {
	return t.label == name || strconv.FormatUint(t.slot, 10) == name || t.description == "p11fs "+name
}

// choose finds the token that is meant, and returns what it is called.
func (k *remote) choose(args []string) (name string, err error) {
	all, err := k.tokens()
	if err != nil {
		return "", err
	}
	var names []string
	for _, t := range all {
		names = append(names, fmt.Sprintf("%d (%s)", t.slot, t.label))
	}
	found := all
	if len(args) > 0 {
		found = slices.DeleteFunc(slices.Clone(all), func(t remoteToken) bool { return !t.is(args[0]) })
	}
	switch {
	case len(all) == 0:
		return "", errors.New("the daemon has no token: p11fs status says why, where it is mounted")
	case len(found) == 0:
		return "", fmt.Errorf("the daemon has no token %q: name a label, or the slot, of %s", args[0], strings.Join(names, ", "))
	case len(found) > 1:
		return "", &usageError{err: fmt.Errorf("several tokens are meant: name the slot of one of %s", strings.Join(names, ", "))}
	}
	k.token = found[0]
	if len(args) > 0 {
		return args[0], nil
	}
	return strconv.FormatUint(k.token.slot, 10), nil
}

// do calls a function of a session, which it opens first.
func (k *remote) do(what, name, role string, call wire.Call, put func(w *wire.Writer)) error {
	if k.session == 0 {
		r, err := k.call(wire.CallOpenSession, func(w *wire.Writer) {
			w.Ulong(k.token.slot)
			w.Ulong(uint64(p11.CKF_SERIAL_SESSION | p11.CKF_RW_SESSION))
		})
		if err != nil {
			return k.refused(what, name, role, err)
		}
		k.session = r.Ulong()
	}
	_, err := k.call(call, func(w *wire.Writer) {
		w.Ulong(k.session)
		put(w)
	})
	return k.refused(what, name, role, err)
}

// refused says in the words of the mount what the daemon has refused: it gives the CK_RV alone.
func (k *remote) refused(what, name, role string, err error) error {
	var rv p11.RV
	if !errors.As(err, &rv) {
		return err
	}
	told := k.explained(role, rv)
	why := told.Error()
	if why == rv.String() {
		why = p11.AdviceOf(told)
	} else {
		why += ": " + p11.AdviceOf(told)
	}
	return &remoteError{what: what, why: inCommands(name, why), rv: rv}
}

// explained is the error of the token that a CK_RV about a PIN comes of.
func (k *remote) explained(role string, rv p11.RV) error {
	user := p11.UserType(p11.CKU_USER)
	if role == "so" {
		user = p11.CKU_SO
	}
	r, err := tokens.RoleOf(user)
	if err != nil {
		return rv
	}
	switch rv {
	case p11.CKR_PIN_LOCKED:
		return r.MayTry(r.Locked, true)
	case p11.CKR_USER_PIN_NOT_INITIALIZED:
		return r.MayTry(0, false)
	case p11.CKR_PIN_INCORRECT:
		t, err := k.info(k.token.slot)
		if err != nil {
			return rv
		}
		before := p11.Flags(0)
		switch tries, _ := t.flags.PINState(user); tries {
		case "0":
			before = r.FinalTry
		case "1":
			before = r.CountLow
		}
		_, err = r.Wrong(before)
		return err
	}
	return rv
}

// A remoteError is what a daemon refused.
type remoteError struct {
	what string // such as "pin swtok"
	why  string
	rv   p11.RV
}

func (e *remoteError) Error() string {
	return fmt.Sprintf("%s: %#08x %s: %s", e.what, uint64(e.rv), e.rv, e.why)
}

func (e *remoteError) Unwrap() error { return e.rv }

func (k *remote) role(string) string { return k.who }

// withPINs writes PINs.
func withPINs(w *wire.Writer, pins ...*secret.Bytes) {
	for _, p := range pins {
		p.Use(func(b []byte) { w.Array(wire.Array{Data: b}) })
	}
}

func (k *remote) login(what, name, role string, pin *secret.Bytes) error {
	err := k.do(what, name, role, wire.CallLogin, func(w *wire.Writer) {
		if role == "so" {
			w.Ulong(uint64(p11.CKU_SO))
		} else {
			w.Ulong(uint64(p11.CKU_USER))
		}
		withPINs(w, pin)
	})
	if err == nil {
		k.who = role
	}
	return err
}

func (k *remote) logout(name string) error {
	err := k.do("logout "+name, name, k.who, wire.CallLogout, func(*wire.Writer) {})
	if err == nil {
		k.who = "public"
	}
	return err
}

func (k *remote) setPIN(what, name string, old, fresh *secret.Bytes) error {
	return k.do(what, name, k.who, wire.CallSetPIN, func(w *wire.Writer) { withPINs(w, old, fresh) })
}

func (k *remote) initPIN(what, name string, fresh *secret.Bytes) error {
	return k.do(what, name, "so", wire.CallInitPIN, func(w *wire.Writer) { withPINs(w, fresh) })
}

func (k *remote) initToken(what, name string, so *secret.Bytes, label string) error {
	_, err := k.call(wire.CallInitToken2, func(w *wire.Writer) {
		w.Ulong(k.token.slot)
		withPINs(w, so)
		w.Space(label, 32)
	})
	return k.refused(what, name, "so", err)
}

// inUse is more careful than in the mount, which shows the objects.
func (k *remote) inUse(string) bool { return k.token.flags&p11.CKF_TOKEN_INITIALIZED != 0 }

func (k *remote) pinLengths(string) (shortest, longest int, err error) {
	return int(k.token.shortest), int(k.token.longest), nil
}

// doorTo finds the token that the first of args names, in the mount, or where there is none
// through the socket of a daemon. The caller calls end.
func doorTo(ctx context.Context, mount string, args []string) (d pinDoor, token string, end func() error, err error) {
	end = func() error { return nil }
	named := os.Getenv(socketEnv)
	if mount != "" || os.Getenv(mountEnv) != "" {
		named = ""
	}
	t, err := findTree(mount, os.Getenv)
	var k *remote
	switch inMount := err == nil && (named == "" || sameFile(filepath.Join(t.dir, "rpc.sock"), named)); {
	case inMount:
	case named != "":
		var dialErr error
		if k, dialErr = dialDaemon(ctx, named, false); dialErr != nil && (err != nil || ctx.Err() != nil) {
			err = fmt.Errorf("the socket that %s names is of no use: %w", socketEnv, dialErr)
		}
	case mount == "" && os.Getenv(mountEnv) == "" && errors.Is(err, errNotMounted):
		k = dialUsual(ctx)
	}
	switch {
	case k != nil:
		if token, err = k.choose(args); err != nil {
			return nil, "", end, errors.Join(err, k.Close())
		}
		return k, token, k.Close, nil
	case err == nil:
		t, token, err = tokenIn(t, args)
	}
	return t, token, end, err
}

func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}

// dialUsual connects to the user's own daemon, or the machine's; nil if there is none.
func dialUsual(ctx context.Context) *remote {
	home, _ := os.UserHomeDir()
	own, _ := mountd.UserPaths(os.Getenv, home) // none is usual where nothing is known
	for _, path := range []string{own.RPC, mountd.SystemPaths("").RPC} {
		if path == "" {
			continue
		}
		if k, err := dialDaemon(ctx, path, path == own.RPC); err == nil {
			return k
		}
	}
	return nil
}
