package integration

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"p11fs/engine"
	"p11fs/locks"
	"p11fs/mountd"
	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/memory"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest"
)

// A kind of token as different from the software token as there may be one, of which
// nothing but this file knows: its keys are with a service, which takes its time, can
// be interrupted, and is not always there; its operations end with their result; and
// no key has its value in an attribute.

// elsewhereKind is the name of the kind, and of its token.
const elsewhereKind = "elsewhere"

// keyName is the attribute that has, in the place of a key's value, what the service
// knows the key by.
const keyName = p11.CKA_VENDOR_DEFINED | 0x0e15e

// A keyService has keys. What it does, it does in its own goroutine, one after the
// other.
type keyService struct {
	crypto *swtok.Crypto
	orders chan func()
	ended  chan struct{}
	keys   map[string]*tokens.Object // of the goroutine alone
}

// newKeyService starts a service, which ends with ctx.
func newKeyService(ctx context.Context) *keyService {
	s := &keyService{
		crypto: swtok.NewCrypto(swtok.GoProvider(), nil),
		orders: make(chan func()), ended: make(chan struct{}), keys: make(map[string]*tokens.Object),
	}
	go func() {
		defer close(s.ended)
		for {
			select {
			case order := <-s.orders:
				order()
			case <-ctx.Done():
				return
			}
		}
	}()
	return s
}

// do has the service do something after a way of that length, unless ctx ends
// before it begins.
func (s *keyService) do(ctx context.Context, way time.Duration, f func() error) (err error) {
	arrival := time.NewTimer(way)
	defer arrival.Stop()
	select {
	case <-arrival.C:
	case <-ctx.Done():
		return fmt.Errorf("the way to the keys: %w", ctx.Err())
	}
	done := make(chan struct{})
	select {
	case s.orders <- func() { defer close(done); err = f() }:
		<-done
		return err
	case <-s.ended:
		return p11.CKR_DEVICE_REMOVED
	case <-ctx.Done():
		return fmt.Errorf("before the keys: %w", ctx.Err())
	}
}

// take completes the attributes of a key, and takes the secret ones of them.
func (s *keyService) take(attrs *p11.Attributes) error {
	if err := pkix.Complete(attrs); err != nil {
		return err
	}
	if class, _ := attrs.Class(); class != p11.CKO_PRIVATE_KEY && class != p11.CKO_SECRET_KEY {
		return nil
	}
	var name [8]byte
	_, _ = rand.Read(name[:])
	s.keys[string(name[:])] = tokens.NewObject(tokens.NewHandle(), "", attrs.Clone())
	var left p11.Attributes
	for _, a := range *attrs {
		if p11.SecretValue(a.Type) {
			secret.Wipe(a.Value)
			continue
		}
		left = append(left, a)
	}
	left.Set(keyName, name[:])
	*attrs = left
	return nil
}

// key is what the service has of an object: the key that it names, or else all there
// is of a public one.
func (s *keyService) key(o *tokens.Object) (*tokens.Object, error) {
	if o == nil {
		return nil, nil
	}
	attrs, err := o.Acquire()
	if err != nil {
		return nil, err
	}
	defer o.Release()
	name, ok := attrs.Get(keyName)
	if !ok {
		return o, nil
	}
	if key := s.keys[string(name)]; key != nil {
		return key, nil
	}
	return nil, p11.Errorf(p11.CKR_KEY_HANDLE_INVALID, "the service has forgotten the key")
}

// forget drops a key. It does not wait for that.
func (s *keyService) forget(name string) {
	go func() {
		select {
		case s.orders <- func() {
			if key := s.keys[name]; key != nil {
				key.Drop()
				delete(s.keys, name)
			}
		}:
		case <-s.ended:
		}
	}()
}

// An elsewhereToken keeps objects here, and keys there.
type elsewhereToken struct {
	*memory.Store
	service *keyService
	place   tokens.Place
}

var (
	_ tokens.Token        = (*elsewhereToken)(nil)
	_ tokens.KeyGenerator = (*elsewhereToken)(nil)
	_ tokens.KeyWrapper   = (*elsewhereToken)(nil)
	_ tokens.KeyDeriver   = (*elsewhereToken)(nil)
	_ tokens.KeyJoiner    = (*elsewhereToken)(nil)
	_ tokens.Encapsulator = (*elsewhereToken)(nil)
	_ tokens.Adopter      = (*elsewhereToken)(nil)
	_ tokens.Forgetter    = (*elsewhereToken)(nil)
	_ tokens.Hider        = (*elsewhereToken)(nil)
	_ tokens.Offliner     = (*elsewhereToken)(nil)
)

// newElsewhere is the kind, with a service of its own until ctx ends.
func newElsewhere(ctx context.Context) (tokens.Kind, *keyService) {
	service, disk := newKeyService(ctx), memory.NewDisk()
	return tokens.Kind{
		Name: elsewhereKind, Library: "libpkcs11_" + elsewhereKind,
		Open: func(_ context.Context, p tokens.Place) (tokens.Token, error) {
			return &elsewhereToken{disk.Open(p.Dir), service, p}, nil
		},
	}, service
}

func (t *elsewhereToken) Name() string { return t.place.Name }
func (t *elsewhereToken) Kind() string { return elsewhereKind }

// Offline is tokens.Offliner: the file "offline" in the token directory takes the
// service away.
func (t *elsewhereToken) Offline() error {
	if _, err := os.Stat(filepath.Join(t.place.Dir, "offline")); err == nil {
		return errors.New("nobody answers elsewhere")
	}
	return nil
}

// do has the service do something. The file "slow" says how long the way is, and what
// for, unless for everything.
func (t *elsewhereToken) do(ctx context.Context, what string, f func() error) error {
	if err := t.Offline(); err != nil {
		return p11.Errorf(p11.CKR_DEVICE_REMOVED, "%w", err)
	}
	way := 2 * time.Millisecond
	if b, err := os.ReadFile(filepath.Join(t.place.Dir, "slow")); err == nil {
		words := strings.Fields(string(b))
		if len(words) == 1 || slices.Contains(words, what) {
			if way, err = time.ParseDuration(words[0]); err != nil {
				return err
			}
		}
	}
	return t.service.do(ctx, way, f)
}

// Mechanisms is tokens.Crypto.
func (t *elsewhereToken) Mechanisms() []p11.MechanismInfo { return t.service.crypto.Mechanisms() }

// GenerateRandom is tokens.Crypto.
func (t *elsewhereToken) GenerateRandom(ctx context.Context, b []byte) error {
	return t.do(ctx, "GenerateRandom", func() error { return t.service.crypto.GenerateRandom(ctx, b) })
}

// Begin is tokens.Crypto.
func (t *elsewhereToken) Begin(ctx context.Context, use p11.Flags, m p11.Mechanism, key *tokens.Object) (tokens.Operation, error) {
	o := &elsewhereOperation{token: t}
	err := t.do(ctx, "Begin", func() error {
		there, err := t.service.key(key)
		if err == nil {
			o.there, err = t.service.crypto.Begin(ctx, use, m, there)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if key != nil {
		if _, err := key.Acquire(); err != nil {
			o.Close()
			return nil, err
		}
		o.key = key
	}
	return o, nil
}

// An elsewhereOperation goes on at the service, and ends with its result.
type elsewhereOperation struct {
	token *elsewhereToken
	there tokens.Operation // nil once it has ended
	key   *tokens.Object   // nil for a digest
	size  int
}

var (
	_ tokens.Operation   = (*elsewhereOperation)(nil)
	_ tokens.KeyDigester = (*elsewhereOperation)(nil)
)

func (o *elsewhereOperation) call(ctx context.Context, what string, f func(tokens.Operation) ([]byte, error)) (out []byte, err error) {
	if o.there == nil {
		return nil, p11.Errorf(p11.CKR_OPERATION_NOT_INITIALIZED, "the service has ended the operation")
	}
	err = o.token.do(ctx, what, func() error {
		out, err = f(o.there)
		return err
	})
	return out, err
}

// Update is tokens.Operation.
func (o *elsewhereOperation) Update(ctx context.Context, part []byte) ([]byte, error) {
	return o.call(ctx, "Update", func(there tokens.Operation) ([]byte, error) { return there.Update(ctx, part) })
}

// Final is tokens.Operation.
func (o *elsewhereOperation) Final(ctx context.Context, signature []byte) ([]byte, error) {
	return o.call(ctx, "Final", func(there tokens.Operation) ([]byte, error) {
		o.size, o.there = there.Size(), nil
		defer there.Close()
		return there.Final(ctx, signature)
	})
}

// DigestKey is tokens.KeyDigester.
func (o *elsewhereOperation) DigestKey(ctx context.Context, key *tokens.Object) error {
	_, err := o.call(ctx, "DigestKey", func(there tokens.Operation) ([]byte, error) {
		key, err := o.token.service.key(key)
		if err != nil {
			return nil, err
		}
		return nil, there.(tokens.KeyDigester).DigestKey(ctx, key)
	})
	return err
}

// Size is tokens.Operation.
func (o *elsewhereOperation) Size() int {
	if o.there != nil {
		return o.there.Size()
	}
	return o.size
}

// Close is tokens.Operation.
func (o *elsewhereOperation) Close() {
	if o.there != nil {
		o.there.Close()
		o.there = nil
	}
	if o.key != nil {
		o.key.Release()
		o.key = nil
	}
}

// Adopt is tokens.Adopter. What the service made has its name already.
func (t *elsewhereToken) Adopt(ctx context.Context, attrs p11.Attributes) (p11.Attributes, error) {
	if attrs.Has(keyName) {
		return attrs, nil
	}
	take := func() error { return t.service.take(&attrs) }
	var err error
	if class, _ := attrs.Class(); class == p11.CKO_PRIVATE_KEY || class == p11.CKO_SECRET_KEY {
		err = t.do(ctx, "Adopt", take)
	} else {
		err = take() // leaves it here
	}
	if err != nil {
		attrs.Wipe()
		return nil, err
	}
	return attrs, nil
}

// Forget is tokens.Forgetter.
func (t *elsewhereToken) Forget(attrs p11.Attributes) {
	if name, ok := attrs.Get(keyName); ok {
		t.service.forget(string(name))
	}
}

// Visibility is tokens.Hider.
func (t *elsewhereToken) Visibility(attrs p11.Attributes, at p11.AttributeType) tokens.Visibility {
	switch {
	case at == keyName:
		return tokens.Hidden
	case attrs.Has(keyName) && p11.SecretValue(at):
		return tokens.Withheld
	}
	return tokens.Readable
}

// made has the service make keys and take them.
func (t *elsewhereToken) made(ctx context.Context, what string, f func() ([]*p11.Attributes, error)) error {
	return t.do(ctx, what, func() error {
		list, err := f()
		for _, attrs := range list {
			if err == nil {
				err = t.service.take(attrs)
			}
		}
		return err
	})
}

// GenerateKey is tokens.KeyGenerator.
func (t *elsewhereToken) GenerateKey(ctx context.Context, m p11.Mechanism, template p11.Attributes) (key p11.Attributes, err error) {
	err = t.made(ctx, "GenerateKey", func() ([]*p11.Attributes, error) {
		key, err = t.service.crypto.GenerateKey(ctx, m, template)
		return []*p11.Attributes{&key}, err
	})
	return key, err
}

// GenerateKeyPair is tokens.KeyGenerator.
func (t *elsewhereToken) GenerateKeyPair(ctx context.Context, m p11.Mechanism, public, private p11.Attributes) (pub, priv p11.Attributes, err error) {
	err = t.made(ctx, "GenerateKeyPair", func() ([]*p11.Attributes, error) {
		pub, priv, err = t.service.crypto.GenerateKeyPair(ctx, m, public, private)
		return []*p11.Attributes{&pub, &priv}, err
	})
	return pub, priv, err
}

// WrapKey is tokens.KeyWrapper.
func (t *elsewhereToken) WrapKey(ctx context.Context, m p11.Mechanism, wrapping, key *tokens.Object) (out []byte, err error) {
	err = t.do(ctx, "WrapKey", func() error {
		w, err := t.service.key(wrapping)
		if err != nil {
			return err
		}
		k, err := t.service.key(key)
		if err != nil {
			return err
		}
		out, err = t.service.crypto.WrapKey(ctx, m, w, k)
		return err
	})
	return out, err
}

// UnwrapKey is tokens.KeyWrapper.
func (t *elsewhereToken) UnwrapKey(ctx context.Context, m p11.Mechanism, unwrapping *tokens.Object, wrapped []byte, template p11.Attributes) (key p11.Attributes, err error) {
	err = t.made(ctx, "UnwrapKey", func() ([]*p11.Attributes, error) {
		u, err := t.service.key(unwrapping)
		if err == nil {
			key, err = t.service.crypto.UnwrapKey(ctx, m, u, wrapped, template)
		}
		return []*p11.Attributes{&key}, err
	})
	return key, err
}

// DeriveKey is tokens.KeyDeriver.
func (t *elsewhereToken) DeriveKey(ctx context.Context, m p11.Mechanism, base *tokens.Object, template p11.Attributes) (key p11.Attributes, err error) {
	err = t.made(ctx, "DeriveKey", func() ([]*p11.Attributes, error) {
		b, err := t.service.key(base)
		if err == nil {
			key, err = t.service.crypto.DeriveKey(ctx, m, b, template)
		}
		return []*p11.Attributes{&key}, err
	})
	return key, err
}

// JoinKeys is tokens.KeyJoiner.
func (t *elsewhereToken) JoinKeys(ctx context.Context, m p11.Mechanism, keys []*tokens.Object, templates []p11.Attributes) (made []p11.Attributes, out []byte, err error) {
	err = t.made(ctx, "JoinKeys", func() (list []*p11.Attributes, err error) {
		there := make([]*tokens.Object, len(keys))
		for i, k := range keys {
			if k == nil {
				continue
			}
			if there[i], err = t.service.key(k); err != nil {
				return nil, err
			}
		}
		made, out, err = t.service.crypto.JoinKeys(ctx, m, there, templates)
		for i := range made {
			if made[i] != nil {
				list = append(list, &made[i])
			}
		}
		return list, err
	})
	return made, out, err
}

// EncapsulateKey is tokens.Encapsulator.
func (t *elsewhereToken) EncapsulateKey(ctx context.Context, m p11.Mechanism, public *tokens.Object, template p11.Attributes) (ciphertext []byte, key p11.Attributes, err error) {
	err = t.made(ctx, "EncapsulateKey", func() ([]*p11.Attributes, error) {
		p, err := t.service.key(public)
		if err == nil {
			ciphertext, key, err = t.service.crypto.EncapsulateKey(ctx, m, p, template)
		}
		return []*p11.Attributes{&key}, err
	})
	return ciphertext, key, err
}

// DecapsulateKey is tokens.Encapsulator.
func (t *elsewhereToken) DecapsulateKey(ctx context.Context, m p11.Mechanism, private *tokens.Object, ciphertext []byte, template p11.Attributes) (key p11.Attributes, err error) {
	err = t.made(ctx, "DecapsulateKey", func() ([]*p11.Attributes, error) {
		p, err := t.service.key(private)
		if err == nil {
			key, err = t.service.crypto.DecapsulateKey(ctx, m, p, ciphertext, template)
		}
		return []*p11.Attributes{&key}, err
	})
	return key, err
}

// serveKind is a daemon of this test's own, with one kind of token.
func serveKind(ctx context.Context, kind tokens.Kind, mount string) error {
	paths, err := mountd.UserPaths(os.Getenv, os.Getenv("HOME"))
	if err != nil {
		return err
	}
	paths.Mount = mount
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return mountd.Run(ctx, mountd.Config{
		Mode: mountd.User, Paths: paths, Kinds: []tokens.Kind{kind}, Provider: "far away", OpenToken: true, Processors: mountd.Processors(),
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
}

// elsewhereDaemon starts this test as that daemon.
func elsewhereDaemon() daemonConfig {
	return daemonConfig{token: elsewhereKind, serve: []string{itself(), "-test.run=^TestElsewhere$"}}
}

// elsewhereRules are the rules of every token, but for what a token does not say that
// has no value to say.
func elsewhereRules() []tokenRule {
	withheld := map[string]map[string]string{
		"a secret does not read back":            {"neither": "CKR_ATTRIBUTE_SENSITIVE"},
		"a secret is not found out by searching": {"by value": "0"},
	}
	rules := conformanceRules()
	for i, r := range rules {
		if are := withheld[r.name]; are != nil {
			for _, d := range daemonDoors(daemonConfig{}, "") {
				rules[i].deviates = and(rules[i].deviates, d.name, "no key has its value in an attribute", are)
			}
		}
	}
	return rules
}

func TestElsewhere(t *testing.T) {
	if mount := flag.Arg(0); mount != "" {
		kind, _ := newElsewhere(t.Context())
		if err := serveKind(t.Context(), kind, mount); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Parallel()
	t.Run("suite", func(t *testing.T) {
		t.Parallel()
		kind, _ := newElsewhere(t.Context())
		tokentest.Run(t, tokentest.Backend{
			SOPIN: tokens.DefaultSOPIN,
			Open: func(t *testing.T, dir string) tokens.Token {
				tok, err := kind.Open(t.Context(), tokens.Place{Name: elsewhereKind, Dir: dir, Group: locks.NoGroup})
				if err != nil {
					t.Fatal(err)
				}
				return tok
			},
		})
	})
	t.Run("conformance", func(t *testing.T) {
		t.Parallel()
		conform(t, daemonDoors(elsewhereDaemon(), soPIN), elsewhereRules())
	})
	t.Run("files", func(t *testing.T) {
		t.Parallel()
		needTools(t, "bash", "openssl", "python3")
		_, term := ready(t, elsewhereDaemon())
		transact(t, term, "bash", elsewhereStreams())
	})
	t.Run("interrupts", testElsewhereInterrupts)
	t.Run("offline", testElsewhereOffline)
	t.Run("forgotten", testElsewhereForgotten)
}

// elsewhereStreams are the rules about files, but for those of streams that go on after
// their result and are longer than what is kept of them.
func elsewhereStreams() []rule {
	long := []string{"40 MB and 40 MB", "three pieces of one file", "three pieces into ciphers", "output on the way"}
	return slices.DeleteFunc(slices.Clone(rules), func(r rule) bool { return slices.Contains(long, r.name) })
}

// testElsewhereInterrupts gives slow calls up, in the middle: nothing waits for them, and
// nothing has happened.
func testElsewhereInterrupts(t *testing.T) {
	t.Parallel()
	needTools(t, "openssl", "pkcs11-tool", "python3")
	d, term := ready(t, elsewhereDaemon())
	prepareKeys(term)
	term.ok("S=$O/web.key/sign; SLOW=" + filepath.Join(d.tokenRoot(), elsewhereKind, "slow"))
	quick := func(line string, status int) {
		t.Helper()
		begin := time.Now()
		if r := term.run(line); r.status != status {
			t.Errorf("%s\nended with status %d, want %d\n%s%s", line, r.status, status, r.out, r.err)
		}
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("%s\ntook %v", line, took)
		}
	}
	const works = "rm $SLOW; cat msg > $S; cat $S > sig; openssl dgst -sha256 -verify web.pem -signature sig msg"
	for _, signal := range []string{"INT", "TERM"} {
		// The signature is made when its data is closed, the operation begun when
		// its file is opened.
		for _, slow := range []string{"Final", "Update", "Begin"} {
			term.ok("echo 60s " + slow + " > $SLOW")
			quick("timeout -s "+signal+" 1 sh -c 'cat msg > $0' $S", 124)
			term.ok(works)
		}
		term.ok("echo 60s GenerateKeyPair > $SLOW; ls $O > before")
		quick("timeout -s "+signal+" 1 sh -c '/bin/echo rsa:2048 label=slow > $0' $T/generate", 124)
		term.ok("ls $O | cmp - before; " + works)
	}

	// A read that makes the signature says EINTR, and the next one gives it.
	term.ok(`cat > read.py <<'EOF'
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
signal.signal(signal.SIGALRM, lambda *_: None)
s = os.open(sys.argv[1], os.O_RDWR)
os.write(s, open("msg", "rb").read())
open(sys.argv[2], "w").write("60s Final")
signal.alarm(1)
buf = ctypes.create_string_buffer(4096)
assert libc.read(s, buf, 4096) == -1 and ctypes.get_errno() == 4, os.strerror(ctypes.get_errno())
os.remove(sys.argv[2])
open("sig", "wb").write(os.read(s, 4096))
EOF`)
	quick("python3 read.py $S $SLOW && openssl dgst -sha256 -verify web.pem -signature sig msg", 0)

	// A program that ends in the middle of C_Sign takes its session along at once.
	term.ok("sessions() { for i in $(seq 150); do grep -q \"^sessions $1$\" $P/status && return; sleep 0.1; done; cat $P/status; return 1; }; sessions 1")
	term.ok("eval \"$(p11fs env)\"; echo 60s Final > $SLOW; pkcs11-tool --module " + ownModule(t) + " --login --pin " + userPIN +
		" --sign --mechanism SHA256-RSA-PKCS --label web -i msg -o sig & p=$!; sessions 2 && sleep 1 && kill -0 $p && kill -KILL $p")
	quick("sessions 1", 0)
	term.ok(works)
}

// testElsewhereOffline takes the keys away: what is here is still there, and what wants
// a key says why it does not go.
func testElsewhereOffline(t *testing.T) {
	t.Parallel()
	d, term := ready(t, elsewhereDaemon())
	prepareKeys(term)
	term.ok("S=$O/web.key/sign; OFFLINE=" + filepath.Join(d.tokenRoot(), elsewhereKind, "offline"))
	if status := term.ok("cat $P/status"); strings.Contains(status, "offline") {
		t.Errorf("the status of what is there:\n%s", status)
	}
	term.ok("ls $O > before; exec 4>$S; touch $OFFLINE")
	term.want("grep offline $P/status", "offline "+elsewhereKind+": nobody answers elsewhere\n")
	for _, line := range []string{"cat msg > $S", "cat msg >&4", "/bin/echo aes:128 > $T/generate", "cat msg > $O/aes.sec/encrypt"} {
		term.fails(line, syscall.ENODEV)
		if said := term.ok("cat $T/error"); !strings.Contains(said, "CKR_DEVICE_REMOVED") || !strings.Contains(said, "nobody answers elsewhere") {
			t.Errorf("%s: error says %q", line, said)
		}
	}
	term.ok("exec 4>&-; ls $O | cmp - before; grep -q 'key-type: rsa' $O/web.key/info; cmp web.pem $O/web.pub/public.pem; cp msg $T/data/note; cmp msg $T/data/note; rm $T/data/note")
	term.ok("rm $OFFLINE; cat msg > $S; cat $S > sig; openssl dgst -sha256 -verify web.pem -signature sig msg; ! grep offline $P/status")
}

// testElsewhereForgotten makes session keys in all ways, and the service has none of
// them after the session.
func testElsewhereForgotten(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	kind, service := newElsewhere(ctx)
	token, err := kind.Open(ctx, tokens.Place{Name: elsewhereKind, Dir: t.TempDir()})
	must(err)
	e, err := engine.New(engine.Config{Slots: []engine.SlotConfig{{ID: 1, Token: token}}})
	must(err)
	defer func() { must(errors.Join(e.Close(), token.Close())) }()
	a := e.NewApplication(engine.Owner{}, engine.ForPrograms)
	s, err := a.OpenSession(ctx, e.Slots()[0], p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	must(err)
	mechanism := func(text string) p11.Mechanism {
		m, err := p11.ParseMechanism(text)
		must(err)
		return m
	}
	const key = "private=false sensitive=false extractable=true "
	aes, err := s.GenerateKey(ctx, mechanism("aes-key-gen"), template(key+"value-len=16 wrap=true unwrap=true"))
	must(err)
	_, err = s.CreateObject(ctx, template(key+"class=secret-key key-type=generic-secret value=0x0001020304050607"))
	must(err)
	wrapped, err := s.WrapKey(ctx, mechanism("aes-ecb"), aes, aes)
	must(err)
	_, err = s.UnwrapKey(ctx, mechanism("aes-ecb"), aes, wrapped, template(key+"class=secret-key key-type=aes"))
	must(err)
	_, err = s.CopyObject(ctx, aes, template("label=copy"))
	must(err)
	kept, err := s.GenerateKey(ctx, mechanism("aes-key-gen"), template(key+"value-len=16"))
	must(err)
	_, err = s.CopyObject(ctx, kept, template("token=true label=kept"))
	must(err)
	_, err = s.UnwrapKey(ctx, mechanism("aes-ecb"), aes, wrapped[1:], template(key+"class=secret-key key-type=aes"))
	if err == nil {
		t.Error("a part of a wrapped key was unwrapped")
	}
	keys := func() (n int) {
		must(service.do(ctx, 0, func() error {
			n = len(service.keys)
			return nil
		}))
		return n
	}
	if n := keys(); n != 4 {
		t.Errorf("the service has %d keys, want 4", n)
	}
	must(s.Close())
	for begin := time.Now(); keys() != 1; time.Sleep(time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("the service has %d keys, want the one that was copied into the token", keys())
		}
	}
	s, err = a.OpenSession(ctx, e.Slots()[0], p11.CKF_SERIAL_SESSION)
	must(err)
	found, err := s.Find(ctx, template("label=kept"))
	must(err)
	o, err := s.Begin(ctx, p11.CKF_ENCRYPT, mechanism("aes-ecb"), found[0])
	must(err)
	o.Close()
	a.Close()
}
