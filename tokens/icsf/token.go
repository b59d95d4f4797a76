package icsf

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/icsf/icsfconn"
	"p11fs/tokens/icsf/icsffile"
	"p11fs/tokens/icsf/icsfwire"
	"p11fs/tokens/store"
	"p11fs/tokens/swtok"
)

// A token is a token directory with PINs, the objects of a token on a server, and swtok's
// cryptography around the keys there.
type token struct {
	*objects
	*swtok.Crypto
	admin  *store.Store
	holder *holder
	conf   *icsffile.Config

	called, dir, uri string
	log              *slog.Logger
	test             func(context.Context) error
	trace            *os.File // nil without
	forgetting       sync.WaitGroup
}

var (
	_ tokens.Token        = (*token)(nil)
	_ tokens.KeyGenerator = (*token)(nil)
	_ tokens.KeyWrapper   = (*token)(nil)
	_ tokens.Adopter      = (*token)(nil)
	_ tokens.Forgetter    = (*token)(nil)
	_ tokens.Hider        = (*token)(nil)
	_ tokens.Offliner     = (*token)(nil)
	_ tokens.Rester       = (*token)(nil)
	_ tokens.Inspector    = (*token)(nil)
	_ tokens.SelfTester   = (*token)(nil)
	_ tokens.PINStamper   = (*token)(nil)
	_ tokens.Describer    = (*token)(nil)
)

// How long what was read is taken for true.
const (
	freshFor = time.Second
	keepFor  = time.Minute
)

// firstTime bounds how long the opening of a token waits for the server's objects, since other
// tokens wait for it: those that are not read then are read when they are asked for.
const firstTime = 30 * time.Second

// times are those of a token: of a test, others.
type times struct{ fresh, keep time.Duration }

func open(ctx context.Context, p swtok.Provider, place tokens.Place, c *icsffile.Config, w times, trace *os.File) (*token, error) {
	if place.Rand == nil {
		place.Rand = rand.Reader
	}
	if place.Create {
		mode := os.FileMode(0o700)
		if place.Group != locks.NoGroup {
			mode = 0o770
		}
		if err := locks.MakeDirectory(place.Dir, mode, place.Group); err != nil {
			return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "the token directory: %w", err)
		}
	}
	if _, err := os.Lstat(filepath.Join(place.Dir, passwordFile)); c.Mech == icsffile.Simple && err != nil {
		return nil, p11.Advise(p11.Errorf(p11.CKR_TOKEN_NOT_PRESENT, "the server's password is not stored: %w", err), "store it with p11fs init icsf --new-password, or stock's pkcsicsf for the machine's token")
	}
	t := &token{called: place.Name, dir: place.Dir, uri: c.URI, conf: c, log: place.Log, test: swtok.NewCrypto(p, place.Rand).SelfTest}
	conf := connOf(c)
	conf.Password = t.password
	if trace != nil {
		conf.Trace, t.trace = trace, trace
	}
	t.objects = &objects{
		Lookup: tokens.Lookup{Index: tokens.NewIndex()}, name: c.Name, lock: place, fresh: w.fresh, keep: w.keep, reading: make(chan struct{}, 1),
		known: make(map[icsfwire.Handle]*known), made: make(map[icsfwire.Handle]bool),
		conn: icsfconn.New(conf),
	}
	t.uses = newUses(t.forget)
	t.holder = &holder{s: t.objects}
	if _, err := io.ReadFull(place.Rand, t.holder.reject[:]); err != nil {
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "random bytes: %w", err)
	}
	s, err := store.Open(ctx, store.Config{
		Dir: place.Dir, Format: newKeeper(c, configOf(place), place.Rand), Lock: place.Lock, Create: place.Create, Group: place.Group,
		Log: place.Log, Now: place.Now, Ended: t.ended,
	})
	if err != nil {
		return nil, err
	}
	t.admin = s
	t.Crypto = swtok.NewHeldCrypto(p, place.Rand, t.holder)
	first, cancel := context.WithTimeout(ctx, firstTime)
	defer cancel()
	if err := t.Refresh(first); err != nil {
		place.Log.Warn("the token's objects are not known yet", "token", place.Name, "err", err)
	}
	return t, nil
}

// ended hears of the end of logins of a role, with whose PIN the server was reached.
func (t *token) ended(u p11.UserType) {
	if u == p11.CKU_USER {
		t.out()
	}
	if t.conf.Mech != icsffile.Simple {
		return
	}
	if l := t.conn.Detach(); l != nil {
		t.forgetting.Go(l.Close)
	}
}

// Name is tokens.Token.
func (t *token) Name() string { return t.called }

// Kind is tokens.Token.
func (t *token) Kind() string { return Kind }

// self is the token's handle.
func (t *token) self() icsfwire.Handle { return icsfwire.TokenHandle(t.name) }

// Close is tokens.Storage.
func (t *token) Close() error {
	err := t.admin.Close()
	t.forgetting.Wait()
	t.conn.Close()
	t.close()
	if t.trace != nil {
		_ = t.trace.Close()
	}
	return err
}

// Offline is tokens.Offliner: once it is time to try a server again that was away, the next
// use is to do that.
func (t *token) Offline() error { return t.conn.Offline() }

// Away is tokens.Rester.
func (t *token) Away() (since time.Time, why error) { return t.conn.Away() }

// SelfTest is tokens.SelfTester, of the cryptography that is not the server's.
func (t *token) SelfTest(ctx context.Context) error { return t.test(ctx) }

// Describe is tokens.Describer.
func (t *token) Describe(context.Context) []string {
	return []string{"the token " + t.name + " of ICSF at " + t.uri, "its keys are on the server, to which all programs are one user"}
}

// Info is tokens.Storage.
func (t *token) Info(ctx context.Context) (p11.TokenInfo, error) {
	info, err := t.admin.Info(ctx)
	info.Manufacturer, info.Model, info.Serial = t.conf.Manufacturer, t.conf.Model, t.conf.Serial
	return info, err
}

// reaches says whether the server can be asked: whether there is something to bind with.
func (t *token) reaches() bool {
	if t.conf.Mech == icsffile.SASL {
		return true
	}
	key, err := t.password()
	_ = key.Close()
	return err == nil
}

// Refresh is tokens.Storage. Where the server is away the objects are those that are known.
func (t *token) Refresh(ctx context.Context) error {
	if err := t.admin.Refresh(ctx); err != nil {
		return err
	}
	if t.recent() || !t.reaches() {
		return nil
	}
	err := t.sync(ctx, false)
	if err != nil && t.conn.Failed() != nil && ctx.Err() == nil {
		return nil
	}
	return err
}

// Find is tokens.Objects.
func (t *token) Find(ctx context.Context, template p11.Attributes, private bool) ([]*tokens.Object, error) {
	return t.Lookup.Find(ctx, template, private)
}

// Login is tokens.Admin. A login of the user with which the server cannot be reached is none.
func (t *token) Login(ctx context.Context, user p11.UserType, pin *secret.Bytes) (tokens.Login, error) {
	l, err := t.admin.Login(ctx, user, pin)
	if err != nil || user != p11.CKU_USER {
		return l, err
	}
	t.in()
	if err = l.Valid(); err == nil {
		err = t.sync(ctx, true)
	}
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// InitPIN is tokens.Admin.
func (t *token) InitPIN(ctx context.Context, so tokens.Login, pin *secret.Bytes) error {
	return t.admin.InitPIN(ctx, so, pin)
}

// SetPIN is tokens.Admin.
func (t *token) SetPIN(ctx context.Context, user p11.UserType, old, pin *secret.Bytes) error {
	return t.admin.SetPIN(ctx, user, old, pin)
}

// InitToken is tokens.Admin. The first one of a directory takes the token on the server as it
// is. With a later one the objects there go first, once the server has been reached with the
// SO's PIN, so that nothing changes here where they cannot.
func (t *token) InitToken(ctx context.Context, pin *secret.Bytes, label string) error {
	if err := tokens.CheckLabel(label); err != nil {
		return err
	}
	so, err := t.admin.Login(ctx, p11.CKU_SO, pin)
	if err != nil {
		return err
	}
	defer so.Close()
	info, err := t.admin.Info(ctx)
	if err == nil && info.Flags&p11.CKF_TOKEN_INITIALIZED != 0 {
		err = t.destroyAll(ctx)
	}
	if err != nil {
		return err
	}
	if err := t.admin.InitToken(ctx, pin, label); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(t.dir, "MK_USER")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return p11.Errorf(p11.CKR_FUNCTION_FAILED, "the user's key: %w", err)
	}
	return nil
}

// passwordFile has the server's password.
const passwordFile = "RACF"

// readOwn reads a file of a token directory, of at most so many bytes and one.
func readOwn(dir, name string, most int64) ([]byte, error) {
	name = filepath.Join(dir, name)
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "%w", &os.PathError{Op: "open", Path: name, Err: err})
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "%w", err)
	}
	return b, nil
}

// readPassword opens the server's password.
func readPassword(dir string, master *secret.Bytes) (*secret.Bytes, error) {
	b, err := readOwn(dir, passwordFile, icsffile.MaxPassword+64)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "the server's password: %w", err)
	}
	password, err := icsffile.OpenPassword(b, master)
	if err == nil && password == nil {
		err = p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "%s is damaged, or under another master key", filepath.Join(dir, passwordFile)), "store the server's password anew with p11fs init icsf --new-password")
	}
	return password, err
}

// PINStamp is tokens.PINStamper.
func (t *token) PINStamp(user p11.UserType) string { return t.admin.PINStamp(user) }
