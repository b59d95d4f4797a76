package fs

import (
	"context"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// maxRandom is how many bytes one open of random gives: programs that read a
// tree come to an end.
const maxRandom = 1 << 20

// randomFile is C_GenerateRandom and C_SeedRandom.
type randomFile struct {
	fs *FS
	p  place
}

func (randomFile) size(context.Context, caller) uint64 { return 0 }

func (r randomFile) open(ctx context.Context, c caller, _ uint32) (gofs.FileHandle, uint32, error) {
	s, err := r.fs.session(ctx, c, r.p)
	if err != nil {
		return nil, 0, err
	}
	r.fs.handles.Add(1)
	return &randomHandle{fs: r.fs, p: r.p, s: s, gate: newGate(), left: maxRandom}, 0, nil
}

// truncate has nothing to cut.
func (randomFile) truncate(_ context.Context, _ caller, _ gofs.FileHandle, size uint64) error {
	if size != 0 {
		return errTruncate
	}
	return nil
}

type randomHandle struct {
	fs *FS
	p  place
	s  *session

	gate gate // guards left
	left int
}

// Read returns random bytes.
func (h *randomHandle) Read(ctx context.Context, dest []byte, _ int64) (fuse.ReadResult, syscall.Errno) {
	ctx, end := h.fs.patience(ctx)
	defer end()
	if !h.gate.enter(ctx) {
		return nil, syscall.EINTR
	}
	defer h.gate.leave()
	n := min(len(dest), h.left)
	if n == 0 {
		return reply(nil), 0
	}
	b, err := h.s.eng.GenerateRandom(ctx, n)
	if err != nil {
		return nil, h.fs.doneIn(h.s.app, h.p, err)
	}
	h.left -= len(b)
	return reply(b), 0
}

// Write mixes a seed in.
func (h *randomHandle) Write(ctx context.Context, data []byte, _ int64) (uint32, syscall.Errno) {
	ctx, end := h.fs.patience(ctx)
	defer end()
	if errno := h.fs.doneIn(h.s.app, h.p, h.s.eng.SeedRandom(ctx, data)); errno != 0 {
		return 0, errno
	}
	return uint32(len(data)), 0
}

// Release counts the handle out.
func (h *randomHandle) Release(context.Context) syscall.Errno {
	h.fs.handles.Add(-1)
	return 0
}
