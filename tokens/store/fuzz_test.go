package store

import (
	"bytes"
	"testing"

	"p11fs/p11"
)

// FuzzSegment has somebody write anything anywhere into the segment. The store
// goes on, and no object is lost: they are there again after a restart.
func FuzzSegment(f *testing.F) {
	f.Add(uint32(264), bytes.Repeat([]byte{0xff}, dataSize))             // token data
	f.Add(uint32(264+offNext), []byte("ZZZZZZZZ"))                       // the last name
	f.Add(uint32(264+offFlags), []byte{0, 0, 4, 0})                      // a locked PIN
	f.Add(uint32(496), []byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0x80})    // counts
	f.Add(uint32(496), make([]byte, 12))                                 // nothing, not loaded
	f.Add(uint32(508), make([]byte, 40))                                 // holes
	f.Add(uint32(509), []byte("10000000"))                               // one object twice
	f.Add(uint32(41469), []byte("00000000"))                             // in both lists
	f.Add(uint32(509), []byte("../../xx"))                               // no name
	f.Add(uint32(500), []byte{2, 8, 0, 0, 1, 1, 0, 0, 0, 'G', 'H', 'O'}) // more than there is room for
	f.Fuzz(func(t *testing.T, at uint32, patch []byte) {
		b := newShared(t)
		raw := readFile(t, b.seg.Path())
		copy(raw[int(at)%len(raw):], patch)
		writeInPlace(t, b.seg.Path(), raw)
		for range 2 {
			_ = b.s.Refresh(t.Context())
			_, _ = b.s.Create(t.Context(), dataObject("z", "1", false))
			_ = tryLogin(t, b.s, p11.CKU_USER, testUser)
			b.now = b.now.Add(grace)
		}
		if err := b.s.Refresh(t.Context()); err != nil {
			t.Error(err)
		}
		if err := b.s.Close(); err != nil {
			t.Error(err)
		}
		remove(t, b.seg.Path())
		s := openStore(t, b.cfg)
		if got := contents(t, s); len(got) < 2 || got[0] != "a=1" || got[1] != "b=1" {
			t.Errorf("after a restart there is %q", got)
		}
	})
}
