package integration

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/anishathalye/porcupine"
)

// A loadOp is one operation of a worker under load, as its log tells it.
type loadOp struct {
	worker     string // c0g7: stock process; sh0: shell; other names: a listing at the end
	kind       string // create, write, read, destroy, sign
	key        string // the object
	value      string // what is created or written, or the message that is signed
	old        string // the label that the path named, if the operation needs it to be that
	call, back int64  // microseconds
	result     string // ok, absent, err; "" when the worker was killed in it
	got        string // what was read, the signature, or the error
	end        bool   // it was read when all had ended
}

func (o *loadOp) String() string {
	return fmt.Sprintf("%d..%d %s %s %s %q %q: %s %q", o.call, o.back, o.worker, o.kind, o.key, o.value, o.old, o.result, o.got)
}

// stock says that a stock process did it.
func (o *loadOp) stock() bool { return o.worker[0] == 'c' }

// shell says that a shell did it, through the mount.
func (o *loadOp) shell() bool { return strings.HasPrefix(o.worker, "sh") }

// place is the place of a shared object, -1 if it is not shared. An object of
// place 3 is called by its CKA_ID, the others by their labels.
func place(key string) int {
	if key[0] == 'k' {
		return 3
	}
	if _, after, shared := strings.Cut(key, "-s"); shared {
		return int(after[0] - '0')
	}
	return -1
}

// stockWriter is the stock process that changes the object, "" if none does. The
// places are those of stock_load.c.
func stockWriter(key string) string {
	if key[0] == 'c' {
		return key[:2]
	}
	return map[int]string{1: "c0", 2: "c1"}[place(key)]
}

// tells says that the result tells what happened, in spite of what stock processes
// are known to do to one another, with the stock daemon too (defects D4 and D7 to
// D9 of 3.8.1). All else is held against us.
//   - A stock process that writes an object which others write as well may go on
//     to take its own version for the newest: the two changes end in one counter.
//   - One that writes an object while another destroys one before it may store the
//     counter where the entry was: other stock processes do not hear of the change.
//     p11fs tells them the next time that it is used, so in the end they know.
//   - One that comes to an object for the first time while another rewrites its
//     file, in place and without the lock, knows an object without attributes from
//     then on, and does not find it.
//   - One destroys without a look whether the object is still there.
//   - One changes first, and looks then whether the object is still there.
//
// So stock processes write only two of the objects that shells write, each only
// one of them; and what stock processes read of objects that stock processes write
// counts when it is their own, and in the end, when they find it.
func (o *loadOp) tells() bool {
	if !o.stock() {
		return true
	}
	switch writer := stockWriter(o.key); o.kind {
	case "read":
		return writer == "" || writer == o.worker[:2] && o.key[0] == 'c' || o.end && o.result == "ok"
	case "destroy":
		return place(o.key) != 5
	case "write":
		return o.result != "absent"
	}
	return true
}

// readLoadLog reads the log of one worker.
func readLoadLog(path, worker string) (ops []*loadOp, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	var open *loadOp
	for n := 1; s.Scan(); n++ {
		bad := fmt.Errorf("%s:%d: %q", path, n, s.Text())
		word, rest, _ := strings.Cut(s.Text(), " ")
		switch {
		case word == "#":
		case word == "C" && open == nil:
			w := append(strings.Split(rest, " "), "")
			if len(w) < 5 {
				return nil, bad
			}
			open = &loadOp{worker: worker, kind: w[1], key: w[2], value: w[3], old: w[4]}
			if open.call, err = strconv.ParseInt(w[0], 10, 64); err != nil {
				return nil, bad
			}
			ops = append(ops, open)
		case word == "R" && open != nil:
			w := append(strings.SplitN(rest, " ", 3), "")
			if len(w) < 3 {
				return nil, bad
			}
			open.result, open.got = w[1], w[2]
			if open.back, err = strconv.ParseInt(w[0], 10, 64); err != nil {
				return nil, bad
			}
			open = nil
		default:
			return nil, bad
		}
	}
	return ops, s.Err()
}

// An objectState is what the model knows of one object: an attribute that changes.
type objectState struct {
	exists bool
	value  string
}

// loadModel is what one object does, whoever uses it: it is created once, has the
// value that was written last, and is gone once it is destroyed.
func loadModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return objectState{} },
		Step: func(state, input, _ any) (bool, any) {
			return input.(*loadOp).step(state.(objectState))
		},
	}
}

func (o *loadOp) step(s objectState) (bool, objectState) {
	if o.result == "absent" && o.tells() {
		return !s.exists || o.old != "" && s.value != o.old, s
	}
	sure := o.result == "ok" && o.tells()
	switch o.kind {
	case "create":
		return !sure || !s.exists, objectState{true, o.value}
	case "write":
		if !s.exists {
			return !sure, s
		}
		return true, objectState{true, o.value}
	case "destroy":
		return !sure || s.exists, objectState{}
	default:
		return s.exists && s.value == o.got, s
	}
}

// histories are the operations on each object, for the checker. An operation of
// which nobody knows whether it happened may do so at any time after its call: also
// after all others, where it is as if it had not.
func histories(ops []*loadOp) map[string][]porcupine.Operation {
	all := map[string][]porcupine.Operation{}
	for _, o := range ops {
		back := o.back
		switch known := o.result == "ok" || o.result == "absent" && o.tells(); {
		case o.kind == "sign", o.kind == "read" && (!known || !o.tells()):
			continue
		case !known:
			back = math.MaxInt64
		}
		all[o.key] = append(all[o.key], porcupine.Operation{Input: o, Call: o.call, Output: o, Return: back})
	}
	return all
}

// tellHistory writes the history of an object down, at most the last lines of it.
func tellHistory(history []porcupine.Operation) string {
	const most = 150
	slices.SortFunc(history, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	var b strings.Builder
	for _, op := range history[max(0, len(history)-most):] {
		fmt.Fprintln(&b, op.Input)
	}
	return b.String()
}

// The checker itself: what it must take, and what it must not.
func TestLoadModel(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, log string // worker, call, return, operation, key, value, result, what was read
		ok        bool
	}{
		{"in order", "sh0 1 2 create k a ok; sh0 3 4 write k b ok; c1 5 6 read k  ok b; sh1 7 8 destroy k  ok; c0 9 9 read k  absent", true},
		{"at once", "sh0 1 2 create k a ok; sh0 3 9 write k b ok; c1 4 5 read k  ok a; c1 6 7 read k  ok b", true},
		{"back again", "sh0 1 2 create k a ok; sh0 3 9 write k b ok; c1 4 5 read k  ok b; c1 6 7 read k  ok a", false},
		{"stale", "sh0 1 2 create k a ok; sh0 3 4 write k b ok; c1 5 6 read k  ok a", false},
		{"lost", "sh0 1 2 create k a ok; c1 3 4 read k  absent", false},
		{"gone and back", "sh0 1 2 create k a ok; sh0 3 4 destroy k  ok; c1 5 6 read k  ok a", false},
		{"destroyed twice", "sh0 1 2 create k a ok; sh0 3 5 destroy k  ok; sh1 4 6 destroy k  ok", false},
		{"made twice", "sh0 1 2 create k a ok; sh1 3 4 create k b ok", false},
		{"from nowhere", "sh0 1 2 create k a ok; c1 3 4 read k  ok z", false},
		{"an error that happened", "sh0 1 2 create k a ok; sh0 3 4 write k b err; c1 8 9 read k  ok b", true},
		{"an error that did not", "sh0 1 2 create k a ok; sh0 3 4 write k b err; c1 8 9 read k  ok a", true},
		{"an error before its time", "sh0 1 2 create k a ok; c1 3 4 read k  ok b; sh0 5 6 write k b err", false},
		{"stock's own, stale", "c0g1 1 2 create c0g1-1 a ok; c0g1 3 4 write c0g1-1 b ok; c0g1 5 6 read c0g1-1  ok a", false},
		{"stock's, not found by other stock", "c0g1 1 2 create c0g1-1 a ok; c1g2 3 4 read c0g1-1  absent", true},
		{"stock's, not found by a shell", "c0g1 1 2 create c0g1-1 a ok; sh0 3 4 read c0g1-1  absent", false},
	} {
		var ops []*loadOp
		for line := range strings.SplitSeq(tt.log, "; ") {
			w := append(strings.Split(line, " "), "")
			call, err := strconv.ParseInt(w[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			back, err := strconv.ParseInt(w[2], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			ops = append(ops, &loadOp{worker: w[0], call: call, back: back, kind: w[3], key: w[4], value: w[5], result: w[6], got: w[7]})
		}
		ok := true
		for _, history := range histories(ops) {
			ok = ok && porcupine.CheckOperations(loadModel(), history)
		}
		if ok != tt.ok {
			t.Errorf("%s: linearisable %v, want %v", tt.name, ok, tt.ok)
		}
	}
}
