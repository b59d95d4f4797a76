//go:build cgo

package module

// #cgo CFLAGS: -I${SRCDIR}/../../cmd/libp11fs/src
// #cgo LDFLAGS: -ldl
// #include <stdlib.h>
// #include "lib.h"
import "C"

import (
	"bytes"
	"fmt"
	"runtime"
	"unsafe"

	"p11fs/p11"
	"p11fs/secret"
)

// loaded is a module that was loaded. It stays loaded.
type loaded struct{ f *C.CK_FUNCTION_LIST }

func load(path string) (calls, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	runtime.LockOSThread() // whose error it is
	defer runtime.UnlockOSThread()
	var f *C.CK_FUNCTION_LIST
	if why := C.module_load(name, &f); why != nil {
		return nil, fmt.Errorf("%s is no PKCS#11 module that can be loaded: %s", path, C.GoString(why))
	}
	return &loaded{f}, nil
}

func rv(v C.CK_RV) error { return p11.RV(v).Err() }

// first is the address of bytes, which may be none.
func first(b []byte) *C.CK_BYTE { return (*C.CK_BYTE)(unsafe.Pointer(unsafe.SliceData(b))) }

func (l *loaded) initialize(parameters string) error {
	var p *C.char // which stays for as long as the module does
	if parameters != "" {
		p = C.CString(parameters)
	}
	return rv(C.module_initialize(l.f, p))
}

func (l *loaded) finalize() error { return rv(C.module_finalize(l.f)) }

func (l *loaded) slots() ([]p11.SlotID, error) {
	list := make([]C.CK_SLOT_ID, 1024)
	n := C.CK_ULONG(len(list))
	err := rv(C.module_slots(l.f, &list[0], &n))
	return numbers[p11.SlotID](list, n), err
}

func (l *loaded) mechanisms(s p11.SlotID) ([]p11.MechanismType, error) {
	list := make([]C.CK_MECHANISM_TYPE, 4096)
	n := C.CK_ULONG(len(list))
	err := rv(C.module_mechanisms(l.f, C.CK_SLOT_ID(s), &list[0], &n))
	return numbers[p11.MechanismType](list, n), err
}

func (l *loaded) token(s p11.SlotID) (p11.TokenInfo, error) {
	var i C.CK_TOKEN_INFO
	err := rv(C.module_token(l.f, C.CK_SLOT_ID(s), &i))
	text := func(b []byte) string { return string(bytes.TrimRight(b, " \x00")) }
	return p11.TokenInfo{
		Label:  text(C.GoBytes(unsafe.Pointer(&i.label), C.int(len(i.label)))),
		Serial: text(C.GoBytes(unsafe.Pointer(&i.serialNumber), C.int(len(i.serialNumber)))),
		Flags:  p11.Flags(i.flags),
	}, err
}

func (l *loaded) open(slot p11.SlotID) (p11.SessionHandle, error) {
	var s C.CK_SESSION_HANDLE
	err := rv(C.module_open(l.f, C.CK_SLOT_ID(slot), &s))
	return p11.SessionHandle(s), err
}

func (l *loaded) close(s p11.SessionHandle) error {
	return rv(C.module_close(l.f, C.CK_SESSION_HANDLE(s)))
}

func (l *loaded) login(s p11.SessionHandle, pin *secret.Bytes) (err error) {
	pin.Use(func(b []byte) {
		err = rv(C.module_login(l.f, C.CK_SESSION_HANDLE(s), first(b), C.CK_ULONG(len(b))))
	})
	return err
}

func (l *loaded) find(s p11.SessionHandle, most int) (list []p11.ObjectHandle, err error) {
	h := C.CK_SESSION_HANDLE(s)
	if err := rv(C.module_find(l.f, h)); err != nil {
		return nil, err
	}
	defer C.module_find_end(l.f, h)
	found := make([]C.CK_OBJECT_HANDLE, 256)
	for len(list) < most {
		var n C.CK_ULONG
		if err := rv(C.module_found(l.f, h, &found[0], C.CK_ULONG(len(found)), &n)); err != nil || n == 0 {
			return list, err
		}
		list = append(list, numbers[p11.ObjectHandle](found, n)...)
	}
	return list, nil
}

func (l *loaded) get(s p11.SessionHandle, o p11.ObjectHandle, t p11.AttributeType, most int) ([]byte, error) {
	var n C.CK_ULONG
	ask := func(to []byte) error {
		n = C.CK_ULONG(len(to))
		return rv(C.module_get(l.f, C.CK_SESSION_HANDLE(s), C.CK_OBJECT_HANDLE(o), C.CK_ATTRIBUTE_TYPE(t), first(to), &n))
	}
	return twice(ask, &n, most, t.Short())
}

// twice asks for a length, and then for so many bytes.
func twice(ask func(to []byte) error, n *C.CK_ULONG, most int, what string) ([]byte, error) {
	if err := ask(nil); err != nil {
		return nil, err
	}
	switch {
	case *n == 0:
		return []byte{}, nil
	case uint64(*n) > uint64(most):
		return nil, fmt.Errorf("%s has more than %d bytes", what, most)
	}
	b := make([]byte, *n)
	if err := ask(b); err != nil {
		secret.Wipe(b)
		return nil, err
	}
	return b[:min(uint64(*n), uint64(len(b)))], nil
}

func (l *loaded) bring(s p11.SessionHandle, value []byte) (p11.ObjectHandle, error) {
	var o C.CK_OBJECT_HANDLE
	err := rv(C.module_bring(l.f, C.CK_SESSION_HANDLE(s), first(value), C.CK_ULONG(len(value)), &o))
	return p11.ObjectHandle(o), err
}

func (l *loaded) generate(s p11.SessionHandle, n int) (p11.ObjectHandle, error) {
	var o C.CK_OBJECT_HANDLE
	err := rv(C.module_make(l.f, C.CK_SESSION_HANDLE(s), C.CK_ULONG(n), &o))
	return p11.ObjectHandle(o), err
}

func (l *loaded) destroy(s p11.SessionHandle, o p11.ObjectHandle) error {
	return rv(C.module_destroy(l.f, C.CK_SESSION_HANDLE(s), C.CK_OBJECT_HANDLE(o)))
}

func (l *loaded) wrap(s p11.SessionHandle, m p11.MechanismType, iv []byte, by, key p11.ObjectHandle, most int) ([]byte, error) {
	// The mechanism points to it: so it is not in Go's memory.
	v := C.CBytes(iv)
	defer C.free(v)
	var n C.CK_ULONG
	ask := func(to []byte) error {
		n = C.CK_ULONG(len(to))
		return rv(C.module_wrap(l.f, C.CK_SESSION_HANDLE(s), C.CK_MECHANISM_TYPE(m), (*C.CK_BYTE)(v), C.CK_ULONG(len(iv)), C.CK_OBJECT_HANDLE(by), C.CK_OBJECT_HANDLE(key), first(to), &n))
	}
	return twice(ask, &n, most, "the wrapped key")
}
