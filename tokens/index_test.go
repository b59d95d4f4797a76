package tokens

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"p11fs/p11"
)

func attributes(class p11.ObjectClass, label string, id ...byte) p11.Attributes {
	return p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(uint64(class))},
		{Type: p11.CKA_TOKEN, Value: p11.Bool(true)},
		{Type: p11.CKA_LABEL, Value: []byte(label)},
		{Type: p11.CKA_ID, Value: id},
	}
}

func template(t testing.TB, text string) p11.Attributes {
	t.Helper()
	a, err := p11.ParseTemplate(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func count(x *Index) int {
	public, private := x.Counts()
	return public + private
}

func names(os []*Object) []string {
	var s []string
	for _, o := range os {
		s = append(s, o.Name)
	}
	return s
}

func TestNewHandle(t *testing.T) {
	seen := map[p11.ObjectHandle]bool{}
	for range 10000 {
		h := NewHandle()
		if h == 0 || h >= 1<<48 || seen[h] {
			t.Fatalf("handle %#x", uint64(h))
		}
		seen[h] = true
	}
}

func TestIndexFind(t *testing.T) {
	x := NewIndex()
	x.PutAt(NewObject(7, "late", attributes(p11.CKO_DATA, "d", 9)), 100)
	x.Put(NewObject(9, "a", attributes(p11.CKO_PRIVATE_KEY, "web", 1)))
	x.Put(NewObject(3, "b", attributes(p11.CKO_PUBLIC_KEY, "web", 1)))
	x.Put(NewObject(5, "c", attributes(p11.CKO_PUBLIC_KEY, "mail", 2)))
	x.Put(NewObject(1, "", attributes(p11.CKO_DATA, "", 1)))
	x.PutAt(NewObject(8, "early", p11.Attributes{{Type: p11.CKA_CLASS, Value: p11.Ulong(uint64(p11.CKO_DATA))}}), 2)

	tests := []struct {
		template string
		want     []string
	}{
		{"", []string{"early", "late", "a", "b", "c", ""}},
		{"label=web", []string{"a", "b"}},
		{"id=0x01", []string{"a", "b", ""}},
		{"class=public-key", []string{"b", "c"}},
		{"class=public-key label=web", []string{"b"}},
		{"class=public-key label=web id=0x01", []string{"b"}},
		{"class=data label=web", nil},
		{`label=""`, []string{""}},
		{"label=none", nil},
		{"token=true id=0x02", []string{"c"}},
		{"token=false", nil},
		{"class=data", []string{"early", "late", ""}},
	}
	for _, tt := range tests {
		t.Run(tt.template, func(t *testing.T) {
			if d := gocmp.Diff(tt.want, names(find(t, x, template(t, tt.template)))); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestIndexVersions(t *testing.T) {
	x := NewIndex()
	v1 := NewObject(5, "n", attributes(p11.CKO_DATA, "old", 1))
	last := NewObject(6, "m", attributes(p11.CKO_DATA, "old", 1))
	if x.Put(v1) != nil || x.Put(last) != nil {
		t.Error("a new object replaced something")
	}
	v2 := NewObject(5, "n", attributes(p11.CKO_DATA, "new", 1))
	if x.Put(v2) != v1 {
		t.Error("the old version does not come back")
	}
	if got := find(t, x, template(t, "label=old")); len(got) != 1 || got[0] != last {
		t.Errorf("found by the old label: %v", names(got))
	}
	if d := gocmp.Diff([]string{"n", "m"}, names(find(t, x, nil))); d != "" {
		t.Errorf("a new version lost its place: %s", d)
	}
	if x.Get(5) != v2 || x.ByName("n") != v2 || count(x) != 2 {
		t.Error("not the new version")
	}
	if x.Remove(5) != v2 || x.Remove(5) != nil || x.Get(5) != nil || x.ByName("n") != nil || count(x) != 1 {
		t.Error("not removed")
	}
	if x.Remove(6) != last {
		t.Error("not removed")
	}
	for name, tree := range map[string]int{"order": x.public[byOrder].Len(), "names": x.names.Len(), "classes": x.public[byClass].Len(), "labels": x.public[byLabel].Len(), "ids": x.public[byID].Len()} {
		if tree != 0 {
			t.Errorf("%s keeps %d items", name, tree)
		}
	}
	if x.ByName("") != nil {
		t.Error("an object without a name")
	}
}

// TestIndexLooksAtNothingPrivate has private objects that whoever looks at waits for.
func TestIndexLooksAtNothingPrivate(t *testing.T) {
	x := NewIndex()
	x.Put(NewObject(1, "first", attributes(p11.CKO_DATA, "web", 1)))
	var private []*Object
	for i := range 400 {
		o := NewObject(p11.ObjectHandle(i+2), fmt.Sprint(i), append(attributes(p11.CKO_DATA, "web", 1), p11.Attribute{Type: p11.CKA_PRIVATE, Value: p11.Bool(true)}))
		private = append(private, o)
		x.Put(o)
	}
	x.Put(NewObject(1000, "last", attributes(p11.CKO_DATA, "web", 1)))
	all := []string{"", "label=web", "id=0x01", "class=data", "class=data label=web", "class=data label=web id=0x01"}
	none := []string{"private=true", "label=none"}
	for _, o := range private {
		o.mu.Lock()
	}
	searched := make(chan struct{})
	go func() {
		defer close(searched)
		for _, text := range slices.Concat(all, none) {
			found, err := x.Find(t.Context(), template(t, text), false)
			if want := slices.Contains(all, text); err != nil || want != slices.Equal(names(found), []string{"first", "last"}) || !want && len(found) > 0 {
				t.Errorf("%q finds %q, %v", text, names(found), err)
			}
		}
	}()
	select {
	case <-searched:
	case <-time.After(10 * time.Second):
		t.Error("a search looks at a private object")
	}
	for _, o := range private {
		o.mu.Unlock()
	}
	<-searched
	for _, text := range all {
		got := find(t, x, template(t, text))
		if len(got) != 402 || !slices.IsSortedFunc(got, func(a, b *Object) int { return cmp.Compare(a.Handle, b.Handle) }) {
			t.Errorf("%q finds %d objects with the private ones, or not in their order", text, len(got))
		}
	}
}

func TestIndexConcurrent(t *testing.T) {
	x := NewIndex()
	tmpl := template(t, "class=data label=l1")
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 300 {
				h := p11.ObjectHandle(g*1000 + i + 1)
				x.Put(NewObject(h, fmt.Sprint(h), attributes(p11.CKO_DATA, fmt.Sprintf("l%d", i%3))))
				for _, o := range find(t, x, tmpl) {
					x.Get(o.Handle)
				}
				if i%2 == 0 {
					x.Remove(h).Drop()
				}
				if i%50 == 0 {
					find(t, x, nil)
				}
			}
		})
	}
	wg.Wait()
	if count(x) != 600 {
		t.Errorf("%d objects", count(x))
	}
}

// An endingContext is done after it was asked a few times.
type endingContext struct {
	context.Context
	left int
}

func (c *endingContext) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestIndexFindGivesUp(t *testing.T) {
	x := filled(5000)
	for _, tmpl := range []string{"", "class=data"} {
		ctx := &endingContext{context.Background(), 2}
		_, err := x.Find(ctx, template(t, tmpl), true)
		if p11.RVOf(err) != p11.CKR_FUNCTION_CANCELED || ctx.left < -2 {
			t.Errorf("%q: %v, and the context was asked %d times after its end", tmpl, err, -ctx.left)
		}
	}
}

func find(t testing.TB, x *Index, template p11.Attributes) []*Object {
	t.Helper()
	found, err := x.Find(context.Background(), template, true)
	if err != nil {
		t.Error(err)
	}
	return found
}

func filled(n int) *Index {
	x := NewIndex()
	for i := range n {
		id := []byte{byte(i), byte(i >> 8), byte(i >> 16)}
		x.Put(NewObject(NewHandle(), fmt.Sprintf("%08d", i), attributes(p11.CKO_DATA, fmt.Sprintf("label %d", i), id...)))
	}
	return x
}

// TestIndexMemory bounds what the index costs besides the objects.
func TestIndexMemory(t *testing.T) {
	const n = 100_000
	objs := make([]*Object, n)
	for i := range objs {
		objs[i] = NewObject(NewHandle(), fmt.Sprintf("%08d", i), attributes(p11.CKO_DATA, fmt.Sprintf("label %d", i), byte(i), byte(i>>8), byte(i>>16)))
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	x := NewIndex()
	for _, o := range objs {
		x.Put(o)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := int64(after.HeapAlloc-before.HeapAlloc) / n
	t.Logf("%d bytes an object", each)
	if each > 300 {
		t.Errorf("the index takes %d bytes an object", each)
	}
	runtime.KeepAlive(x)
	runtime.KeepAlive(objs)
}

func BenchmarkIndexFind(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		x := filled(n)
		for _, text := range []string{`label="label 57"`, "id=0x390000", `class=data label="label 57" id=0x390000`} {
			tmpl := template(b, text)
			b.Run(fmt.Sprintf("%d/%s", n, text), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if len(find(b, x, tmpl)) != 1 {
						b.Fatal("not found")
					}
				}
			})
		}
	}
}
