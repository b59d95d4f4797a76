package fleet

import (
	"bytes"
	"context"
	"crypto/rand"
	"log/slog"

	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"p11fs/tokens"
	"p11fs/tokens/fleet/etcdtest"
	"p11fs/tokens/fleet/seal"
	"p11fs/tokens/store/format"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest"
)

// iterations of PBKDF2, for tests that try many PINs.
const iterations = 1

// A hosts makes stores on the tokens of one cluster, as machines would.
type hosts struct {
	cluster *etcdtest.Cluster
	key     *seal.Key
}

func newHosts(t testing.TB, members int) *hosts {
	t.Helper()
	return newHostsOn(t, etcdtest.Start(t, members), "k")
}

// newHostsOn has a key of its own, by a letter.
func newHostsOn(t testing.TB, c *etcdtest.Cluster, key string) *hosts {
	t.Helper()
	k, err := seal.NewKey(bytes.Repeat([]byte(key), 32))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return &hosts{c, k}
}

func (h *hosts) config(t testing.TB, client *clientv3.Client, prefix string) Config {
	facts, _ := format.KindOf312(swtok.Kind)
	c := Config{Client: client, Prefix: prefix, Key: h.key, Create: true, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	c.times = usualTimes()
	c.times.answer, c.times.change, c.times.come = time.Minute, time.Minute, time.Minute // on a machine that has much to do
	c.Format = format.V312(facts, rand.Reader, iterations)
	return c
}

// open opens the token below a prefix, on a machine of its own.
func (h *hosts) open(t testing.TB, prefix string) *Store {
	t.Helper()
	return h.openWith(t, h.config(t, h.cluster.Client(t), prefix))
}

func (h *hosts) openWith(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// A synced is a software token of the fleet. The suite has Refresh bring in all that others
// have done.
type synced struct {
	*Store
	*swtok.Crypto
}

func (synced) Name() string                        { return "fleet" }
func (synced) Kind() string                        { return "fleet" }
func (t synced) Refresh(ctx context.Context) error { return t.Sync(ctx) }

func TestToken(t *testing.T) {
	h := newHosts(t, 3)
	p := swtok.LoadProvider(slog.New(slog.DiscardHandler))
	tokentest.Run(t, tokentest.Backend{
		SOPIN: tokens.DefaultSOPIN,
		Open: func(t *testing.T, dir string) tokens.Token {
			return synced{h.open(t, "/p11fs"+dir+"/"), swtok.NewCrypto(p, nil)}
		},
	})
}

// leader is the member that leads the others.
func (h *hosts) leader(t testing.TB) int {
	t.Helper()
	c := h.cluster.Client(t)
	for i, at := range h.cluster.Endpoints() {
		st, err := c.Status(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		if st.Leader == st.Header.MemberId {
			return i
		}
	}
	t.Fatal("nobody leads")
	return 0
}
