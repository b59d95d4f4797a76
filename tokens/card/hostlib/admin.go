//go:build cgo

package hostlib

import (
	"encoding/binary"
	"errors"

	"p11fs/p11"
	"p11fs/tokens/card"
	"p11fs/tokens/card/ep11"
)

// The blocks of administrators' commands have a layout of the library's own, and it makes
// them and takes them apart (xcpa_cmdblock, xcpa_queryblock, xcpa_internal_rv). Those of
// package ep11, and so of programs that have our libep11.so, are turned into it and back.

// The places of an XCPadmresp: what a command is for, and what an answer says.
const (
	respDomain  = 4
	respRV      = 64
	respPayload = 80
	respLength  = 88
	respSize    = 96

	blockRoom = 1024 // what a block has beside its payload, at most
)

// admin makes a call of m_admin. answer is what Call makes of one whose blocks are the
// library's.
func (l *library) admin(c *card.Call, answer func(*card.Call) error) error {
	const response, command = 0, 2
	given := c.Args[command].Bytes
	number, payload, err := ep11.ReadCommand(given)
	block := []byte(nil)
	if err == nil {
		block, err = l.block(c.Target, number, ep11.CommandDomain(given), payload)
	}
	if err != nil {
		c.Return = uint64(p11.RVOf(err))
		return nil
	}
	other := *c
	other.Args = append([]card.Arg{}, c.Args...)
	other.Args[command].Bytes = block
	err = answer(&other)
	c.Return = other.Return
	if err != nil || c.Return != 0 {
		return err
	}
	rv, payload, err := l.unblock(other.Args[response].Out)
	if err != nil {
		l.log.Error("host library: the answer to an administrator's command makes no sense", "err", err)
		c.Return = broken(c)
		return nil
	}
	if !c.Args[response].Give(ep11.CommandAnswer(number, rv, payload)) {
		c.Return = uint64(p11.CKR_BUFFER_TOO_SMALL)
	}
	return nil
}

// block makes the library's block of a command.
func (l *library) block(target card.Target, number, domain uint32, payload []byte) ([]byte, error) {
	make, query := l.functions["xcpa_cmdblock"], l.functions["xcpa_queryblock"]
	var m memory
	resp := m.place(nil, respSize)
	room := len(payload) + blockRoom
	out, in := m.place(nil, room), m.place(payload, 0)
	put32(m.b[resp+respDomain:], domain)
	var n int64
	err := m.use(func(base uint64) {
		at := func(place int) uint64 { return base + uint64(place) }
		if number >= ep11.QueryBase && query != nil {
			which := uint64(domain)
			if len(target) == 1 {
				which |= uint64(target[0].Adapter) << 32
			}
			n = int64(call(query, at(out), uint64(room), uint64(number), which, at(in), uint64(len(payload))))
			return
		}
		n = int64(call(make, at(out), uint64(room), uint64(number), at(resp), 0, at(in), uint64(len(payload))))
	})
	switch {
	case err != nil:
		return nil, l.fail(err)
	case n <= 0 || n > int64(room):
		return nil, p11.CKR_ARGUMENTS_BAD
	}
	return append([]byte{}, m.b[out:out+int(n)]...), nil
}

// unblock takes an answer apart.
func (l *library) unblock(answer []byte) (rv p11.RV, payload []byte, err error) {
	var m memory
	codes := m.words(0, 0)
	in, resp := m.place(answer, 0), m.place(nil, respSize)
	err = m.use(func(base uint64) {
		at := func(place int) uint64 { return base + uint64(place) }
		if n := int64(call(l.functions["xcpa_internal_rv"], at(in), uint64(len(answer)), at(resp), at(codes))); n < 0 {
			m.set(codes+wordSize, 1)
			return
		}
		m.set(resp+respPayload, m.get(resp+respPayload)-at(in)) // from the beginning of the answer
	})
	if err != nil {
		return 0, nil, l.fail(err)
	}
	r := unblocked{failed: m.get(codes + wordSize), rv: m.get(codes), from: m.get(resp + respPayload), n: m.get(resp + respLength)}
	return r.payload(answer)
}

// An unblocked is what the library says of an answer: whether it does not take it apart, the
// return value, where in it the payload begins, and how long that is.
type unblocked struct{ failed, rv, from, n uint64 }

// payload is what there is of an answer. The library is not believed that it is there.
func (r unblocked) payload(answer []byte) (p11.RV, []byte, error) {
	size := uint64(len(answer))
	switch {
	case r.failed != 0:
		return 0, nil, errors.New("the library does not take it apart")
	case r.rv != 0:
		return p11.RV(r.rv & 0xffffffff), nil, nil
	case r.n == 0:
		return 0, nil, nil
	case r.from > size || r.n > size-r.from:
		return 0, nil, errors.New("its payload is not in it")
	}
	return 0, append([]byte{}, answer[r.from:r.from+r.n]...), nil
}

func put32(b []byte, n uint32) { binary.NativeEndian.PutUint32(b, n) }
