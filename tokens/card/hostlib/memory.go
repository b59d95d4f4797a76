//go:build cgo

package hostlib

import (
	"encoding/binary"
	"errors"
	"runtime"
	"unsafe"

	"p11fs/secret"
)

// A memory is what a function of the library sees. Places in it are offsets until it stands
// where it stays.
type memory struct {
	b      []byte
	fixes  []int // places of addresses, which are offsets yet
	guards []int
}

// wordSize is the size of a number and of an address in C.
const wordSize = 8

// guard stands behind each place.
const guard = "\xa5p11fs library\x5a"

// errOverrun is what a library has done after which nothing in the process is to be trusted.
var errOverrun = errors.New("the library has written behind the memory that it was given")

// place makes a place of n bytes or more that begins with data. Of none it is not NULL.
func (m *memory) place(data []byte, n int) int {
	const align = 16
	n = max(n, len(data), 1)
	m.b = secret.Grow(m.b, n+len(guard)+align)
	for len(m.b)%align != 0 {
		m.b = append(m.b, 0)
	}
	at := len(m.b)
	m.b = append(m.b, data...)
	m.b = m.b[:at+n]
	clear(m.b[at+len(data):])
	m.guards = append(m.guards, len(m.b))
	m.b = append(m.b, guard...)
	return at
}

// words makes a place of numbers.
func (m *memory) words(list ...uint64) int {
	at := m.place(nil, wordSize*len(list))
	for i, n := range list {
		m.set(at+wordSize*i, n)
	}
	return at
}

func (m *memory) set(at int, n uint64) { binary.NativeEndian.PutUint64(m.b[at:], n) }
func (m *memory) get(at int) uint64    { return binary.NativeEndian.Uint64(m.b[at:]) }

// point has the word at a place be the address of another.
func (m *memory) point(at, to int) {
	m.set(at, uint64(to))
	m.fixes = append(m.fixes, at)
}

// use has f work with the memory, which does not move meanwhile.
func (m *memory) use(f func(base uint64)) error {
	var pin runtime.Pinner
	pin.Pin(&m.b[0])
	defer pin.Unpin()
	base := uint64(uintptr(unsafe.Pointer(&m.b[0])))
	for _, at := range m.fixes {
		m.set(at, base+m.get(at))
	}
	f(base)
	for _, at := range m.guards {
		if string(m.b[at:at+len(guard)]) != guard {
			return errOverrun
		}
	}
	return nil
}
