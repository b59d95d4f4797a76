package tokens

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"p11fs/p11"
)

// placed makes n objects, of which one in three is private, at places in no order.
func placed(n int) (list []Placed) {
	for i := range n {
		attrs := attributes(p11.CKO_DATA, fmt.Sprintf("label %d", i/2), byte(i%7))
		attrs.SetBool(p11.CKA_PRIVATE, i%3 == 0)
		name := fmt.Sprintf("%08d", i)
		if i%5 == 0 {
			name = ""
		}
		list = append(list, Placed{NewObject(0, name, attrs), uint64(i)})
	}
	rand.Shuffle(n, func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// TestIndexPutAll: many objects at once are found as they are one by one, in their order,
// with handles of their own; versions take the places of those before.
func TestIndexPutAll(t *testing.T) {
	for _, n := range []int{0, 1, bulk - 1, bulk, 1000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			x, single := NewIndex(), NewIndex()
			told := 0
			defer x.Tell(func(old, now *Object) {
				if old == nil && now != nil {
					told++
				}
			})()
			list := placed(n)
			// In two lots, as of a token that is read in lots.
			for _, lot := range [][]Placed{list[:n/3], list[n/3:]} {
				if old := x.PutAllAt(lot); len(old) > 0 {
					t.Errorf("%d objects are replaced", len(old))
				}
			}
			if told != n {
				t.Errorf("told of %d objects, not %d", told, n)
			}
			for _, p := range list {
				single.PutAt(p.Object, p.Place)
			}
			for _, text := range []string{"", `label="label 3"`, "id=0x05", `class=data label="label 0"`, "private=true"} {
				for _, private := range []bool{false, true} {
					a, _ := x.Find(t.Context(), template(t, text), private)
					b, _ := single.Find(t.Context(), template(t, text), private)
					if !slices.Equal(a, b) {
						t.Errorf("%q, private %v: %d objects, not %d", text, private, len(a), len(b))
					}
				}
			}
			for _, p := range list {
				if o := p.Object; o.Handle == 0 || x.Get(o.Handle) != o || o.Name != "" && x.ByName(o.Name) != o {
					t.Fatalf("object %v is not found by handle or name", o)
				}
			}
			if x.PublicSize() != single.PublicSize() {
				t.Errorf("the public ones have %d bytes, not %d", x.PublicSize(), single.PublicSize())
			}
			for i, p := range list {
				list[i].Object = NewObject(p.Object.Handle, p.Object.Name, attributes(p11.CKO_DATA, "newer"))
			}
			if old := x.PutAllAt(list); len(old) != n || count(x) != n {
				t.Errorf("%d versions are replaced, of %d; %d objects", len(old), n, count(x))
			}
		})
	}
}

// TestIndexRemoveAll: the private objects go, and nothing of them can be found; then all.
func TestIndexRemoveAll(t *testing.T) {
	const n = 300
	x := NewIndex()
	list := placed(n)
	x.PutAllAt(list)
	told := 0
	defer x.Tell(func(_, now *Object) {
		if now == nil {
			told++
		}
	})()
	gone := x.RemoveAll(false)
	if len(gone) != n/3 || told != n/3 {
		t.Errorf("%d objects are gone, of %d; told of %d", len(gone), n/3, told)
	}
	for _, p := range list {
		o := p.Object
		found := o.Name != "" && x.ByName(o.Name) == o
		if there := x.Get(o.Handle) == o; there == o.Private || found && o.Private {
			t.Fatalf("private=%v: there %v, by name %v", o.Private, there, found)
		}
	}
	if all, _ := x.Find(t.Context(), nil, true); len(all) != n-n/3 {
		t.Errorf("%d objects are found", len(all))
	}
	x.RemoveAll(true)
	if count(x) != 0 || x.PublicSize() != 0 || told != n {
		t.Errorf("%d objects stay, of %d bytes; told of %d", count(x), x.PublicSize(), told)
	}
	x.PutAllAt(placed(n))
	if count(x) != n {
		t.Errorf("%d objects afterwards", count(x))
	}
}

// TestIndexBulkConcurrent: who searches meanwhile finds an object whole or not at all.
func TestIndexBulkConcurrent(t *testing.T) {
	x := NewIndex()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				found, err := x.Find(t.Context(), template(t, `label="label 1"`), true)
				if err != nil || len(found) > 2*4 {
					t.Errorf("%d objects: %v", len(found), err)
				}
				for _, o := range found {
					if o.Handle == 0 {
						t.Error("an object without a handle")
					}
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	for range 4 {
		x.PutAllAt(placed(200))
		x.RemoveAll(false)
	}
	close(stop)
	wg.Wait()
}

// BenchmarkIndexFill compares filling an index with very many objects at once and one by one.
func BenchmarkIndexFill(b *testing.B) {
	const n, lot = 64 << 10, 16 << 10
	for _, at := range []string{"at once", "one by one"} {
		b.Run(at, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				list, x := placed(n), NewIndex()
				b.StartTimer()
				for lot := range slices.Chunk(list, lot) {
					if at == "at once" {
						x.PutAllAt(lot)
						continue
					}
					for _, p := range lot {
						p.Object.Handle = x.NewHandle()
						x.PutAt(p.Object, p.Place)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/object")
		})
	}
}
