package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// FrameHeader is the length in bytes of a frame's header.
const FrameHeader = 12

// These say that a frame was read to its end and thrown away: the connection can
// go on.
var (
	ErrTooLong    = errors.New("frame too long")
	ErrNotAllowed = errors.New("no memory for the frame")
)

// ReadFrame reads one frame, reusing buf for the body if it is large enough;
// otherwise allow, which may be nil, says as the body arrives whether so many
// bytes more may be had. A frame that is too long, or not allowed, is read and
// dropped, with its code and ErrTooLong or ErrNotAllowed. io.EOF says that the
// client closed between frames.
func ReadFrame(r *bufio.Reader, buf []byte, allow func(bytes int) bool) (code uint32, body []byte, err error) {
	var h [FrameHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	code = binary.BigEndian.Uint32(h[0:])
	options, length := binary.BigEndian.Uint32(h[4:]), binary.BigEndian.Uint32(h[8:])
	if options > MaxOptions || length > MaxBody {
		if _, err := io.CopyN(io.Discard, r, int64(options)+int64(length)); err != nil {
			return 0, nil, unexpected(err)
		}
		return code, nil, ErrTooLong
	}
	if _, err := r.Discard(int(options)); err != nil {
		return 0, nil, unexpected(err)
	}
	body, err = readBody(r, buf, int(length), allow)
	return code, body, unexpected(err)
}

// readBody grows with what arrives, so that a header alone cannot make the
// server allocate what it announces.
func readBody(r io.Reader, buf []byte, length int, allow func(int) bool) ([]byte, error) {
	const step = 256 << 10
	if length <= cap(buf) {
		buf = buf[:length]
		_, err := io.ReadFull(r, buf)
		return buf, err
	}
	buf = buf[:0]
	for len(buf) < length {
		n := min(length-len(buf), max(step, len(buf)))
		at := len(buf)
		if allow != nil && !allow(n) {
			if _, err := io.CopyN(io.Discard, r, int64(length-at)); err != nil {
				return nil, err
			}
			return nil, ErrNotAllowed
		}
		buf = append(buf, make([]byte, n)...)
		if _, err := io.ReadFull(r, buf[at:]); err != nil {
			return nil, err
		}
	}
	return buf, nil
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
