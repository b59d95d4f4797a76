package fs

import (
	"context"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// textFile is a file that is read only: a text, or the bytes of a value.
type textFile struct {
	// text returns what the caller reads.
	text func(ctx context.Context, c caller) ([]byte, error)
}

func (t textFile) size(ctx context.Context, c caller) uint64 { return textSize(ctx, c, t.text) }

func textSize(ctx context.Context, c caller, text func(context.Context, caller) ([]byte, error)) uint64 {
	b, err := text(ctx, c)
	if err != nil {
		return 0
	}
	return uint64(len(b))
}

func (t textFile) open(ctx context.Context, c caller, flags uint32) (gofs.FileHandle, uint32, error) {
	if _, write := wants(flags); write {
		return nil, 0, errReadOnly
	}
	return openText(ctx, c, t.text)
}

// openText opens a text as it is now.
func openText(ctx context.Context, c caller, text func(context.Context, caller) ([]byte, error)) (gofs.FileHandle, uint32, error) {
	b, err := text(ctx, c)
	if err != nil {
		return nil, 0, err
	}
	return &textHandle{data: b}, fuse.FOPEN_NOFLUSH, nil
}

// guardedText opens bytes that go with the login if they are private.
func (f *FS) guardedText(c caller, p place, data []byte, private bool) *textHandle {
	h := &textHandle{data: data}
	if a := f.callers.find(c); private && a != nil {
		login := a.eng.LoginGeneration(p.slot)
		h.check = func() syscall.Errno {
			if a.eng.LoginGeneration(p.slot) != login {
				return f.doneIn(a, p, errLoggedOut)
			}
			return 0
		}
	}
	return h
}

// textHandle is a text as it was at the open. It is read at any offset.
type textHandle struct {
	data  []byte
	check func() syscall.Errno // nil for what all may see
}

// Read returns the bytes at off.
func (h *textHandle) Read(_ context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if h.check != nil {
		if errno := h.check(); errno != 0 {
			return nil, errno
		}
	}
	return readAt(h.data, dest, off), 0
}

// Lseek says that nobody can be told where the text has holes (lseek(2),
// SEEK_HOLE). The size that a reader sees is that of another moment, and the end of
// the text, where that is shorter, would look like a hole: to grep a sign of a
// binary file.
func (*textHandle) Lseek(context.Context, uint64, uint32) (uint64, syscall.Errno) {
	return 0, syscall.EINVAL
}
