package fleet

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// A state is that of one object, or of the PIN, whose value it is.
type state struct {
	made, gone bool
	value      string
}

// A view is what one operation is to those who look from one place: a machine, or etcd.
type view struct {
	*historyOp
	place int // of the machine; historyHosts for etcd
}

// views are the places from which an operation is to be seen in one order with the others.
// What a machine reads is its own. Whoever has changed or destroyed an object goes on when all
// machines know, so it happens for each between call and return; of what somebody has made
// the others hear at some time. In etcd there is one order of all changes for all, and that is
// what there is in the end. PINs are asked of etcd.
func (o *historyOp) views() (list []porcupine.Operation) {
	add := func(place int, back int64) {
		list = append(list, porcupine.Operation{ClientId: o.host, Input: view{o, place}, Call: o.call, Return: back})
	}
	back := o.back
	if o.result == "" {
		back = math.MaxInt64 // or at any time after
	}
	switch {
	case o.kind == "last", o.object == "pin":
		add(historyHosts, back)
	case o.kind == "find", o.kind == "sign", o.result == "absent":
		add(o.host, back)
	default:
		add(historyHosts, back)
		for h := range historyHosts {
			switch {
			case h == o.host:
				add(h, back)
			case o.kind == "create":
				add(h, math.MaxInt64)
			default:
				add(h, back)
			}
		}
	}
	return list
}

// step is what may come of an operation.
func step(from, input, _ any) (to []any) {
	s, o := from.(state), input.(view).historyOp
	is := func(ok bool, next state) {
		if ok {
			to = append(to, next)
		}
	}
	there := s.made && !s.gone
	if o.result == "absent" {
		is(!there, s)
		return to
	}
	if o.result == "" {
		is(true, s) // it did not happen
	}
	next := s
	switch o.kind {
	case "create":
		next.made, next.value = true, o.value
		is(!s.made, next)
	case "change":
		next.value = o.value
		is(there, next)
	case "destroy":
		next.gone = true
		is(there, next)
	case "sign":
		is(there, s)
	case "find", "last":
		is(there && s.value == o.value, s)
	case "setpin":
		if o.result == "wrong" {
			is(s.value != o.old, s)
			return to
		}
		next.value = o.value
		is(s.value == o.old, next)
	case "login":
		is((s.value == o.value) == (o.result == "ok"), s)
	}
	return to
}

// wrongHistory returns the operations of the first object, and place, that has no history, or
// nil.
func wrongHistory(t testing.TB, ops []*historyOp) []*historyOp {
	t.Helper()
	type part struct {
		object string
		place  int
	}
	parts := make(map[part][]porcupine.Operation)
	for _, o := range ops {
		for _, v := range o.views() {
			p := part{o.object, v.Input.(view).place}
			parts[p] = append(parts[p], v)
		}
	}
	for p, list := range parts {
		m := porcupine.NondeterministicModel{
			Init: func() []any {
				if p.object == "pin" {
					return []any{state{value: userPIN}}
				}
				return []any{state{}}
			},
			Step: step,
		}
		switch porcupine.CheckOperationsTimeout(m.ToModel(), list, time.Minute) {
		case porcupine.Illegal:
			var bad []*historyOp
			for _, v := range list {
				bad = append(bad, v.Input.(view).historyOp)
			}
			slices.SortFunc(bad, func(a, b *historyOp) int { return cmp.Compare(a.call, b.call) })
			return bad
		case porcupine.Unknown:
			t.Errorf("whether %d operations of %s are a history was not found out in a minute", len(list), p.object)
		}
	}
	return nil
}

// missing are operations that a history must have, and this one has not.
func (w *world) missing() (list []string) {
	counts := w.counts()
	for _, must := range []string{"create ok", "change ok", "destroy ok", "sign ok", "sign absent", "find ok", "login ok"} {
		if counts[must] == 0 {
			list = append(list, must)
		}
	}
	return list
}

func (w *world) counts() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	counts := map[string]int{}
	for _, o := range w.ops {
		counts[o.kind+" "+cmp.Or(o.result, "unknown")]++
	}
	return counts
}

// check fails if what was seen is no history of one token.
func (w *world) check() {
	w.t.Logf("%d operations: %v", len(w.ops), w.counts())
	for _, o := range wrongHistory(w.t, w.ops) {
		w.t.Errorf("%s", o)
	}
	if list := w.missing(); len(list) > 0 {
		w.t.Errorf("nobody has seen: %v", list)
	}
}

func (o *historyOp) String() string {
	return fmt.Sprintf("%9.3f..%9.3f ms host %d: %s %s %q %q: %s", float64(o.call)/1e6, float64(o.back)/1e6, o.host, o.kind, o.object, o.old, o.value, cmp.Or(o.result, "unknown"))
}

// TestHistoryModel is that the model finds what must not be.
func TestHistoryModel(t *testing.T) {
	at := int64(0)
	op := func(host int, kind, value, result string) *historyOp {
		at += 10
		return &historyOp{kind: kind, object: "a", host: host, value: value, result: result, call: at, back: at + 5}
	}
	pin := func(kind, old, value, result string) *historyOp {
		o := op(0, kind, value, result)
		o.object, o.old = "pin", old
		return o
	}
	for _, c := range []struct {
		name string
		ops  []*historyOp
		ok   bool
	}{
		{"made, used, destroyed", []*historyOp{op(0, "create", "1", "ok"), op(0, "sign", "", "ok"), op(1, "find", "", "absent"), op(1, "find", "1", "ok"), op(1, "destroy", "", "ok"), op(0, "sign", "", "absent"), op(2, "last", "", "absent")}, true},
		{"not seen by whoever made it", []*historyOp{op(0, "create", "1", "ok"), op(0, "find", "", "absent")}, false},
		{"not seen again", []*historyOp{op(0, "create", "1", "ok"), op(1, "find", "1", "ok"), op(1, "find", "", "absent")}, false},
		{"signs after it was destroyed elsewhere", []*historyOp{op(0, "create", "1", "ok"), op(1, "sign", "", "ok"), op(0, "destroy", "", "ok"), op(1, "sign", "", "ok")}, false},
		{"an old value after a change elsewhere", []*historyOp{op(0, "create", "1", "ok"), op(1, "change", "2", "ok"), op(0, "find", "1", "ok")}, false},
		{"lost", []*historyOp{op(0, "create", "1", "ok"), op(1, "last", "", "absent")}, false},
		{"a change is lost", []*historyOp{op(0, "create", "1", "ok"), op(0, "change", "2", "ok"), op(1, "last", "1", "ok")}, false},
		{"a change that nobody knows of", []*historyOp{op(0, "create", "1", "ok"), op(0, "change", "2", ""), op(1, "find", "1", "ok"), op(1, "last", "2", "ok")}, true},
		{"destroyed twice", []*historyOp{op(0, "create", "1", "ok"), op(0, "destroy", "", "ok"), op(1, "destroy", "", "ok")}, false},
		{"the old PIN after a change", []*historyOp{pin("setpin", userPIN, "x", "ok"), pin("login", "", userPIN, "ok")}, false},
		{"the new PIN after a change", []*historyOp{pin("setpin", userPIN, "x", "ok"), pin("login", "", userPIN, "wrong"), pin("login", "", "x", "ok")}, true},
		{"two changes of one PIN", []*historyOp{pin("setpin", userPIN, "x", "ok"), pin("setpin", userPIN, "y", "ok")}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if bad := wrongHistory(t, c.ops); (bad == nil) != c.ok {
				t.Errorf("a history: %v, want %v", bad == nil, c.ok)
			}
		})
	}
}
