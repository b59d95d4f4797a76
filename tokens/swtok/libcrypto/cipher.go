//go:build cgo

package libcrypto

// #include <stdlib.h>
// #include "lib.h"
import "C"

import "unsafe"

// A Cipher is an algorithm and mode, such as AES-256-GCM.
type Cipher struct {
	l *Library
	c unsafe.Pointer
}

// Cipher fetches a cipher.
func (l *Library) Cipher(name string) (*Cipher, error) {
	c, err := l.fetch(name, func(n *C.char) unsafe.Pointer { return C.cipher_fetch(l.c, n) })
	return &Cipher{l, c}, err
}

// A Stream is one use of a cipher with a key. Close ends it.
type Stream struct {
	l   *Library
	ctx unsafe.Pointer
}

// New begins to encrypt or decrypt. iv may be nil, for a mode that has none.
func (c *Cipher) New(key, iv []byte, encrypt bool, params ...Param) (*Stream, error) {
	ps := c.l.params(params)
	defer c.l.freeParams(ps)
	direction := C.int(0)
	if encrypt {
		direction = 1
	}
	var v *C.uchar
	if iv != nil {
		v = pointer(iv)
	}
	ctx := C.cipher_new(c.l.c, c.c, pointer(key), v, direction, ps)
	if ctx == nil {
		return nil, failed("a cipher's start")
	}
	return &Stream{c.l, ctx}, nil
}

// Associate takes data that is authenticated and not encrypted, before the message.
func (s *Stream) Associate(data []byte) error {
	var n C.int
	if len(data) > most {
		return errTooLong
	}
	if C.cipher_update(s.l.c, s.ctx, nil, &n, pointer(data), C.int(len(data))) <= 0 {
		return failed("a cipher's associated data")
	}
	return nil
}

// Announce tells the length of the message, which CCM must know before all else.
func (s *Stream) Announce(n int) error {
	var out C.int
	if n > most {
		return errTooLong
	}
	if C.cipher_update(s.l.c, s.ctx, nil, &out, nil, C.int(n)) <= 0 {
		return failed("a cipher's length")
	}
	return nil
}

// Update appends what part gives to dst, whose room for a block more than part it
// uses. dst may begin where part does, for a mode that gives a byte for a byte.
func (s *Stream) Update(dst, part []byte) ([]byte, error) {
	if len(part) > most {
		return dst, errTooLong
	}
	room := len(part) + 32
	out := grow(dst, room)
	var n C.int
	if C.cipher_update(s.l.c, s.ctx, pointer(out[len(dst):]), &n, pointer(part), C.int(len(part))) <= 0 {
		return dst, failed("a cipher")
	}
	return out[:len(dst)+int(n)], nil
}

// Crypt is Update of what gives a byte for a byte: a stream, or whole blocks without
// padding. dst may be part.
func (s *Stream) Crypt(dst, part []byte) error {
	for len(part) > 0 {
		n := min(len(part), most)
		var out C.int
		if C.cipher_update(s.l.c, s.ctx, pointer(dst), &out, pointer(part), C.int(n)) <= 0 {
			return failed("a cipher")
		}
		dst, part = dst[n:], part[n:]
	}
	return nil
}

// Final appends the rest of the message to dst. It fails where padding or a tag does
// not fit.
func (s *Stream) Final(dst []byte) ([]byte, error) {
	out := grow(dst, 32)
	var n C.int
	if C.cipher_final(s.l.c, s.ctx, pointer(out[len(dst):]), &n) <= 0 {
		return dst, failed("a cipher's end")
	}
	return out[:len(dst)+int(n)], nil
}

// Tag is the tag of n bytes of what was encrypted.
func (s *Stream) Tag(n int) ([]byte, error) {
	tag := make([]byte, n)
	if C.cipher_tag(s.l.c, s.ctx, pointer(tag), C.size_t(n)) <= 0 {
		return nil, failed("a cipher's tag")
	}
	return tag, nil
}

// Close ends the stream, and wipes what the library keeps of it. It may be called
// again.
func (s *Stream) Close() {
	C.cipher_free(s.l.c, s.ctx)
	s.ctx = nil
}

// grow is dst with room for n bytes behind it. What it was in is wiped.
func grow(dst []byte, n int) []byte {
	if cap(dst)-len(dst) >= n {
		return dst[:len(dst)+n]
	}
	out := make([]byte, len(dst)+n)
	copy(out, dst)
	wipe(dst)
	return out
}

// A MAC is an algorithm of message authentication, such as CMAC.
type MAC struct {
	l *Library
	c unsafe.Pointer
}

// MAC fetches an algorithm.
func (l *Library) MAC(name string) (*MAC, error) {
	c, err := l.fetch(name, func(n *C.char) unsafe.Pointer { return C.mac_fetch(l.c, n) })
	return &MAC{l, c}, err
}

// A MACState is one use of a MAC with a key. Close ends it.
type MACState struct {
	l   *Library
	ctx unsafe.Pointer
}

// New begins a message.
func (m *MAC) New(key []byte, params ...Param) (*MACState, error) {
	ps := m.l.params(params)
	defer m.l.freeParams(ps)
	ctx := C.mac_new(m.l.c, m.c, pointer(key), C.size_t(len(key)), ps)
	if ctx == nil {
		return nil, failed("a MAC's start")
	}
	return &MACState{m.l, ctx}, nil
}

// Update takes a part of the message.
func (s *MACState) Update(part []byte) error {
	if C.mac_update(s.l.c, s.ctx, pointer(part), C.size_t(len(part))) <= 0 {
		return failed("a MAC")
	}
	return nil
}

// Result is the MAC of the message so far, which may go on.
func (s *MACState) Result() ([]byte, error) {
	ctx := C.mac_copy(s.l.c, s.ctx)
	if ctx == nil {
		return nil, failed("the copy of a MAC")
	}
	defer C.mac_free(s.l.c, ctx)
	out := make([]byte, 64)
	n := C.size_t(len(out))
	if C.mac_final(s.l.c, ctx, pointer(out), &n) <= 0 {
		return nil, failed("a MAC's end")
	}
	return out[:n], nil
}

// Close ends the use. It may be called again.
func (s *MACState) Close() {
	C.mac_free(s.l.c, s.ctx)
	s.ctx = nil
}
