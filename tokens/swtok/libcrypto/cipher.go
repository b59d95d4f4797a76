//go:build cgo

package libcrypto

// #include <stdlib.h>
// #include "lib.h"
//
// // None of these calls Go, nor keeps what it is given: so that needs no memory of its own.
// #cgo noescape cipher_begin
// #cgo nocallback cipher_begin
// #cgo noescape cipher_update
// #cgo nocallback cipher_update
// #cgo noescape cipher_seal
// #cgo nocallback cipher_seal
// #cgo noescape cipher_check
// #cgo nocallback cipher_check
import "C"

import (
	"runtime"
	"sync/atomic"
	"unsafe"

	"p11fs/secret"
)

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
	l     *Library
	ctx   unsafe.Pointer
	keyed *Keyed // which the context serves again after Close; nil if it does not
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
	return &Stream{c.l, ctx, nil}, nil
}

// A Keyed is a cipher with a key, of which uses begin that then need not work on the
// key. Its memory is the library's own, which wipes it once it cannot be reached.
type Keyed struct {
	l *Library
	*contexts
}

// contexts are a context with the key alone, and one that has served a use and may serve
// the next: it knows no more than the key, and where that use ended.
type contexts struct {
	ctx, spare unsafe.Pointer // spare is taken and given atomically
}

// Keyed gives the cipher a key, to encrypt or to decrypt, and parameters that stay.
func (c *Cipher) Keyed(key []byte, encrypt bool, params ...Param) (*Keyed, error) {
	s, err := c.New(key, nil, encrypt, params...)
	if err != nil {
		return nil, err
	}
	k := &Keyed{s.l, &contexts{ctx: s.ctx}}
	runtime.AddCleanup(k, func(own *contexts) {
		C.cipher_free(c.l.c, own.ctx)
		C.cipher_free(c.l.c, own.spare)
	}, k.contexts)
	return k, nil
}

// New begins a use, with an iv.
func (k *Keyed) New(iv []byte, params ...Param) (*Stream, error) {
	s := &Stream{l: k.l}
	var ps *C.param
	var spare unsafe.Pointer
	if len(params) > 0 { // which would stay with a context
		ps = k.l.params(params)
		defer k.l.freeParams(ps)
	} else {
		s.keyed = k
		spare = atomic.SwapPointer(&k.spare, nil)
	}
	s.ctx = C.cipher_begin(k.l.c, k.ctx, spare, pointer(iv), ps)
	runtime.KeepAlive(k)
	if s.ctx == nil {
		return nil, failed("a cipher's start")
	}
	return s, nil
}

// Copy is another use in the same state. Not every mode of every library has it.
func (s *Stream) Copy() (*Stream, error) {
	ctx := C.cipher_copy(s.l.c, s.ctx)
	if ctx == nil {
		return nil, failed("the copy of a cipher")
	}
	return &Stream{s.l, ctx, nil}, nil
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
	out := secret.Grow(dst, room)[:len(dst)+room]
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
	out := secret.Grow(dst, 32)[:len(dst)+32]
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

// Seal ends what was encrypted, and is its tag, of as many bytes as there are.
func (s *Stream) Seal(tag []byte) error {
	if C.cipher_seal(s.l.c, s.ctx, pointer(tag), C.size_t(len(tag))) <= 0 {
		return failed("a cipher's tag")
	}
	return nil
}

// Check ends what was decrypted, and says whether its tag is that.
func (s *Stream) Check(tag []byte) bool {
	return C.cipher_check(s.l.c, s.ctx, pointer(tag), C.size_t(len(tag))) > 0
}

// Close ends the stream, and wipes what the library keeps of it, unless its Keyed keeps
// it: what that has of the message, the key and the ciphertext tell too. It may be called
// again.
func (s *Stream) Close() {
	if s.ctx != nil && (s.keyed == nil || !atomic.CompareAndSwapPointer(&s.keyed.spare, nil, s.ctx)) {
		C.cipher_free(s.l.c, s.ctx)
	}
	s.ctx, s.keyed = nil, nil
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
