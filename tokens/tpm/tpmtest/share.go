package tpmtest

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
)

// Share is the path of another socket, where several programs have the TPM at once: one
// command at a time, as a resource manager without any swapping does. A software TPM
// speaks to one of them, and so does the kernel's device of a TPM 1.2. Their keys and
// sessions take each other's room.
func (s *TPM) Share(t testing.TB) string {
	t.Helper()
	path := filepath.Join(s.dir, "shared")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	h := &hub{socket: s.Socket()}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() { h.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		h.close()
		served.Wait()
	})
	return path
}

// A hub carries the commands of its clients.
type hub struct {
	socket string

	mu      sync.Mutex // guards what follows, and is held over a command
	tpm     net.Conn   // nil: to be opened
	clients []net.Conn
	closed  bool
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if h.tpm != nil {
		_ = h.tpm.Close()
	}
	for _, c := range h.clients {
		_ = c.Close()
	}
}

// serve does the commands of a client, until one of both ends.
func (h *hub) serve(c net.Conn) {
	defer c.Close()
	h.mu.Lock()
	h.clients = append(h.clients, c)
	over := h.closed
	h.mu.Unlock()
	for !over {
		command, err := frame(c)
		if err != nil {
			return
		}
		answer, err := h.exchange(command)
		if err != nil {
			return
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

func (h *hub) exchange(command []byte) (answer []byte, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, net.ErrClosed
	}
	if h.tpm == nil {
		if h.tpm, err = net.Dial("unix", h.socket); err != nil {
			return nil, err
		}
	}
	if _, err = h.tpm.Write(command); err == nil {
		answer, err = frame(h.tpm)
	}
	if err != nil { // it was killed, and may be run again
		_ = h.tpm.Close()
		h.tpm = nil
	}
	return answer, err
}

// frame reads a command or a response: a tag, its whole length, and the rest.
func frame(r io.Reader) ([]byte, error) {
	head := make([]byte, 10)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[2:])
	if n < 10 || n > 1<<16 {
		return nil, fmt.Errorf("a frame of %d bytes", n)
	}
	b := make([]byte, n)
	copy(b, head)
	_, err := io.ReadFull(r, b[10:])
	return b, err
}
