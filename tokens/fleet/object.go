package fleet

import (
	"encoding/binary"
	"fmt"
	"time"

	"p11fs/tokens/store/format"
)

// An object's value is a version (u8), when it was changed and its own time (i64
// nanoseconds each, big endian), and its file.
const (
	objectVersion = 1
	objectHeader  = 1 + 8 + 8
)

// A stored is an object as it is stored.
type stored struct {
	changed, dated time.Time
	file           []byte
}

// print appends to b, whose memory the caller wipes.
func (s stored) print() []byte {
	b := make([]byte, 0, objectHeader+len(s.file))
	b = append(b, objectVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(s.changed.UnixNano()))
	b = binary.BigEndian.AppendUint64(b, uint64(s.dated.UnixNano()))
	return append(b, s.file...)
}

func parseStored(b []byte) (s stored, err error) {
	if len(b) < objectHeader || b[0] != objectVersion {
		return s, fmt.Errorf("%w: it is no object that this program knows", format.ErrDamaged)
	}
	at := func(off int) time.Time { return time.Unix(0, int64(binary.BigEndian.Uint64(b[off:]))) }
	return stored{at(1), at(9), b[objectHeader:]}, nil
}
