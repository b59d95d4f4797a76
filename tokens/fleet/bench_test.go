package fleet

import (
	"fmt"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest"
)

// BenchmarkTransaction is etcd's own part of a create.
func BenchmarkTransaction(b *testing.B) {
	c := newHosts(b, 3).cluster.Client(b)
	value := string(make([]byte, 600))
	for i := 0; b.Loop(); i++ {
		_, err := c.Put(b.Context(), fmt.Sprint("/bench/", i), value)
		noError(b, err)
	}
}

func BenchmarkCreate(b *testing.B) {
	s := newHosts(b, 3).open(b, "/t/")
	for i := 0; b.Loop(); i++ {
		create(b, s, fmt.Sprint("object ", i), false)
	}
}

// BenchmarkRefresh is what each use of a key costs more than with a local token.
func BenchmarkRefresh(b *testing.B) {
	s := newHosts(b, 1).open(b, "/t/")
	for b.Loop() {
		noError(b, s.Refresh(b.Context()))
	}
}

// BenchmarkOpen opens a token of 10,000 objects, half of them private.
func BenchmarkOpen(b *testing.B) {
	h := newHosts(b, 3)
	s := h.open(b, "/t/")
	ready(b, s)
	l, err := s.Login(b.Context(), p11.CKU_USER, tokentest.PIN(b, userPIN))
	noError(b, err)
	defer l.Close()
	for i := range 100 {
		var list []p11.Attributes
		for j := range 100 {
			list = append(list, data(fmt.Sprint("object ", 100*i+j), j%2 == 0).With(p11.CKA_VALUE, make([]byte, 1200)))
		}
		_, err := s.CreateAll(b.Context(), list)
		noError(b, err)
	}
	cfg := h.config(b, h.cluster.Client(b), "/t/")
	for b.Loop() {
		again, err := Open(b.Context(), cfg)
		noError(b, err)
		if public, _ := again.Counts(); public != 5000 {
			b.Fatalf("%d public objects", public)
		}
		noError(b, again.Close())
	}
}
