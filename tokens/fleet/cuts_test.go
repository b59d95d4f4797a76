package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/fleet/etcdtest"
	"p11fs/tokens/tokentest"
	"p11fs/tokens/tokentest/cuts"
)

// A cutKV is the way to etcd of a machine that is cut off at one step: a request is a step,
// which arrives, and whose answer does not come.
type cutKV struct {
	clientv3.KV
	once bool // whether the next ones go on, or it was killed

	left atomic.Int64 // steps before that one; negative: it was, and others
}

// step has one request be made.
func (k *cutKV) step(send func() error) error {
	switch left := k.left.Add(-1); {
	case left >= 0 || left < -1 && k.once:
		return send()
	case left < -1:
		return p11.Errorf(p11.CKR_DEVICE_REMOVED, "%w", cuts.ErrKilled)
	}
	if err := send(); err != nil {
		return err
	}
	if k.once {
		return errors.New("the connection broke")
	}
	return p11.Errorf(p11.CKR_DEVICE_REMOVED, "%w", cuts.ErrKilled)
}

func (k *cutKV) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (resp *clientv3.GetResponse, err error) {
	return resp, k.step(func() error {
		resp, err = k.KV.Get(ctx, key, opts...)
		return err
	})
}

func (k *cutKV) Txn(ctx context.Context) clientv3.Txn { return cutTxn{k.KV.Txn(ctx), k} }

type cutTxn struct {
	clientv3.Txn
	k *cutKV
}

func (t cutTxn) If(c ...clientv3.Cmp) clientv3.Txn  { return cutTxn{t.Txn.If(c...), t.k} }
func (t cutTxn) Then(o ...clientv3.Op) clientv3.Txn { return cutTxn{t.Txn.Then(o...), t.k} }
func (t cutTxn) Else(o ...clientv3.Op) clientv3.Txn { return cutTxn{t.Txn.Else(o...), t.k} }

func (t cutTxn) Commit() (resp *clientv3.TxnResponse, err error) {
	return resp, t.k.step(func() error {
		resp, err = t.Txn.Commit()
		return err
	})
}

// A cutBed is a token that is put back as it was, for each cut.
type cutBed struct {
	*hosts
	client *clientv3.Client
	cut    *clientv3.Client // that of the machine that is cut off
	seed   []clientv3.Op
}

const cutPrefix = "/p11fs/cuts/"

func newCutBed(t *testing.T) *cutBed {
	t.Helper()
	b := &cutBed{hosts: newHosts(t, 3)}
	b.client, b.cut = b.cluster.Client(t), b.cluster.Client(t)
	s := b.open(t, cutPrefix)
	ready(t, s)
	l := must[tokens.Login](t)(s.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN)))
	cuts.Fill(t, s)
	noError(t, l.Close())
	noError(t, s.Close())
	for _, kv := range must[*clientv3.GetResponse](t)(b.client.Get(t.Context(), cutPrefix, clientv3.WithPrefix())).Kvs {
		b.seed = append(b.seed, clientv3.OpPut(string(kv.Key), string(kv.Value)))
	}
	return b
}

// fresh is a machine, whose way to etcd is k, with the token as it was in the beginning.
func (b *cutBed) fresh(t *testing.T, k *cutKV) *Store {
	t.Helper()
	must[*clientv3.DeleteResponse](t)(b.client.Delete(t.Context(), cutPrefix, clientv3.WithPrefix()))
	must[*clientv3.TxnResponse](t)(b.client.Txn(t.Context()).Then(b.seed...).Commit())
	k.KV = b.client.KV
	k.left.Store(1 << 30)
	b.cut.KV = k
	return b.openWith(t, b.config(t, b.cut, cutPrefix))
}

// look says what another machine finds.
func (b *cutBed) look(t *testing.T) cuts.State {
	t.Helper()
	s := must[*Store](t)(Open(t.Context(), b.config(t, b.client, cutPrefix)))
	defer s.Close()
	st := cuts.Look(t, s, s, soPIN, userPIN, cuts.OtherPIN)
	if d := s.Damaged(); len(d) > 0 {
		t.Errorf("damaged: %v", d)
	}
	return st
}

// TestCutOff cuts a machine off from etcd at every request of every change, before the answer is
// there: for good, as if it was killed, or for that request. Others find
// the token as it was before or after, and after if the machine was told that it is done; and
// who lives on has in memory what etcd has.
func TestCutOff(t *testing.T) {
	b := newCutBed(t)
	noError(t, b.fresh(t, &cutKV{}).Close())
	before := b.look(t)
	if want := (cuts.State{SO: soPIN, User: userPIN, Label: "fleet", Objects: []string{"priv=2", "pub=1"}}); before.String() != want.String() {
		t.Fatalf("it begins as %v", before)
	}
	for _, c := range cuts.Changes(t, cuts.PINs{SO: soPIN, User: userPIN}) {
		after := c.After(before)
		for _, once := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/once=%v", c.Name, once), func(t *testing.T) {
				steps := 0
				for b.cutAt(t, c, &cutKV{once: once}, steps, before, after[len(after)-1]) {
					if steps++; steps > 100 {
						t.Fatal("no end")
					}
				}
				if steps == 0 {
					t.Error("nothing was cut")
				}
			})
		}
	}
}

// cutAt cuts after so many steps. It returns false if there are not so many.
func (b *cutBed) cutAt(t *testing.T, c cuts.Change, k *cutKV, steps int, before, after cuts.State) bool {
	t.Helper()
	s := b.fresh(t, k)
	defer s.Close()
	l := must[tokens.Login](t)(s.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN)))
	k.left.Store(int64(steps))
	err := c.Do(t.Context(), s)
	done := k.left.Load() >= 0
	objects := cuts.Contents(t, s)
	slices.Sort(objects)
	valid := l.Valid() == nil
	_ = l.Close()
	if !k.once {
		noError(t, s.Close())
	}
	st := b.look(t)
	if got := st.String(); got != after.String() && (err == nil || got != before.String()) {
		t.Errorf("cut after %d steps, which gave %v: %v", steps, err, got)
	}
	if done && err != nil {
		t.Error(err)
	}
	if k.once && valid && !slices.Equal(objects, st.Objects) {
		t.Errorf("cut after %d steps: memory has %v, etcd %v", steps, objects, st.Objects)
	}
	return !done
}

// A full etcd says what to do, and nothing is changed; who has the token uses it. Once there is
// room it goes on.
func TestFull(t *testing.T) {
	h := newHostsOn(t, etcdtest.Start(t, 3, func(c *embed.Config) { c.QuotaBackendBytes = 2 << 20 }), "k")
	s, client := h.open(t, "/t/"), h.cluster.Client(t)
	made := create(t, s, "before", false)
	var err error
	for n := 0; err == nil; n++ {
		_, err = client.Put(t.Context(), fmt.Sprint("/others/", n), string(make([]byte, 200<<10)))
	}
	if !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Fatal(err)
	}
	_, err = s.Create(t.Context(), data("during", false))
	if p11.RVOf(err) != p11.CKR_DEVICE_MEMORY || !strings.Contains(p11.AdviceOf(err), "etcdctl compact") {
		t.Errorf("a full etcd: %v, %s", err, p11.AdviceOf(err))
	}
	if err := s.Destroy(t.Context(), made.Handle, func(p11.Attributes) error { return nil }); p11.RVOf(err) != p11.CKR_DEVICE_MEMORY {
		t.Errorf("destroying: %v", err)
	}
	noError(t, s.Refresh(t.Context()))
	want(t, s, "before")

	// What the page tells to do.
	gone := must[*clientv3.DeleteResponse](t)(client.Delete(t.Context(), "/others/", clientv3.WithPrefix()))
	must[*clientv3.CompactResponse](t)(client.Compact(t.Context(), gone.Header.Revision, clientv3.WithCompactPhysical()))
	for _, at := range h.cluster.Endpoints() {
		must[*clientv3.DefragmentResponse](t)(client.Defragment(t.Context(), at))
	}
	must[*clientv3.AlarmResponse](t)(client.AlarmDisarm(t.Context(), &clientv3.AlarmMember{}))
	create(t, s, "after", false)
	want(t, s, "before", "after")
}
