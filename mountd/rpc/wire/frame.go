package wire

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"p11fs/secret"
)

// FrameHeader is the length in bytes of a frame's header.
const FrameHeader = 12

// These say that a frame was read to its end and thrown away: the connection can
// go on.
var (
	ErrTooLong    = errors.New("frame too long")
	ErrNotAllowed = errors.New("no memory for the frame")
)

// Memory is what bodies are read into that do not fit the buffer given. nil has no
// limit.
type Memory struct {
	// Allow says as a body arrives whether so many bytes more may be had.
	Allow func(bytes int) bool
	Parts *Parts
	// Skip reads so many bytes of what the frame comes from, and throws them away. Without
	// it that takes memory, also while they do not come.
	Skip func(n int64) error
}

// Parts are memory for the beginnings of long bodies, which is used again. The zero
// value is none yet; any number of readers may share it.
type Parts struct{ free sync.Pool }

type part [256 << 10]byte

func (m *Memory) allow(n int) bool { return m == nil || m.Allow(n) }

func (m *Memory) part() *part {
	if m != nil {
		if p, ok := m.Parts.free.Get().(*part); ok {
			return p
		}
	}
	return new(part)
}

func (m *Memory) giveBack(p *part) {
	if m != nil {
		m.Parts.free.Put(p)
	}
}

// ReadFrame reads one frame, reusing buf for the body if it is large enough, and
// otherwise m. A frame that is too long, or not allowed, is read and
// dropped, with its code and ErrTooLong or ErrNotAllowed. io.EOF says that the
// client closed between frames.
func ReadFrame(r *bufio.Reader, buf []byte, m *Memory) (code uint32, body []byte, err error) {
	var h [FrameHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	code = binary.BigEndian.Uint32(h[0:])
	options, length := binary.BigEndian.Uint32(h[4:]), binary.BigEndian.Uint32(h[8:])
	if options > MaxOptions || length > MaxBody {
		return code, nil, unexpected(m.drop(r, int64(options)+int64(length), ErrTooLong))
	}
	if _, err := r.Discard(int(options)); err != nil {
		return 0, nil, unexpected(err)
	}
	body, err = readBody(r, buf, int(length), m)
	return code, body, unexpected(err)
}

// readBody takes memory as the body arrives, so that a header alone cannot make the
// server allocate what it announces. Up to its half a long one is in parts: one that is
// never sent whole costs no more than to read it.
func readBody(r *bufio.Reader, buf []byte, length int, m *Memory) (body []byte, err error) {
	if length <= cap(buf) {
		buf = buf[:length]
		_, err := io.ReadFull(r, buf)
		return buf, err
	}
	var begun []*part
	defer func() {
		for _, p := range begun {
			secret.Wipe(p[:])
			m.giveBack(p)
		}
	}()
	at := 0
	for ; at+len(part{}) <= length/2; at += len(part{}) {
		p := m.part()
		if !m.allow(len(p)) {
			m.giveBack(p)
			return nil, m.drop(r, int64(length-at), ErrNotAllowed)
		}
		begun = append(begun, p)
		if _, err := io.ReadFull(r, p[:]); err != nil {
			return nil, err
		}
	}
	if !m.allow(length - at) {
		return nil, m.drop(r, int64(length-at), ErrNotAllowed)
	}
	body = make([]byte, length)
	for i, p := range begun {
		copy(body[i*len(p):], p[:])
	}
	_, err = io.ReadFull(r, body[at:])
	return body, err
}

// LongRead is how much of a frame that is refused is read at once, while there is so much
// of it.
const LongRead = 64 << 10

// drop reads what is left of a frame that is refused, and returns why it is.
func (m *Memory) drop(r *bufio.Reader, n int64, why error) error {
	if m != nil && m.Skip != nil {
		here, err := r.Discard(int(min(n, int64(r.Buffered()))))
		if n -= int64(here); err == nil && n > 0 {
			err = m.Skip(n)
		}
		return cmp.Or(err, why)
	}
	b := make([]byte, min(n, LongRead))
	defer secret.Wipe(b)
	for n > 0 {
		got, err := r.Read(b[:min(n, LongRead)])
		if n -= int64(got); err != nil && n > 0 {
			return err
		}
	}
	return why
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// AppendFrame begins a frame with code in b and returns what EndFrame needs.
func AppendFrame(b []byte, code uint32, options string) (out []byte, start int) {
	start = len(b)
	b = binary.BigEndian.AppendUint32(b, code)
	b = binary.BigEndian.AppendUint32(b, uint32(len(options)))
	b = binary.BigEndian.AppendUint32(b, 0)
	return append(b, options...), start
}

// EndFrame fills in the body's length of the frame that begins at start.
func EndFrame(b []byte, start int) error {
	options := binary.BigEndian.Uint32(b[start+4:])
	body := len(b) - start - FrameHeader - int(options)
	if body < 0 || uint64(body) > 0x7fffffff {
		return fmt.Errorf("a body of %d bytes does not fit a frame", body)
	}
	binary.BigEndian.PutUint32(b[start+8:], uint32(body))
	return nil
}
