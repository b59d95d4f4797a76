//go:build cgo

package hostlib

import (
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"p11fs/tokens/card"
	"p11fs/tokens/card/cca"
	"p11fs/tokens/card/ep11"
)

// targets are how the library is told which domains are meant: by a number that it gives out
// for them (m_add_module), by the address of a list (before that), or, of CCA, by the
// card that a thread works with (CSUACRA).
type targets struct {
	mu      sync.RWMutex // guards numbers; and, of CCA, is written by who takes another card
	numbers map[string]uint64
}

// maxTargets is how many groups of domains the library is told of for good. Others are taken
// back after the call.
const maxTargets = 64

// An XCP_Module is a card of a target, of version 2. The names are those of ep11.h.
type module struct {
	version uint32
	flags   uint64
	domains uint32
	mask    [32]byte
	socket  struct {
		host [257]byte
		port uint32
	}
	number      uint32
	handle      uint64
	performance [256]uint32
	api         uint32
}

// Of modules.
const (
	flagModule  = 0x02
	flagVirtual = 0x10 // a group
	noTarget    = ^uint64(0)
	badVersion  = -102 // XCP_MOD_EVERSION
)

// with makes a call to the domains of a target.
func (t *targets) with(l *library, target card.Target, f func(number uint64) (uint64, error)) (rv uint64, err error) {
	if l.abi == card.CCA {
		return t.withAdapter(l, target, f)
	}
	if l.functions["m_add_module"] == nil {
		return withAddress(target, f)
	}
	number, kept, err := t.number(l, target)
	if err != nil {
		l.log.Warn("host library: no such target", "target", target, "err", err)
		return uint64(ep11.TargetInvalid), nil
	}
	if !kept {
		defer func() { call(l.functions["m_rm_module"], 0, number) }()
	}
	return f(number)
}

// number is that of a group of domains, and whether it stays.
func (t *targets) number(l *library, target card.Target) (number uint64, kept bool, err error) {
	key := fmt.Sprint(target)
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, ok := t.numbers[key]; ok {
		return n, true, nil
	}
	number = noTarget
	m := &module{flags: flagModule | flagVirtual}
	if len(target) == 0 {
		err = m.add(l, &number) // a group of nothing is any
	}
	for _, a := range target {
		if int(a.Domain) >= 8*len(m.mask) {
			err = fmt.Errorf("domain %d", a.Domain)
		} else {
			clear(m.mask[:])
			m.number, m.domains = uint32(a.Adapter), uint32(8*len(m.mask))
			m.mask[a.Domain/8] = 0x80 >> (a.Domain % 8)
			err = m.add(l, &number)
		}
		if err != nil {
			break
		}
	}
	remove := l.functions["m_rm_module"]
	switch {
	case err != nil && number != noTarget && remove != nil:
		call(remove, 0, number)
		return 0, false, err
	case err != nil:
		return 0, false, err
	case len(t.numbers) < maxTargets || remove == nil:
		t.numbers[key] = number
		return number, true, nil
	}
	return number, false, nil
}

// add has the library add a module to a group.
func (m *module) add(l *library, number *uint64) error {
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(m)
	pin.Pin(number)
	var rv int32
	for m.version = 2; m.version > 0; m.version-- {
		rv = int32(call(l.functions["m_add_module"], address(unsafe.Pointer(m)), address(unsafe.Pointer(number))))
		if rv != badVersion {
			break
		}
	}
	if rv != 0 {
		return fmt.Errorf("m_add_module gives %d", rv)
	}
	return nil
}

func address(p unsafe.Pointer) uint64 { return uint64(uintptr(p)) }

// withAddress has the target be the address of a list (ep11_target_t), which is gone after
// the call.
func withAddress(target card.Target, f func(uint64) (uint64, error)) (uint64, error) {
	list := new(struct {
		format, length int16
		apqns          [2 * card.MaxTarget]int16
	})
	if len(target) > card.MaxTarget {
		return uint64(ep11.TargetInvalid), nil
	}
	list.length = int16(len(target))
	for i, a := range target {
		list.apqns[2*i], list.apqns[2*i+1] = int16(a.Adapter), int16(a.Domain)
	}
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(list)
	return f(address(unsafe.Pointer(list)))
}

// withAdapter has one card answer, which the process or the thread takes for the call, as
// the library has it: no other call is made meanwhile. Its domain is the library's choice.
func (t *targets) withAdapter(l *library, target card.Target, f func(uint64) (uint64, error)) (rv uint64, err error) {
	if len(target) == 0 {
		t.mu.RLock()
		defer t.mu.RUnlock()
		return f(0)
	}
	take, back := l.functions["CSUACRA"], l.functions["CSUACRD"]
	if len(target) != 1 || target[0].Adapter > 99 || take == nil || back == nil {
		return cca.ErrNoCard.Value(), nil
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	t.mu.Lock()
	defer t.mu.Unlock()
	resource := fmt.Sprintf("CRP%02d", target[0].Adapter)
	if rv := allocate(take, resource); rv>>32 != 0 {
		return rv, nil
	}
	defer allocate(back, resource)
	return f(0)
}

// allocate calls CSUACRA or CSUACRD for a card.
func allocate(f unsafe.Pointer, resource string) (rv uint64) {
	var m memory
	codes, rules := m.words(0, 0, 0), m.place([]byte("DEVICE  "), 0)
	count, length, name := m.words(1), m.words(uint64(len(resource))), m.place([]byte(resource), 0)
	err := m.use(func(base uint64) {
		at := func(n int) uint64 { return base + uint64(n) }
		call(f, at(codes), at(codes+wordSize), at(codes+2*wordSize), 0, at(count), at(rules), at(length), at(name))
	})
	if err != nil {
		return cca.ErrData.Value()
	}
	return m.get(codes)<<32 | m.get(codes+wordSize)&0xffffffff
}
