package icsfwire

import (
	"bytes"
	"runtime/debug"
	"testing"
)

// TestRedactNested: elements in elements in elements, as many as fit into a message, take no
// stack.
func TestRedactNested(t *testing.T) {
	const depth, head = 600_000, 6
	var b []byte
	for n := range depth {
		length := (depth - n - 1) * head
		b = append(b, contextual|constructed|4, 0x84, byte(length>>24), byte(length>>16), byte(length>>8), byte(length))
	}
	b[0] = tagSequence
	defer debug.SetMaxStack(debug.SetMaxStack(8 << 20)) // more ends the process
	if got := Redact(b); len(got) != len(b) || !bytes.Equal(got[len(got)-head:], make([]byte, head)) {
		t.Error("what is deep within stays")
	}
}
