package historytest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// ErrAbsent is the error of an operation on an object that there is not, and ErrWrong that of a
// wrong PIN. After any other nobody knows what came of it.
var (
	ErrAbsent = errors.New("there is no such object")
	ErrWrong  = errors.New("the PIN is wrong")
)

// A Client works on the objects of a machine, whose number is its Host, by a Door of it. One
// that finds something that no history has says so itself.
type Client interface {
	Host() int
	Door() string
	Create(name, value string) error
	Change(name, value string) error
	Destroy(name string) error
	Find(name string) (value string, err error)
	Sign(name string) error
}

// slots is how many objects there are at once.
const slots = 4

// A World is what clients do and have seen.
type World struct {
	start time.Time

	mu    sync.Mutex // guards what follows
	ops   []*Op
	slots [slots]slot
	next  int // value
}

// A slot has one object after the other.
type slot struct {
	name   string // of the object
	before string // the name of the one before, which is destroyed
	made   bool   // somebody is making it, or has
	number int
}

// NewWorld is a World in which nothing has happened.
func NewWorld() *World {
	w := &World{start: time.Now()}
	for s := range w.slots {
		w.slots[s].name = fmt.Sprintf("s%d-0", s)
	}
	return w
}

// Ops are the operations that are over.
func (w *World) Ops() []*Op {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.ops)
}

// Do notes an operation and what came of it. What was to be read, and was not, says nothing.
func (w *World) Do(o Op, f func(o *Op) error) error {
	o.Call = time.Since(w.start).Nanoseconds()
	err := f(&o)
	o.Back = time.Since(w.start).Nanoseconds()
	if err != nil {
		o.Said = err.Error()
	}
	switch {
	case err == nil:
		o.Result = "ok"
	case errors.Is(err, ErrAbsent):
		o.Result = "absent"
	case errors.Is(err, ErrWrong):
		o.Result = "wrong"
	case o.Kind == "find" || o.Kind == "sign" || o.Kind == "login" || o.Kind == "last":
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ops = append(w.ops, &o)
	return err
}

// Use has a client do one thing after the other until ctx ends.
func (w *World) Use(ctx context.Context, c Client) {
	for ctx.Err() == nil {
		w.mu.Lock()
		s := &w.slots[rand.IntN(slots)]
		name, before, first := s.name, s.before, !s.made
		s.made = true
		w.next++
		value := fmt.Sprint(w.next)
		w.mu.Unlock()
		what := rand.IntN(100)
		switch {
		case first:
			if w.Do(Op{Kind: "create", Object: name, Host: c.Host(), Door: c.Door(), Value: value}, func(*Op) error { return c.Create(name, value) }) != nil {
				w.follow(s, name)
			}
		case what < 5:
			err := w.Do(Op{Kind: "destroy", Object: name, Host: c.Host(), Door: c.Door()}, func(*Op) error { return c.Destroy(name) })
			if !errors.Is(err, ErrAbsent) {
				w.follow(s, name)
			}
		case what < 15:
			_ = w.Do(Op{Kind: "change", Object: name, Host: c.Host(), Door: c.Door(), Value: value}, func(*Op) error { return c.Change(name, value) })
		case what < 40 && before != "":
			w.read(c, before)
		default:
			w.read(c, name)
		}
		time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
	}
}

// read finds an object, or signs with it.
func (w *World) read(c Client, name string) {
	if rand.IntN(2) == 0 {
		_ = w.Do(Op{Kind: "sign", Object: name, Host: c.Host(), Door: c.Door()}, func(*Op) error { return c.Sign(name) })
		return
	}
	_ = w.find("find", c, name)
}

func (w *World) find(kind string, c Client, name string) error {
	return w.Do(Op{Kind: kind, Object: name, Host: c.Host(), Door: c.Door()}, func(o *Op) (err error) {
		o.Value, err = c.Find(name)
		return err
	})
}

// follow has another object follow one in its slot.
func (w *World) follow(s *slot, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.name == name {
		s.number++
		s.before, s.name, s.made = name, fmt.Sprintf("%.2s-%d", name, s.number), false
	}
}

// Last has clients look at all objects when all is over, each until it has an answer.
func (w *World) Last(patience time.Duration, clients ...Client) error {
	names := map[string]bool{}
	for _, o := range w.Ops() {
		if o.Object != PIN {
			names[o.Object] = true
		}
	}
	end := time.Now().Add(patience)
	for _, c := range clients {
		for name := range names {
			for {
				err := w.find("last", c, name)
				if err == nil || errors.Is(err, ErrAbsent) {
					break
				}
				if time.Now().After(end) {
					return fmt.Errorf("host %d does not come back: %w", c.Host(), err)
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
	}
	return nil
}
