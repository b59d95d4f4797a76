// Package historytest says whether what the machines of a fleet have seen is the history of one
// token. It is for tests.
package historytest

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// An Op is what one machine did, and what came of it.
type Op struct {
	Kind       string // create, change, destroy, find, sign, last; setpin, login
	Object     string
	Host       int
	Door       string // of the machine, by which it was done
	Value      string // that is given, or was found
	Old        string // PIN
	Result     string // ok, absent, wrong; "" where nobody knows
	Said       string // the error, if there was one
	Call, Back int64  // nanoseconds
}

func (o *Op) String() string {
	return fmt.Sprintf("%9.3f..%9.3f ms host %d, %s: %s %s %q %q: %s (%s)", float64(o.Call)/1e6, float64(o.Back)/1e6, o.Host, o.Door, o.Kind, o.Object, o.Old, o.Value, cmp.Or(o.Result, "unknown"), o.Said)
}

// PIN is the object whose value is the PIN.
const PIN = "pin"

// etcd is the place that is no machine.
const etcd = -1

// A state is that of one object, or of the PIN, whose value it is.
type state struct {
	made, gone bool
	value      string
}

// A view is what one operation is to those who look from one place: a machine, or etcd.
type view struct {
	*Op
	place int // of the machine; -1 for etcd
}

// views are the places from which an operation is to be seen in one order with the others.
// What a machine reads is its own. Whoever has changed or destroyed an object goes on when all
// machines know, so it happens for each between call and return; of what somebody has made
// the others hear at some time. In etcd there is one order of all changes for all, and that is
// what there is in the end. PINs are asked of etcd.
func (o *Op) views(hosts int) (list []porcupine.Operation) {
	add := func(place int, back int64) {
		list = append(list, porcupine.Operation{ClientId: o.Host, Input: view{o, place}, Call: o.Call, Return: back})
	}
	back := o.Back
	if o.Result == "" {
		back = math.MaxInt64 // or at any time after
	}
	switch {
	case o.Kind == "last", o.Object == PIN:
		add(etcd, back)
	case o.Kind == "find", o.Kind == "sign", o.Result == "absent":
		add(o.Host, back)
	default:
		add(etcd, back)
		for h := range hosts {
			switch {
			case h == o.Host:
				add(h, back)
			case o.Kind == "create":
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
	s, o := from.(state), input.(view).Op
	is := func(ok bool, next state) {
		if ok {
			to = append(to, next)
		}
	}
	there := s.made && !s.gone
	if o.Result == "absent" {
		is(!there, s)
		return to
	}
	if o.Result == "" {
		is(true, s) // it did not happen
	}
	next := s
	switch o.Kind {
	case "create":
		next.made, next.value = true, o.Value
		is(!s.made, next)
	case "change":
		next.value = o.Value
		is(there, next)
	case "destroy":
		next.gone = true
		is(there, next)
	case "sign":
		is(there, s)
	case "find", "last":
		is(there && s.value == o.Value, s)
	case "setpin":
		if o.Result == "wrong" {
			is(s.value != o.Old, s)
			return to
		}
		next.value = o.Value
		is(s.value == o.Old, next)
	case "login":
		is((s.value == o.Value) == (o.Result == "ok"), s)
	}
	return to
}

// Wrong returns the operations of the first object, and place, that has no history, or nil. The
// error is that it was not found out in a minute for one. pin is the PIN before all.
func Wrong(ops []*Op, hosts int, pin string) (bad []*Op, err error) {
	type part struct {
		object string
		place  int
	}
	parts := make(map[part][]porcupine.Operation)
	for _, o := range ops {
		for _, v := range o.views(hosts) {
			p := part{o.Object, v.Input.(view).place}
			parts[p] = append(parts[p], v)
		}
	}
	for p, list := range parts {
		m := porcupine.NondeterministicModel{
			Init: func() []any {
				if p.object == PIN {
					return []any{state{value: pin}}
				}
				return []any{state{}}
			},
			Step: step,
		}
		switch porcupine.CheckOperationsTimeout(m.ToModel(), list, time.Minute) {
		case porcupine.Illegal:
			for _, v := range list {
				bad = append(bad, v.Input.(view).Op)
			}
			slices.SortFunc(bad, func(a, b *Op) int { return cmp.Compare(a.Call, b.Call) })
			return bad, nil
		case porcupine.Unknown:
			err = fmt.Errorf("whether %d operations of %s are a history was not found out in a minute", len(list), p.object)
		}
	}
	return nil, err
}

// Counts says how many operations of each kind had each result.
func Counts(ops []*Op) map[string]int {
	counts := make(map[string]int)
	for _, o := range ops {
		counts[o.Kind+" "+cmp.Or(o.Result, "unknown")]++
	}
	return counts
}

// Missing are operations that must have been seen, so that a history tells something, and are not
// among the counts.
func Missing(counts map[string]int) (list []string) {
	for _, must := range []string{"create ok", "change ok", "destroy ok", "sign ok", "sign absent", "find ok", "login ok"} {
		if counts[must] == 0 {
			list = append(list, must)
		}
	}
	return list
}
