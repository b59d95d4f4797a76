//go:build cgo

package libcrypto

// #include <stdlib.h>
// #include "lib.h"
import "C"

import (
	"errors"
	"math/big"
	"runtime"
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
		return nil, l.failed("the import of a key")
	}
	return l.key(c), nil
}

// GenerateKey makes a new key.
func (l *Library) GenerateKey(kind string, params ...Param) (*Key, error) {
	name := C.CString(kind)
	defer C.free(unsafe.Pointer(name))
	ps := l.params(params)
	defer l.freeParams(ps)
	c := C.key_generate(l.c, name, ps)
	if c == nil {
		return nil, l.failed("the generation of a key")
	}
	return l.key(c), nil
}

// Data is a key's numbers by the names of libcrypto's parameters: bytes as they are,
// and numbers big-endian. The caller wipes what is secret.
func (k *Key) Data(selection int) (map[string][]byte, error) {
	defer runtime.KeepAlive(k)
	var ps *C.param
	if C.key_data(k.l.c, k.c, C.int(selection), &ps) <= 0 {
		return nil, k.l.failed("the export of a key")
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

// Check looks whether a public key is one of its group, as far as that is quick.
func (k *Key) Check() error {
	defer runtime.KeepAlive(k)
	if C.key_check(k.l.c, k.c) <= 0 {
		return k.l.failed("the check of a public key")
	}
	return nil
}

// call uses the key. out and secret give the room for what comes.
func (k *Key) call(use C.int, peer *Key, out, in, more, secret []byte, params []Param) (o, s []byte, err error) {
	defer runtime.KeepAlive(k)
	defer runtime.KeepAlive(peer)
	ps := k.l.params(params)
	defer k.l.freeParams(ps)
	var other unsafe.Pointer
	if peer != nil {
		other = peer.c
	}
	n, sn := C.size_t(len(out)), C.size_t(len(secret))
	if C.key_use(k.l.c, k.c, use, ps, other, pointer(out), &n, pointer(in), C.size_t(len(in)),
		pointer(more), C.size_t(len(more)), pointer(secret), &sn) <= 0 {
		return nil, nil, k.l.failed("the use of a key")
	}
	return out[:n], secret[:sn], nil
}

// Sign signs a digest, or what the padding mode takes. size is room for the signature.
func (k *Key) Sign(size int, tbs []byte, params ...Param) ([]byte, error) {
	out, _, err := k.call(C.USE_SIGN, nil, make([]byte, size), tbs, nil, nil, params)
	return out, err
}

// Verify returns an error unless sig is a signature of tbs.
func (k *Key) Verify(tbs, sig []byte, params ...Param) error {
	_, _, err := k.call(C.USE_VERIFY, nil, nil, tbs, sig, nil, params)
	return err
}

// Encrypt encrypts one message of at most a block.
func (k *Key) Encrypt(size int, msg []byte, params ...Param) ([]byte, error) {
	out, _, err := k.call(C.USE_ENCRYPT, nil, make([]byte, size), msg, nil, nil, params)
	return out, err
}

// Decrypt is the reverse.
func (k *Key) Decrypt(size int, ct []byte, params ...Param) ([]byte, error) {
	out, _, err := k.call(C.USE_DECRYPT, nil, make([]byte, size), ct, nil, nil, params)
	return out, err
}

// Derive agrees on a secret of at most size bytes with another's public key.
func (k *Key) Derive(size int, peer *Key, params ...Param) ([]byte, error) {
	out, _, err := k.call(C.USE_DERIVE, peer, make([]byte, size), nil, nil, nil, params)
	return out, err
}

// Encapsulate makes a secret and its ciphertext.
func (k *Key) Encapsulate(ciphertext, secret int, params ...Param) (ct, s []byte, err error) {
	return k.call(C.USE_ENCAPSULATE, nil, make([]byte, ciphertext), nil, nil, make([]byte, secret), params)
}

// Decapsulate is the reverse.
func (k *Key) Decapsulate(secret int, ct []byte, params ...Param) ([]byte, error) {
	_, s, err := k.call(C.USE_DECAPSULATE, nil, nil, ct, nil, make([]byte, secret), params)
	return s, err
}

// SignMessage signs a whole message, with the digest of that name or with none, for
// what digests by itself.
func (k *Key) SignMessage(size int, digest string, msg []byte, params ...Param) ([]byte, error) {
	sig := make([]byte, size)
	n := C.size_t(size)
	if !k.message(digest, true, sig, &n, msg, params) {
		return nil, k.l.failed("a signature")
	}
	return sig[:n], nil
}

// ErrSignature is the answer where a signature does not fit.
var ErrSignature = errors.New("libcrypto: the signature does not fit")

// VerifyMessage returns an error unless sig is a signature of msg.
func (k *Key) VerifyMessage(digest string, msg, sig []byte, params ...Param) error {
	n := C.size_t(len(sig))
	if !k.message(digest, false, sig, &n, msg, params) {
		k.l.failed("") // takes the error off the thread
		return ErrSignature
	}
	return nil
}

func (k *Key) message(digest string, sign bool, sig []byte, n *C.size_t, msg []byte, params []Param) bool {
	defer runtime.KeepAlive(k)
	ps := k.l.params(params)
	defer k.l.freeParams(ps)
	var md *C.char
	if digest != "" {
		md = C.CString(digest)
		defer C.free(unsafe.Pointer(md))
	}
	direction := C.int(0)
	if sign {
		direction = 1
	}
	return C.key_message(k.l.c, k.c, md, direction, ps, pointer(sig), n, pointer(msg), C.size_t(len(msg))) > 0
}

// BigInt is a number of Data.
func BigInt(data map[string][]byte, name string) *big.Int { return new(big.Int).SetBytes(data[name]) }
