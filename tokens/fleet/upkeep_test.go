package fleet

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/fleet/etcdtest"
	"p11fs/tokens/fleet/seal"
	"p11fs/tokens/store"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest"
)

// keepers opens tokens of one cluster and their upkeep, each as a machine does.
type keepers struct {
	t       *testing.T
	cluster *etcdtest.Cluster
	sealKey string
	lease   string
}

func newKeepers(t *testing.T) keepers {
	t.Helper()
	return keepersOn(t, etcdtest.Start(t, 1))
}

func keepersOn(t *testing.T, c *etcdtest.Cluster) keepers {
	t.Helper()
	k := keepers{t, c, filepath.Join(t.TempDir(), "seal.key"), "3s"}
	noError(t, seal.WriteKey(k.sealKey))
	return k
}

func (k keepers) place(prefix string) tokens.Place {
	p := place(k.t, confFile(k.t, k.cluster, k.sealKey, "lease = "+k.lease))
	text := strings.ReplaceAll(string(must[[]byte](k.t)(os.ReadFile(p.Config))), "/p11fs/web/", prefix)
	noError(k.t, os.WriteFile(p.Config, []byte(text), 0o600))
	return p
}

func (k keepers) open(prefix string) *token {
	k.t.Helper()
	t, err := openToken(k.t.Context(), swtok.GoProvider(), k.place(prefix), iterations)
	noError(k.t, err)
	k.t.Cleanup(func() { _ = t.Close() })
	return t
}

func (k keepers) upkeep(prefix string) *upkeep {
	return &upkeep{swtok.GoProvider(), k.place(prefix), iterations}
}

func (k keepers) backup(prefix string) []byte {
	k.t.Helper()
	var b bytes.Buffer
	noError(k.t, k.upkeep(prefix).Backup(k.t.Context(), &b, nil))
	return b.Bytes()
}

// A backup brings back all objects, PINs and flags, also while machines have what it replaces,
// and what others make elsewhere of it.
func TestBackupRestore(t *testing.T) {
	k := newKeepers(t)
	s := k.open("/a/")
	ready(t, s.Store)
	must[tokens.Login](t)(s.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN)))
	create(t, s.Store, "open", false)
	create(t, s.Store, "secret", true)
	if _, err := s.Login(t.Context(), p11.CKU_SO, tokentest.PIN(t, "wrong-pin")); p11.RVOf(err) != p11.CKR_PIN_INCORRECT {
		t.Fatal(err)
	}
	flags := must[p11.TokenInfo](t)(s.Info(t.Context())).Flags
	kept := k.backup("/a/")
	if bytes.Contains(kept, []byte("secret")) {
		t.Error("a backup shows a private object")
	}

	t.Run("elsewhere", func(t *testing.T) {
		u := k.upkeep("/b/")
		if st := must[tokens.DirectoryState](t)(u.State()); st.Present {
			t.Errorf("a token that is not there: %+v", st)
		}
		noError(t, u.Restore(t.Context(), bytes.NewReader(kept), false, nil))
		o := k.open("/b/")
		if got := must[p11.TokenInfo](t)(o.Info(t.Context())); got.Flags != flags {
			t.Errorf("flags %v, not %v", got.Flags, flags)
		}
		must[tokens.Login](t)(o.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN)))
		want(t, o.Store, "open", "secret")
		if d := o.Damaged(); len(d) > 0 {
			t.Errorf("damaged: %v", d)
		}
		if err := u.Restore(t.Context(), bytes.NewReader(kept), false, nil); !errors.Is(err, tokens.ErrInitialized) {
			t.Errorf("over a token that somebody has used: %v", err)
		}
	})
	t.Run("in use", func(t *testing.T) {
		create(t, s.Store, "later", false)
		noError(t, k.upkeep("/a/").Restore(t.Context(), bytes.NewReader(kept), true, nil))
		eventually(t, "the login ends", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return !s.logins.OpenLocked(p11.CKU_USER) })
		want(t, s.Store, "open")
		must[tokens.Login](t)(s.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN)))
		want(t, s.Store, "open", "secret")
		create(t, s.Store, "goes on", true)
		want(t, k.open("/a/").Store, "open")
		all := must[*clientv3.GetResponse](t)(s.client.Get(t.Context(), "/a/o/", clientv3.WithPrefix(), clientv3.WithCountOnly()))
		if all.Count != 3 {
			t.Errorf("%d objects are in etcd: those that were replaced are left", all.Count)
		}
	})
	t.Run("once somebody has initialised it", func(t *testing.T) {
		for range 3 {
			_, err := s.Login(t.Context(), p11.CKU_SO, tokentest.PIN(t, "wrong-pin"))
			if err == nil {
				t.Error("a wrong PIN is right")
			}
		}
		if _, err := s.Login(t.Context(), p11.CKU_SO, tokentest.PIN(t, soPIN)); p11.RVOf(err) != p11.CKR_PIN_LOCKED {
			t.Errorf("the SO PIN is not locked: %v", err)
		}
		noError(t, k.upkeep("/a/").Restore(t.Context(), bytes.NewReader(kept), true, nil))
		noError(t, s.InitToken(t.Context(), tokentest.PIN(t, soPIN), "another"))
		want(t, s.Store)
		noError(t, k.upkeep("/a/").Restore(t.Context(), bytes.NewReader(kept), true, nil))
		want(t, s.Store, "open")
		so := must[tokens.Login](t)(s.Login(t.Context(), p11.CKU_SO, tokentest.PIN(t, soPIN)))
		noError(t, so.Close())
		must[tokens.Login](t)(s.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN)))
		want(t, s.Store, "open", "secret")
		create(t, s.Store, "goes on", true)
	})
	t.Run("on a machine that serves it", func(t *testing.T) {
		var said bytes.Buffer
		p := k.place("/a/")
		p.Log = slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelWarn}))
		o := must[*token](t)(openToken(t.Context(), swtok.GoProvider(), p, iterations))
		c := must[*store.Contents](t)(store.ReadContents(bytes.NewReader(k.backup("/a/")), tokens.DefaultRoom))
		noError(t, o.restore(t.Context(), c, 0, func(*record) error { return nil }))
		want(t, o.Store, "open")
		eventually(t, "others have it", func() bool { return s.newest().ID == o.newest().ID })
		if d := append(o.Damaged(), s.Damaged()...); len(d) > 0 {
			t.Errorf("what was restored is damaged: %v", d)
		}
		noError(t, o.Close())
		if text := said.String(); text != "" {
			t.Errorf("the log says, of a restore and nothing else:\n%s", text)
		}
	})
	t.Run("checked", func(t *testing.T) {
		c := must[tokens.Checked](t)(k.upkeep("/a/").Check(t.Context(), tokentest.PIN(t, userPIN)))
		if c.Objects != 3 || c.Private != 2 || len(c.Wrong) > 0 {
			t.Errorf("%+v", c)
		}
		gone := must[*clientv3.DeleteResponse](t)(s.client.Delete(t.Context(), keyOf(s.Store, create(t, s.Store, "gone", false))))
		if c := must[tokens.Checked](t)(k.upkeep("/a/").Check(t.Context(), nil)); gone.Deleted != 1 || len(c.Wrong) != 1 {
			t.Errorf("somebody has removed an object: %+v", c)
		}
	})
}

// cutReader ends with an error after n bytes, as a command that is killed does.
func cutReader(b []byte, n int) io.Reader {
	return io.MultiReader(bytes.NewReader(b[:n]), iotestErr{})
}

type iotestErr struct{}

func (iotestErr) Read([]byte) (int, error) { return 0, errors.New("killed") }

// A restore that ends in the middle leaves the token as it was, and one that nobody has heard of
// is made again without a question.
func TestRestoreCutOff(t *testing.T) {
	k := newKeepers(t)
	s := k.open("/a/")
	ready(t, s.Store)
	create(t, s.Store, "one", false)
	kept := k.backup("/a/")
	create(t, s.Store, "two", false)
	for _, n := range []int{0, 600, len(kept) / 2, len(kept) - 1200} {
		if err := k.upkeep("/a/").Restore(t.Context(), cutReader(kept, n), true, nil); err == nil {
			t.Errorf("%d bytes of a backup are one", n)
		}
	}
	// All of the objects are written, and then the command ends.
	killed := errors.New("killed")
	if err := k.upkeep("/a/").Restore(t.Context(), bytes.NewReader(kept), true, func() error { return killed }); !errors.Is(err, killed) {
		t.Error(err)
	}
	want(t, s.Store, "one", "two")
	want(t, k.open("/a/").Store, "one", "two")

	for range 2 { // the second time is that of a command whose first end nobody saw
		noError(t, k.upkeep("/b/").Restore(t.Context(), bytes.NewReader(kept), false, nil))
	}
	want(t, k.open("/b/").Store, "one")
}
