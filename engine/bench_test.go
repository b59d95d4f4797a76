package engine

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// BenchmarkFind finds one object among 10,000 by label, by id and by class and
// label.
func BenchmarkFind(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		e := newBench(b, hooks.Options{})
		s := e.session(b, e.app(), rw)
		for i := range n {
			create(b, s, fmt.Sprintf("class=data token=true label=object-%d", i))
		}
		create(b, s, certificate+" token=true label=web id=0x0102")
		for _, template := range []string{"label=web", "id=0x0102", "class=certificate label=web"} {
			t := tmpl(b, template)
			b.Run(fmt.Sprintf("%d/%s", n, template), func(b *testing.B) {
				for b.Loop() {
					if list, err := s.Find(b.Context(), t); err != nil || len(list) != 1 {
						b.Fatal(list, err)
					}
				}
			})
		}
	}
}

// BenchmarkList lists 1,000 keys: all that may be known of them, and their names.
func BenchmarkList(b *testing.B) {
	e := newBench(b, hooks.Options{})
	s := e.user(b)
	for i := range 1000 {
		create(b, s, fmt.Sprintf("%s token=true label=key-%d", aesKey, i))
	}
	a, slot := s.Application(), s.appSlot.slot
	for name, list := range map[string]func(context.Context, *Slot, p11.Attributes, func(ObjectInfo) bool) error{"whole": a.EachObject, "names": a.EachName} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := list(b.Context(), slot, nil, func(ObjectInfo) bool { return true }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkApplications runs one operation, a digest of few bytes, in one
// application and in each of 1,000 in turn, on as many threads as there are.
func BenchmarkApplications(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			e := newBench(b, hooks.Options{})
			sessions := make([]*Session, n)
			for i := range sessions {
				sessions[i] = e.session(b, e.app(), ro)
			}
			m, ctx := p11.Mechanism{Type: p11.CKM_SHA256}, context.Background()
			var next atomic.Int64
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for i := next.Add(1); pb.Next(); i++ {
					o, err := sessions[int(i)%n].Begin(ctx, p11.CKF_DIGEST, m, 0)
					if err != nil {
						b.Fatal(err)
					}
					if _, err := o.Final(ctx, nil); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkUpdate is one call on an open operation.
func BenchmarkUpdate(b *testing.B) {
	e := newBench(b, hooks.Options{})
	s := e.user(b)
	h := create(b, s, aesKey)
	o, err := s.Begin(b.Context(), p11.CKF_ENCRYPT, mech(b, "aes-ctr,bits=128,counter="+zeroIV), h)
	if err != nil {
		b.Fatal(err)
	}
	defer o.Close()
	part := make([]byte, 16)
	ctx := context.Background()
	for b.Loop() {
		if _, err := o.Update(ctx, part); err != nil {
			b.Fatal(err)
		}
	}
}
