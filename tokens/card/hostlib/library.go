//go:build cgo

package hostlib

// #cgo LDFLAGS: -ldl
// #include <stdlib.h>
// #include "lib.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"unsafe"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/card"
	"p11fs/tokens/card/ep11"
)

// most is how many calls the library answers at once.
const most = 16

// A library is one that was loaded. It stays loaded.
type library struct {
	abi       card.ABI
	log       *slog.Logger
	failed    func(error)
	functions map[string]unsafe.Pointer
	targets   targets
	seats     chan struct{} // of the calls in progress

	mu   sync.Mutex // guards all below; nothing is locked under it
	dead error      // why it is not called any more
}

// symbols are the names of functions that are looked for: those of the table, with what
// other versions call them, and what is no call of a card.
func symbols(abi card.ABI) (list [][]string) {
	for _, f := range card.Functions(abi) {
		names := []string{f.Name}
		if f.Name == "m_get_xcp_info" {
			names = append(names, "m_get_ep11_info")
		}
		list = append(list, names)
	}
	if abi == card.EP11 {
		return append(list, []string{"m_init"}, []string{"m_shutdown"}, []string{"m_add_module"}, []string{"m_rm_module"},
			[]string{"xcpa_cmdblock", "ep11a_cmdblock"}, []string{"xcpa_queryblock"}, []string{"xcpa_internal_rv", "ep11a_internal_rv"})
	}
	return append(list, []string{"CSUACRA"}, []string{"CSUACRD"})
}

// Load loads the host library of an ABI. file is its path, or a name that the linker looks
// up. Once it has done what it must not, no call of it is answered and failed is called: the
// process should end then.
func Load(abi card.ABI, file string, log *slog.Logger, failed func(error)) (card.Transport, error) {
	name := C.CString(file)
	defer C.free(unsafe.Pointer(name))
	var why *C.char
	handle := C.lib_open(name, &why)
	if handle == nil {
		return nil, fmt.Errorf("the library cannot be loaded: %s", C.GoString(why))
	}
	l := &library{abi: abi, log: log, failed: failed, functions: make(map[string]unsafe.Pointer), seats: make(chan struct{}, most)}
	l.targets.numbers = make(map[string]uint64)
	for _, names := range symbols(abi) {
		for _, one := range names {
			s := C.CString(one)
			if p := C.lib_symbol(handle, s); p != nil && l.functions[names[0]] == nil {
				l.functions[names[0]] = p
			}
			C.free(unsafe.Pointer(s))
		}
	}
	needed := map[card.ABI]string{card.EP11: "m_GenerateRandom", card.CCA: "CSUACFQ"}[abi]
	if l.functions[needed] == nil {
		return nil, fmt.Errorf("%s is no host library of %v cards: it has no %s", file, abi, needed)
	}
	if f := l.functions["m_init"]; f != nil {
		if n := int32(call(f)); n < 0 {
			return nil, fmt.Errorf("the library finds no card: m_init gives %d", n)
		}
	}
	return l, nil
}

// call calls a function of the library.
func call(f unsafe.Pointer, args ...uint64) uint64 {
	var a [C.MOST]C.uint64_t
	for i, n := range args {
		a[i] = C.uint64_t(n)
	}
	return uint64(C.lib_call(f, &a[0]))
}

// errClosed is of a library that was closed.
var errClosed = errors.New("the library was closed")

// Call is card.Transport's. The end of ctx does not end the function, whose answer nobody
// gets then.
func (l *library) Call(ctx context.Context, c *card.Call) error {
	if c.AnyOrder() != card.NativeOrder() {
		c.Return = nobody(c) // what a card makes of bytes has this machine's order
		return nil
	}
	function := l.functions[c.Function.Name]
	if function == nil {
		c.Return = absent(c)
		return nil
	}
	if c.Function.ABI == card.EP11 && c.Function.Number == ep11.FnAdmin {
		if l.functions["xcpa_cmdblock"] == nil || l.functions["xcpa_internal_rv"] == nil {
			c.Return = absent(c)
			return nil
		}
		return l.admin(c, func(c *card.Call) error { return l.answer(ctx, c, function) })
	}
	return l.answer(ctx, c, function)
}

// answer makes a call of a function.
func (l *library) answer(ctx context.Context, c *card.Call, function unsafe.Pointer) error {
	f, err := newFrame(c, &layouts[l.abi][c.Function.Number])
	if err != nil {
		secret.Wipe(f.b)
		c.Return = returned(c, err)
		return nil
	}
	select {
	case l.seats <- struct{}{}:
	case <-ctx.Done():
		secret.Wipe(f.b)
		return ctx.Err()
	}
	target := append(card.Target{}, c.Target...)
	name := c.Function.Name
	type result struct {
		rv  uint64
		err error
	}
	done := make(chan result, 1)
	abandoned := context.AfterFunc(ctx, func() { done <- result{err: ctx.Err()} })
	go func() {
		rv, err := l.run(f, function, name, target)
		if <-l.seats; !abandoned() {
			secret.Wipe(f.b) // nobody waits for it
			return
		}
		done <- result{rv, err}
	}()
	r := <-done
	if r.err != nil {
		return r.err
	}
	defer secret.Wipe(f.b)
	if err := f.take(r.rv); err != nil {
		l.log.Error("host library: the answer makes no sense", "err", err)
		c.Drop()
		c.Return = broken(c)
	}
	return nil
}

// run calls a function.
func (l *library) run(f *frame, function unsafe.Pointer, name string, target card.Target) (rv uint64, err error) {
	l.mu.Lock()
	err = l.dead
	l.mu.Unlock()
	if err != nil {
		return 0, p11.Errorf(p11.CKR_DEVICE_REMOVED, "%w", err)
	}
	return l.targets.with(l, target, func(number uint64) (rv uint64, err error) {
		err = f.use(func(base uint64) {
			var args []uint64
			codes := 0
			if l.abi == card.CCA {
				codes = f.codes
				args = append(args, base+uint64(codes), base+uint64(codes)+wordSize, base+uint64(codes)+2*wordSize, 0)
			}
			for _, a := range f.args {
				if a.place {
					a.n += base
				}
				args = append(args, a.n)
			}
			if l.abi == card.EP11 {
				const half = 0xffffffff // some declare the return value as half a CK_RV
				rv = call(function, append(args, number)...) & half
				return
			}
			call(function, args...)
			const half = 0xffffffff
			rv = f.get(codes)&half<<32 | f.get(codes+wordSize)&half
		})
		if err != nil {
			err = l.fail(fmt.Errorf("%s: %w", name, err))
		}
		return rv, err
	})
}

// fail has the library not be called any more, and returns what calls give.
func (l *library) fail(err error) error {
	l.mu.Lock()
	l.dead = err
	l.mu.Unlock()
	l.failed(err)
	return p11.Errorf(p11.CKR_DEVICE_REMOVED, "%w", err)
}

// Close is card.Transport's.
func (l *library) Close() error {
	l.mu.Lock()
	again := l.dead != nil
	l.dead = errClosed
	l.mu.Unlock()
	for taken := 0; !again && taken < most; taken++ {
		select {
		case l.seats <- struct{}{}:
		default:
			return nil // who still is in the library must not have it shut down
		}
	}
	if f := l.functions["m_shutdown"]; f != nil && !again {
		call(f)
	}
	return nil
}
