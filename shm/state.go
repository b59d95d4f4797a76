package shm

import (
	"bytes"
	"errors"
	"runtime/debug"
)

// State appends to b all that processes share in the segment: token data, counts,
// flags and entries. Residue behind the entries is no part of it.
func (s *TokenSegment) State(b []byte) (state []byte) {
	defer s.guard()()
	from := len(b)
	state = append(b, s.mem[offData:offPublic]...)
	for _, l := range []List{Public, Private} {
		at := l.entries()
		state = append(state, s.mem[at:at+stateCount(state[from:], l)*entrySize]...)
	}
	return state
}

// Is reports whether the segment holds what State returned. Unlike all other methods it
// needs no lock: while another process writes it may say either.
func (s *TokenSegment) Is(state []byte) (same bool) {
	defer s.guard()()
	const head = offPublic - offData
	if len(state) < head || !bytes.Equal(state[:head], s.mem[offData:offPublic]) {
		return false
	}
	at := head
	for _, l := range []List{Public, Private} {
		size := stateCount(state, l) * entrySize
		if at+size > len(state) || !bytes.Equal(state[at:at+size], s.mem[l.entries():l.entries()+size]) {
			return false
		}
		at += size
	}
	return at == len(state)
}

// stateCount is the number of entries of l in a state.
func stateCount(state []byte, l List) int {
	return int(min(u32(state, l.count()-offData), MaxObjects))
}

// ErrCut is the error when another process made the segment's file shorter.
var ErrCut = errors.New("the shared memory was cut short by another process")

// guard keeps the process alive when another one cuts the segment's file: what
// lies behind its new end cannot be read or written. The method that calls
// what guard returns, deferred, then gives zero values, and Err the reason.
func (s *TokenSegment) guard() func() {
	was := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(was)
		r := recover()
		if r == nil {
			return
		}
		if fault, ok := r.(interface{ Addr() uintptr }); ok && s.holds(fault.Addr()) {
			s.cut.Store(true)
			return
		}
		panic(r)
	}
}

// Err is ErrCut once the segment was found cut. Nothing it said since is true.
func (s *TokenSegment) Err() error {
	if s.cut.Load() {
		return ErrCut
	}
	return nil
}
