package desk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Device is where a TPM is: the path of a character device, or "unix:PATH" or
// "tcp:HOST:PORT" of the data socket of a software TPM.
type Device string

// Check returns what is wrong with how the device is written.
func (d Device) Check() error {
	kind, address, ok := strings.Cut(string(d), ":")
	switch {
	case strings.HasPrefix(string(d), "/"):
		return nil
	case ok && kind == "unix" && strings.HasPrefix(address, "/"):
		return nil
	case ok && kind == "tcp":
		if _, _, err := net.SplitHostPort(address); err == nil {
			return nil
		}
	}
	return fmt.Errorf("a TPM is the path of a device, unix:/PATH or tcp:HOST:PORT, not %q", string(d))
}

// Bounds of a response: a header, and more than any TPM has.
const (
	// HeaderSize is that of the header of a command and of a response.
	HeaderSize  = 10
	maxResponse = 1 << 16
)

// dialTime bounds how long a software TPM may take to accept.
const dialTime = 2 * time.Second

// open opens the device.
func (d Device) open(ctx context.Context) (Link, error) {
	if err := d.Check(); err != nil {
		return nil, err
	}
	if strings.HasPrefix(string(d), "/") {
		fd, err := unix.Open(string(d), unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d, err)
		}
		return fileLink(fd), nil
	}
	network, address, _ := strings.Cut(string(d), ":")
	dialer := net.Dialer{Timeout: dialTime}
	c, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return socketLink{c}, nil
}

// ResponseSize is the size that the header of a response says.
func ResponseSize(header []byte) (int, error) {
	n := binary.BigEndian.Uint32(header[2:])
	if n < HeaderSize || n > maxResponse {
		return 0, fmt.Errorf("the TPM says that its response has %d bytes", n)
	}
	return int(n), nil
}

// A socketLink is that of a software TPM, whose responses may come in pieces.
type socketLink struct{ c net.Conn }

// Exchange is Link's.
func (l socketLink) Exchange(command []byte, patience time.Duration) ([]byte, error) {
	_ = l.c.SetDeadline(time.Now().Add(patience))
	if _, err := l.c.Write(command); err != nil {
		return nil, err
	}
	header := make([]byte, HeaderSize)
	if _, err := io.ReadFull(l.c, header); err != nil {
		return nil, err
	}
	n, err := ResponseSize(header)
	if err != nil {
		return nil, err
	}
	response := make([]byte, n)
	copy(response, header)
	_, err = io.ReadFull(l.c, response[HeaderSize:])
	return response, err
}

// Close is Link's.
func (l socketLink) Close() { _ = l.c.Close() }

// A fileLink is the descriptor of a character device, which gives a response to one
// read. It does not block, so that a TPM that hangs does not hang us.
type fileLink int

// Exchange is Link's.
func (l fileLink) Exchange(command []byte, patience time.Duration) ([]byte, error) {
	if n, err := unix.Write(int(l), command); err != nil || n != len(command) {
		return nil, fmt.Errorf("write %d of %d bytes: %w", n, len(command), err)
	}
	end := time.Now().Add(patience)
	for {
		left := time.Until(end)
		if left <= 0 {
			return nil, ErrSilent
		}
		fds := []unix.PollFd{{Fd: int32(l), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, int(left/time.Millisecond)+1); err != nil && !errors.Is(err, unix.EINTR) {
			return nil, err
		}
		if fds[0].Revents != 0 {
			break
		}
	}
	response := make([]byte, maxResponse)
	n, err := unix.Read(int(l), response)
	if err != nil {
		return nil, err
	}
	if n < HeaderSize {
		return nil, fmt.Errorf("a response of %d bytes", n)
	}
	size, err := ResponseSize(response)
	if err == nil && size != n {
		err = fmt.Errorf("a response of %d bytes says that it has %d", n, size)
	}
	return response[:n], err
}

// Close is Link's.
func (l fileLink) Close() { _ = unix.Close(int(l)) }
