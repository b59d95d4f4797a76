package historytest

import "testing"

const userPIN = "12345678"

// TestModel is that the model finds what must not be.
func TestModel(t *testing.T) {
	at := int64(0)
	op := func(host int, kind, value, result string) *Op {
		at += 10
		return &Op{Kind: kind, Object: "a", Host: host, Value: value, Result: result, Call: at, Back: at + 5}
	}
	pin := func(kind, old, value, result string) *Op {
		o := op(0, kind, value, result)
		o.Object, o.Old = PIN, old
		return o
	}
	for _, c := range []struct {
		name string
		ops  []*Op
		ok   bool
	}{
		{"made, used, destroyed", []*Op{op(0, "create", "1", "ok"), op(0, "sign", "", "ok"), op(1, "find", "", "absent"), op(1, "find", "1", "ok"), op(1, "destroy", "", "ok"), op(0, "sign", "", "absent"), op(2, "last", "", "absent")}, true},
		{"not seen by whoever made it", []*Op{op(0, "create", "1", "ok"), op(0, "find", "", "absent")}, false},
		{"not seen again", []*Op{op(0, "create", "1", "ok"), op(1, "find", "1", "ok"), op(1, "find", "", "absent")}, false},
		{"signs after it was destroyed elsewhere", []*Op{op(0, "create", "1", "ok"), op(1, "sign", "", "ok"), op(0, "destroy", "", "ok"), op(1, "sign", "", "ok")}, false},
		{"an old value after a change elsewhere", []*Op{op(0, "create", "1", "ok"), op(1, "change", "2", "ok"), op(0, "find", "1", "ok")}, false},
		{"lost", []*Op{op(0, "create", "1", "ok"), op(1, "last", "", "absent")}, false},
		{"a change is lost", []*Op{op(0, "create", "1", "ok"), op(0, "change", "2", "ok"), op(1, "last", "1", "ok")}, false},
		{"a change that nobody knows of", []*Op{op(0, "create", "1", "ok"), op(0, "change", "2", ""), op(1, "find", "1", "ok"), op(1, "last", "2", "ok")}, true},
		{"destroyed twice", []*Op{op(0, "create", "1", "ok"), op(0, "destroy", "", "ok"), op(1, "destroy", "", "ok")}, false},
		{"the old PIN after a change", []*Op{pin("setpin", userPIN, "x", "ok"), pin("login", "", userPIN, "ok")}, false},
		{"the new PIN after a change", []*Op{pin("setpin", userPIN, "x", "ok"), pin("login", "", userPIN, "wrong"), pin("login", "", "x", "ok")}, true},
		{"two changes of one PIN", []*Op{pin("setpin", userPIN, "x", "ok"), pin("setpin", userPIN, "y", "ok")}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if bad, err := Wrong(c.ops, 3, userPIN); (bad == nil) != c.ok || err != nil {
				t.Errorf("a history: %v, want %v (%v)", bad == nil, c.ok, err)
			}
		})
	}
}
