package desk

import "sync"

// A Pool has what is open of TPMs: tokens share it. The zero value is ready.
type Pool[T interface{ Close() }] struct {
	mu   sync.Mutex // guards open
	open map[string]*pooled[T]
}

// A pooled is one of a Pool, and how many have it.
type pooled[T interface{ Close() }] struct {
	it    T
	users int
}

// Take returns what is open of a name, or opens it, and what gives it back.
func (p *Pool[T]) Take(name string, open func() (T, error)) (T, func(), error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.open[name]
	if s == nil {
		it, err := open()
		if err != nil {
			return it, nil, err
		}
		if p.open == nil {
			p.open = make(map[string]*pooled[T])
		}
		s = &pooled[T]{it: it}
		p.open[name] = s
	}
	s.users++
	return s.it, sync.OnceFunc(func() {
		p.mu.Lock()
		s.users--
		last := s.users == 0
		if last {
			delete(p.open, name)
		}
		p.mu.Unlock()
		if last {
			s.it.Close()
		}
	}), nil
}
