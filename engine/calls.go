package engine

import (
	"cmp"
	"errors"
	"maps"
	"math/bits"
	"slices"
	"sync/atomic"
	"time"

	"p11fs/p11"
)

// Calls are the calls of a token in which a mechanism did something, by one door: the parts
// of a message each for itself, and those that make a key.
type Calls struct {
	Token     string
	Mechanism p11.MechanismType
	Door      string // Owner.Door
	Errors    uint64 // of Count; not of a result that had no room, nor of an interrupt
	Count     uint64
	Total     time.Duration
	Within    []uint64 // how many took no longer than CallLimits
}

// Calls counts since the engine began, for whoever runs it: it tells what others do.
func (e *Engine) Calls() (list []Calls) {
	for _, s := range e.list() {
		for key, t := range s.calls.all() {
			c := Calls{Token: s.Name(), Mechanism: key.mechanism, Door: key.door, Errors: t.errors.Load(), Total: time.Duration(t.total.Load())}
			for i := range t.took {
				c.Count += t.took[i].Load()
				c.Within = append(c.Within, c.Count)
			}
			c.Within = c.Within[:len(CallLimits())]
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b Calls) int {
		return cmp.Or(cmp.Compare(a.Token, b.Token), cmp.Compare(a.Mechanism, b.Mechanism), cmp.Compare(a.Door, b.Door))
	})
	return list
}

// The limits are powers of two of nanoseconds, from 8 µs to 8.6 s: so it takes no search to
// find which one a time is within.
const (
	firstLimit = 13
	lastLimit  = 33
)

// CallLimits are the times in Calls.Within.
func CallLimits() (limits []time.Duration) {
	for i := firstLimit; i <= lastLimit; i++ {
		limits = append(limits, 1<<i)
	}
	return limits
}

// callTimes are the calls of a slot's token. They are counted without a lock: every call is.
// Mechanisms are those of the token and doors a few, so they are bounded.
type callTimes struct {
	times atomic.Pointer[map[callKey]*callTime] // the map never changes, and is replaced by a longer one
}

type callKey struct {
	mechanism p11.MechanismType
	door      string
}

type callTime struct {
	took   [lastLimit - firstLimit + 2]atomic.Uint64 // the last: longer than all limits
	total  atomic.Int64
	errors atomic.Uint64
}

func (c *callTimes) all() map[callKey]*callTime {
	if m := c.times.Load(); m != nil {
		return *m
	}
	return nil
}

func (c *callTimes) of(key callKey) *callTime {
	for {
		m := c.times.Load()
		if m != nil && (*m)[key] != nil {
			return (*m)[key]
		}
		longer := maps.Clone(c.all())
		if longer == nil {
			longer = map[callKey]*callTime{}
		}
		longer[key] = &callTime{}
		if c.times.CompareAndSwap(m, &longer) {
			return longer[key]
		}
	}
}

// callSum are the calls of one application, with whatever mechanism.
type callSum struct {
	count, errors atomic.Uint64
	total         atomic.Int64
}

// called counts a call of the token with a mechanism that it has.
func (a *appSlot) called(m p11.MechanismType, began time.Time, err error) {
	took := max(0, time.Since(began))
	sum := &a.app.calls
	sum.count.Add(1)
	sum.total.Add(int64(took))
	t := a.slot.calls.of(callKey{m, a.app.owner.Door})
	i := bits.Len64(uint64(max(took, 1)-1)) - firstLimit // of the least power of two that is not less
	t.took[min(max(i, 0), len(t.took)-1)].Add(1)
	t.total.Add(int64(took))
	if err == nil || p11.RVOf(err) == p11.CKR_FUNCTION_CANCELED {
		return
	}
	if _, tooLong := errors.AsType[*BufferError](err); !tooLong {
		t.errors.Add(1)
		sum.errors.Add(1)
	}
}
