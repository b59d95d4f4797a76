//go:build cgo

package libcrypto

// #include <stdlib.h>
// #include "lib.h"
import "C"

import (
	"context"
	"runtime"
	"sync/atomic"
	"unsafe"
)

// A Key is a key of libcrypto's (EVP_PKEY), or a half of one. Its memory is the
// library's own, which wipes it once the key cannot be reached.
type Key struct {
	l *Library
	c unsafe.Pointer
}

// What of a key is given or asked for (EVP_PKEY_fromdata(3)).
const (
	Parameters = 0x84
	Public     = Parameters | 0x02
	Pair       = Public | 0x01
)

func (l *Library) key(c unsafe.Pointer) *Key {
	k := &Key{l, c}
	runtime.AddCleanup(k, func(c unsafe.Pointer) { C.key_free(l.c, c) }, c)
	return k
}

// NewKey makes a key of its numbers. kind is a name such as RSA, EC, ED25519.
func (l *Library) NewKey(kind string, selection int, params ...Param) (*Key, error) {
	name := C.CString(kind)
	defer C.free(unsafe.Pointer(name))
	ps := l.params(params)
	defer l.freeParams(ps)
	c := C.key_make(l.c, name, C.int(selection), ps)
	if c == nil {
		return nil, failed("the import of a key")
	}
	return l.key(c), nil
}

// GenerateKey makes a new key.
func (l *Library) GenerateKey(kind string, params ...Param) (*Key, error) {
	return l.GenerateKeyUntil(context.Background(), kind, params...)
}

// GenerateKeyUntil is GenerateKey for what takes long: it fails, soon, once ctx is done.
func (l *Library) GenerateKeyUntil(ctx context.Context, kind string, params ...Param) (*Key, error) {
	return l.generate(ctx, kind, false, params)
}

// GenerateParametersUntil makes a key without values: its domain parameters alone.
func (l *Library) GenerateParametersUntil(ctx context.Context, kind string, params ...Param) (*Key, error) {
	return l.generate(ctx, kind, true, params)
}

func (l *Library) generate(ctx context.Context, kind string, bare bool, params []Param) (*Key, error) {
	parameters := C.int(0)
	if bare {
		parameters = 1
	}
	name := C.CString(kind)
	defer C.free(unsafe.Pointer(name))
	ps := l.params(params)
	defer l.freeParams(ps)
	stop := (*int32)(C.calloc(1, C.sizeof_int)) // not Go's, as C reads it meanwhile
	defer C.free(unsafe.Pointer(stop))
	stopped := make(chan struct{})
	unset := context.AfterFunc(ctx, func() {
		atomic.StoreInt32(stop, 1)
		close(stopped)
	})
	c := C.key_generate(l.c, name, parameters, ps, (*C.int)(unsafe.Pointer(stop)))
	if !unset() {
		<-stopped
	}
	if c == nil {
		return nil, failed("the generation of a key")
	}
	return l.key(c), nil
}

// Data is a key's numbers by the names of libcrypto's parameters: bytes as they are,
// and numbers big-endian. The caller wipes what is secret.
func (k *Key) Data(selection int) (map[string][]byte, error) {
	defer runtime.KeepAlive(k)
	var ps *C.param
	if C.key_data(k.l.c, k.c, C.int(selection), &ps) <= 0 {
		return nil, failed("the export of a key")
	}
	defer C.key_data_free(k.l.c, ps)
	data := make(map[string][]byte)
	for p := ps; p.key != nil; p = (*C.param)(unsafe.Add(unsafe.Pointer(p), C.sizeof_param)) {
		b := C.GoBytes(p.data, C.int(p.data_size))
		if p.data_type == C.PARAM_UNSIGNED {
			native(b)
		}
		data[C.GoString(p.key)] = b
	}
	return data, nil
}

// call uses the key. out is the room for what comes.
func (k *Key) call(use C.int, peer *Key, out, in, signature []byte, params []Param) ([]byte, error) {
	defer runtime.KeepAlive(k)
	defer runtime.KeepAlive(peer)
	ps := k.l.params(params)
	defer k.l.freeParams(ps)
	var other unsafe.Pointer
	if peer != nil {
		other = peer.c
	}
	n := C.size_t(len(out))
	if C.key_use(k.l.c, k.c, use, ps, other, pointer(out), &n, pointer(in), C.size_t(len(in)),
		pointer(signature), C.size_t(len(signature))) <= 0 {
		return nil, failed("the use of a key")
	}
	return out[:n], nil
}

// Sign signs a digest, or what the padding mode takes. size is room for the signature.
func (k *Key) Sign(size int, tbs []byte, params ...Param) ([]byte, error) {
	return k.call(C.USE_SIGN, nil, make([]byte, size), tbs, nil, params)
}

// Verify returns an error unless sig is a signature of tbs.
func (k *Key) Verify(tbs, sig []byte, params ...Param) error {
	_, err := k.call(C.USE_VERIFY, nil, nil, tbs, sig, params)
	return err
}

// Encrypt encrypts one message of at most a block.
func (k *Key) Encrypt(size int, msg []byte, params ...Param) ([]byte, error) {
	return k.call(C.USE_ENCRYPT, nil, make([]byte, size), msg, nil, params)
}

// Decrypt is the reverse.
func (k *Key) Decrypt(size int, ct []byte, params ...Param) ([]byte, error) {
	return k.call(C.USE_DECRYPT, nil, make([]byte, size), ct, nil, params)
}

// Derive agrees on a secret of at most size bytes with another's public key.
func (k *Key) Derive(size int, peer *Key, params ...Param) ([]byte, error) {
	return k.call(C.USE_DERIVE, peer, make([]byte, size), nil, nil, params)
}
