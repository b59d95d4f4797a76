package fleet

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/fleet/conf"
	"p11fs/tokens/fleet/lease"
)

var _ tokens.Fellow = (*token)(nil)

// Fleet is tokens.Fellow.
func (t *token) Fleet(ctx context.Context) tokens.Fleet {
	t.mu.Lock()
	f := tokens.Fleet{Revision: t.rev, Changes: t.record.Count, Lag: -1}
	t.mu.Unlock()
	f.Contact, f.Lease = t.Offline(), t.host.Left()
	var asking sync.WaitGroup
	asking.Go(func() {
		if resp, err := t.client.Get(ctx, t.recordKey(), clientv3.WithKeysOnly()); err == nil && len(resp.Kvs) > 0 {
			f.Lag = max(resp.Kvs[0].ModRevision-f.Revision, 0)
		}
	})
	asking.Go(func() {
		hosts, err := t.host.Hosts(ctx)
		if err != nil {
			return // of which the members tell
		}
		for _, h := range hosts {
			f.Hosts = append(f.Hosts, tokens.FleetHost{
				ID: h.ID, Name: h.Name, Since: h.Since, Revision: h.Acked, Here: h.ID == t.host.ID(),
				Earlier: slices.ContainsFunc(hosts, func(o lease.Info) bool { return o.Name == h.Name && o.Created > h.Created }),
			})
		}
		slices.SortFunc(f.Hosts, func(a, b tokens.FleetHost) int {
			return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
		})
	})
	f.Members = make([]tokens.FleetMember, len(t.conf.Endpoints))
	for i, at := range t.conf.Endpoints {
		asking.Go(func() { f.Members[i] = t.member(ctx, at) })
	}
	asking.Wait()
	return f
}

// member asks a member how it is.
func (t *token) member(ctx context.Context, at string) tokens.FleetMember {
	m := tokens.FleetMember{Address: at}
	if u, err := url.Parse(at); err == nil {
		if late := t.client.Late(u.Host); late != nil {
			m.Wrong, m.Mend = late.Error(), p11.AdviceOf(late)
			return m
		}
	}
	began := time.Now()
	asking, cancel := ctx, func() {}
	if end, ok := ctx.Deadline(); ok { // which leaves time to ask why
		asking, cancel = context.WithDeadline(ctx, began.Add(2*end.Sub(began)/3))
	}
	st, err := t.client.Status(asking, at)
	cancel()
	if err != nil {
		if bad := t.conf.TroubleOf(ctx, at); bad != nil {
			m.Wrong, m.Mend = bad.Error(), p11.AdviceOf(bad)
		} else {
			m.Wrong, m.Mend = t.ailing(err)
		}
		return m
	}
	m.State = fmt.Sprintf("etcd %s, %d kB in use", st.Version, st.DbSizeInUse>>10)
	if st.Leader == st.Header.MemberId {
		m.State = "leads, " + m.State
	}
	for _, e := range st.Errors {
		switch {
		case strings.Contains(e, "NOSPACE"):
			m.Wrong, m.Mend = "etcd is full", lease.FullAdvice
		case m.Wrong == "":
			m.Wrong, m.Mend = e, "etcdctl endpoint status --cluster, and etcdctl alarm list"
		}
	}
	if took := time.Since(began); m.Wrong == "" && took > conf.SlowAnswer {
		m.Wrong, m.Mend = fmt.Sprintf("it answers after %v", took.Round(time.Millisecond)), conf.LateAdvice
	}
	return m
}
