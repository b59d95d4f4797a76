//go:build cgo

// Package libcrypto is a thin binding of OpenSSL 3's libcrypto, which is loaded at run
// time: ciphers, MACs and keys by the names that EVP_CIPHER_fetch(3), EVP_MAC_fetch(3)
// and EVP_PKEY_CTX_new_from_name(3) take. What the machine's library does not have is
// an error of the fetch. A value is used by one goroutine at a time, but for Library,
// Cipher, MAC and Key.
package libcrypto

// #cgo LDFLAGS: -ldl
// #include <stdlib.h>
// #include "lib.h"
import "C"

import (
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"unsafe"

	"p11fs/secret"
)

// A Library is a libcrypto that was loaded. It stays loaded.
type Library struct {
	c *C.library

	mu      sync.Mutex
	fetched map[string]unsafe.Pointer // by name: that of a cipher is none of a MAC
}

// fetch returns what f fetches, for good: libcrypto's search takes longer than the use
// of what it finds.
func (l *Library) fetch(name string, f func(name *C.char) unsafe.Pointer) (unsafe.Pointer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.fetched[name]; p != nil {
		return p, nil
	}
	n := C.CString(name)
	defer C.free(unsafe.Pointer(n))
	p := f(n)
	if p == nil {
		return nil, failed("the fetch of " + name)
	}
	l.fetched[name] = p
	return p, nil
}

// Load loads the library of that file name, of version 3 or later.
func Load(file string) (*Library, error) {
	name := C.CString(file)
	defer C.free(unsafe.Pointer(name))
	l := &Library{c: (*C.library)(C.calloc(1, C.sizeof_library)), fetched: make(map[string]unsafe.Pointer)}
	if missing := C.library_load(l.c, name); missing != nil {
		defer C.free(unsafe.Pointer(l.c))
		return nil, fmt.Errorf("%s cannot be used: %s is missing", file, C.GoString(missing))
	}
	return l, nil
}

// Version is the library's own text of its version.
func (l *Library) Version() string { return C.GoString(C.library_version(l.c)) }

// failed is the error of what just failed. It does not say why: libcrypto keeps that for
// the thread, which the next call may not be on.
func failed(what string) error { return fmt.Errorf("libcrypto: %s failed", what) }

// A Param is a parameter, as OSSL_PARAM(3).
type Param struct {
	key  string
	kind C.uint
	data []byte
	size int // of data, which may be absent
}

// Text is a parameter of characters.
func Text(key, value string) Param { return Param{key, C.PARAM_TEXT, []byte(value), len(value)} }

// Octets is a parameter of bytes.
func Octets(key string, value []byte) Param { return Param{key, C.PARAM_OCTETS, value, len(value)} }

// Room is a parameter that tells a length in bytes alone, as that of a tag to come.
func Room(key string, n int) Param { return Param{key, C.PARAM_OCTETS, nil, n} }

// Number is a parameter that is a number.
func Number(key string, n uint64) Param { return Int(key, new(big.Int).SetUint64(n)) }

// Int is a parameter that is a number of any size, for one use: then it is wiped.
func Int(key string, n *big.Int) Param {
	size := max(8, (n.BitLen()+7)/8)
	return Param{key, C.PARAM_UNSIGNED, native(n.FillBytes(make([]byte, size))), size}
}

// native turns a number from big-endian to the machine's order or back, in place.
func native(b []byte) []byte {
	if one := uint16(1); *(*byte)(unsafe.Pointer(&one)) == 1 {
		slices.Reverse(b)
	}
	return b
}

// params has the list that libcrypto takes. The caller frees it. What Int made of a
// number is wiped: it may be secret.
func (l *Library) params(list []Param) *C.param {
	if len(list) == 0 {
		return nil
	}
	// C.malloc does not fail, nor does C.CString: Go ends the program then.
	ps := (*C.param)(C.malloc(C.size_t(len(list)+1) * C.sizeof_param))
	all := unsafe.Slice(ps, len(list)+1) // the last one is the end
	clear(all)
	for i, p := range list {
		all[i] = C.param{key: C.CString(p.key), data_type: p.kind, data_size: C.size_t(p.size), return_size: ^C.size_t(0)}
		if p.data == nil && p.size > 0 {
			continue
		}
		all[i].data = C.malloc(C.size_t(p.size) + 1)
		copied := unsafe.Slice((*byte)(all[i].data), p.size+1) // text ends in a zero
		copied[copy(copied, p.data)] = 0
		if p.kind == C.PARAM_UNSIGNED {
			secret.Wipe(p.data)
		}
	}
	return ps
}

func (l *Library) freeParams(ps *C.param) { C.params_free(l.c, ps) }

// pointer is what C takes for b. It is never nil where libcrypto would take nil for
// something else than no bytes.
func pointer(b []byte) *C.uchar {
	if len(b) == 0 {
		b = []byte{0}
	}
	return (*C.uchar)(unsafe.Pointer(unsafe.SliceData(b)))
}

var errTooLong = errors.New("libcrypto: more than 1 GiB at once")

const most = 1 << 30 // bytes in one call: libcrypto counts in a C int
