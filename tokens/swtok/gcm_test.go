package swtok

import (
	"bytes"
	"slices"
	"sync"
	"testing"
)

// Pieces hold what they were given in at most twice its memory, and are wiped before their
// memory serves the next.
func TestPieces(t *testing.T) {
	const size = len(piece64K{})
	free := &sync.Pool{}
	for _, part := range []int{1, 1000, size/2 - 1, size / 2, size/2 + 1, size, 3*size + 5} {
		p := pieces{free: free}
		var want []byte
		for len(want) < 4*size {
			n := len(want) + part
			for len(want) < n {
				to := p.more(n - len(want))
				if !bytes.Equal(to, make([]byte, len(to))) {
					t.Fatalf("parts of %d: memory that was not wiped", part)
				}
				for i := range to {
					to[i] = byte(len(want)%251) + 1
					want = append(want, to[i])
				}
			}
			memory := 0
			for _, b := range p.list {
				memory += cap(b)
			}
			if memory > 2*n {
				t.Fatalf("parts of %d: %d bytes in %d", part, n, memory)
			}
		}
		if !bytes.Equal(p.joined(), want) {
			t.Errorf("parts of %d: other bytes", part)
		}
		list := slices.Clone(p.list)
		p.wipe()
		for _, b := range list {
			if !bytes.Equal(b, make([]byte, len(b))) {
				t.Fatalf("parts of %d: bytes are left", part)
			}
		}
		if p.n != 0 || len(p.joined()) != 0 {
			t.Errorf("parts of %d: %d bytes after wipe", part, p.n)
		}
	}
}
