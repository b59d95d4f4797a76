package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"p11fs/secret"
)

// reply is what a read gives, in the buffer of its request, which is wiped once
// the kernel has it: the buffer goes back to a pool.
type reply []byte

var _ fuse.ReadResult = reply(nil)

// Bytes returns the data.
func (r reply) Bytes([]byte) ([]byte, fuse.Status) { return r, fuse.OK }

// Slices returns the data, and keeps the library from trying to splice it.
func (r reply) Slices() ([][]byte, fuse.Status) { return [][]byte{r}, fuse.OK }

// Size is the length of the data.
func (r reply) Size() int { return len(r) }

// Done wipes the data.
func (r reply) Done() { secret.Wipe(r) }

// readAt copies what stands at off to dest.
func readAt(data, dest []byte, off int64) fuse.ReadResult {
	if off < 0 || off >= int64(len(data)) {
		return reply(nil)
	}
	return reply(dest[:copy(dest, data[off:])])
}
