package fleet

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"p11fs/p11"
	"p11fs/tokens/store/format"
	"p11fs/tokens/swtok"
)

func formatOf() format.Format {
	facts, _ := format.KindOf312(swtok.Kind)
	return format.V312(facts, rand.Reader, iterations)
}

// sample is a record with all that one can have.
func sample(t testing.TB) *record {
	t.Helper()
	d, file, err := formatOf().NewToken(t.Context())
	noError(t, err)
	r := &record{ID: newID(), Count: 1 << 60, Objects: 3, Data: d, Keys: [2][]byte{file, file}, NameKey: []byte("names"), Counted: 1<<63 + 1}
	r.Sum[5] = 7
	r.Trials = []trial{{p11.CKU_USER, newNumber()}, {p11.CKU_SO, newNumber()}}
	for i := range uint64(maxWriters + 5) {
		r.wrote(newNumber(), i)
	}
	return r
}

// What is written is read as it was, on every machine, and a record's length stays bounded
// however many have written.
func TestRecord(t *testing.T) {
	f, r := formatOf(), sample(t)
	b, err := r.print(f)
	noError(t, err)
	again, err := parseRecord(f, b)
	noError(t, err)
	if d := cmp.Diff(r, again, cmp.AllowUnexported(format.TokenData{})); d != "" {
		t.Errorf("it is read as another: %s", d)
	}
	if len(again.Writers) != maxWriters {
		t.Errorf("%d writers", len(again.Writers))
	}
	last := r.Writers[0]
	if r.lastOf(last.Who) != last.Last || r.lastOf(newNumber()) != 0 {
		t.Error("a writer's last change is another")
	}
}

// A record of a later program is refused, not read in part.
func TestLaterRecord(t *testing.T) {
	f := formatOf()
	for _, text := range []string{`{"Version":2}`, `{"Version":1,"New":1}`, `{`, ``, `{"Version":1}`} {
		if _, err := parseRecord(f, []byte(text)); err == nil {
			t.Errorf("%q is read", text)
		}
	}
}

func FuzzRecord(f *testing.F) {
	form := formatOf()
	b, err := sample(f).print(form)
	noError(f, err)
	f.Add(b)
	f.Add([]byte(`{"Version":1,"Trials":[{"Role":1}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord(form, b)
		if err != nil {
			return
		}
		once, err := r.print(form)
		noError(t, err)
		again, err := parseRecord(form, once)
		noError(t, err)
		if d := cmp.Diff(r, again, cmp.AllowUnexported(format.TokenData{})); d != "" {
			t.Errorf("what was read is written as another: %s", d)
		}
	})
}

func FuzzStored(f *testing.F) {
	f.Add(stored{time.Unix(1, 2), time.Unix(3, 4), []byte("file")}.print())
	f.Add([]byte{objectVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseStored(b)
		if err == nil && string(s.print()) != string(b) {
			t.Errorf("%x is written as %x", b, s.print())
		}
	})
}
