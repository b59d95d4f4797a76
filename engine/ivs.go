package engine

import (
	"bytes"
	"encoding/binary"
	"sync"

	"p11fs/p11"
)

// An ivCounter counts the IVs that a session key was used with, for all sessions that use
// it, and all copies of the key. Token objects have none: a count would have to be kept
// with the object, by every daemon and stock program that use it.
type ivCounter struct {
	mu    sync.Mutex // guards all below; 12th in the order of doc.go
	begun bool
	first AEADMessage // the IV and how it is counted, which stays
	next  uint64
}

// iv is the next IV of the message (PKCS#11 v3.2 §6.13, CKG_GENERATE_COUNTER and
// CKG_GENERATE_COUNTER_XOR). A number is given out once, whatever becomes of the message,
// and whatever the fixed part is.
func (c *ivCounter) iv(a *AEADMessage) ([]byte, error) {
	fixed := bytes.Clone(a.IV)
	var free []byte // bits that count, the others zero
	for i := range fixed {
		mask := freeBits(uint64(i), a.FixedBits)
		free = append(free, fixed[i]&mask)
		fixed[i] &^= mask
	}
	if a.Generator == p11.CKG_GENERATE_COUNTER {
		clear(free)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.begun {
		c.begun, c.first = true, AEADMessage{IV: free, FixedBits: a.FixedBits, Generator: a.Generator}
	}
	if f := &c.first; f.Generator != a.Generator || f.FixedBits != a.FixedBits || !bytes.Equal(f.IV, free) {
		return nil, p11.Advise(p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "the key's IVs are counted otherwise: with another length, fixed part or beginning two could be the same"), "count on as before, or use another key")
	}
	if bits := 8*uint64(len(fixed)) - a.FixedBits; bits < 64 && c.next>>bits != 0 || c.next == ^uint64(0) {
		return nil, p11.Errorf(p11.CKR_KEY_EXHAUSTED, "the key was used with all %d-bit counters", bits)
	}
	var count [8]byte
	binary.BigEndian.PutUint64(count[:], c.next)
	c.next++
	for i := range fixed {
		if at := len(count) - len(fixed) + i; at >= 0 {
			free[i] ^= count[at]
		}
		fixed[i] |= free[i]
	}
	return fixed, nil
}

// freeBits are the bits of the ith byte of an IV behind the first n.
func freeBits(i, n uint64) byte {
	switch {
	case n <= 8*i:
		return 0xff
	case n >= 8*i+8:
		return 0
	}
	return 0xff >> (n - 8*i)
}

// ivsOf is the counter of a session key, nil of any other object.
func (o *sessionObjects) ivsOf(h p11.ObjectHandle) *ivCounter {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.made[h].ivs
}
