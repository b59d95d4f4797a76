package fleet

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
	"p11fs/tokens/tokentest"
)

const (
	soPIN   = "so-pin-1"
	userPIN = "user-pin"
)

// ready initialises the token, and sets both PINs.
func ready(t testing.TB, s *Store) {
	t.Helper()
	noError(t, s.InitToken(t.Context(), tokentest.PIN(t, tokens.DefaultSOPIN), "fleet"))
	noError(t, s.SetPIN(t.Context(), p11.CKU_SO, tokentest.PIN(t, tokens.DefaultSOPIN), tokentest.PIN(t, soPIN)))
	so := must[tokens.Login](t)(s.Login(t.Context(), p11.CKU_SO, tokentest.PIN(t, soPIN)))
	noError(t, s.InitPIN(t.Context(), so, tokentest.PIN(t, userPIN)))
	noError(t, so.Close())
}

// A counting format counts the PINs that are looked at.
type counting struct {
	format.Format
	looks *atomic.Int64
}

func (c counting) Open(ctx context.Context, role p11.UserType, pin *secret.Bytes, k format.Kept) (format.Opened, error) {
	c.looks.Add(1)
	return c.Format.Open(ctx, role, pin, k)
}

// Three machines that guess at once look at three PINs together.
func TestTriesOfThreeMachines(t *testing.T) {
	h := newHosts(t, 3)
	ready(t, h.open(t, "/t/"))
	var looks atomic.Int64
	var wg sync.WaitGroup
	for i := range 3 {
		cfg := h.config(t, h.cluster.Client(t), "/t/")
		cfg.Format = counting{cfg.Format, &looks}
		s := h.openWith(t, cfg)
		for g := range 3 {
			pin := tokentest.PIN(t, fmt.Sprint("guess-", i, g))
			wg.Go(func() {
				for range 3 {
					_, err := s.Login(t.Context(), p11.CKU_USER, pin)
					if rv := p11.RVOf(err); rv != p11.CKR_PIN_INCORRECT && rv != p11.CKR_PIN_LOCKED {
						t.Errorf("a guess: %v", err)
					}
				}
			})
		}
	}
	wg.Wait()
	if n := looks.Load(); n != 3 {
		t.Errorf("%d guesses were looked at", n)
	}
}

// The right PIN, given on many machines at once, is right on all: nobody is locked out by
// others' tries.
func TestManyLogIn(t *testing.T) {
	h := newHosts(t, 1)
	first := h.open(t, "/t/")
	ready(t, first)
	noError(t, must[tokens.Login](t)(first.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN))).Close())
	pin := tokentest.PIN(t, userPIN)
	var wg sync.WaitGroup
	var logins [6]tokens.Login
	for i := range logins {
		s := h.open(t, "/t/")
		wg.Go(func() {
			l, err := s.Login(t.Context(), p11.CKU_USER, pin)
			if err != nil {
				t.Error(err)
				return
			}
			logins[i] = l
		})
	}
	wg.Wait()
	for _, l := range logins {
		if l != nil && l.Valid() != nil {
			t.Errorf("a login ended: %v", l.Valid())
		}
	}
}

// What a machine was trying when it died counts as wrong, and three such lock the PIN.
func TestTrialsOfTheDead(t *testing.T) {
	h := newHosts(t, 1)
	cfg := h.config(t, h.cluster.Client(t), "/t/")
	cfg.times.trial = 50 * time.Millisecond
	s := h.openWith(t, cfg)
	ready(t, s)
	open := must[tokens.Login](t)(s.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN)))
	user, err := tokens.RoleOf(p11.CKU_USER)
	noError(t, err)
	for range 3 {
		dead := h.open(t, "/t/")
		_, err := dead.countTrial(t.Context(), user, newNumber())
		noError(t, err)
		noError(t, dead.Close())
	}
	_, err = s.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN))
	if p11.RVOf(err) != p11.CKR_PIN_LOCKED {
		t.Errorf("after three machines died as they tried: %v", err)
	}
	if open.Valid() == nil {
		t.Error("a login outlives the lock")
	}
	if n := len(s.newest().Trials); n != 0 {
		t.Errorf("%d trials stay", n)
	}
}

// C_InitToken on one machine ends what all others do with the token, whatever they are doing.
func TestInitTokenFences(t *testing.T) {
	h := newHosts(t, 3)
	one, two := h.open(t, "/t/"), h.open(t, "/t/")
	ready(t, one)
	login := must[tokens.Login](t)(two.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN)))
	o := create(t, two, "private", true)
	held, err := o.Acquire()
	noError(t, err)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := two.Create(t.Context(), data("old", true)); err != nil {
				if p11.RVOf(err) != p11.CKR_USER_NOT_LOGGED_IN {
					t.Errorf("a private object: %v", err)
				}
				return
			}
			_, _ = two.Update(t.Context(), o.Handle, func(a p11.Attributes) (p11.Attributes, error) { return a.Clone(), nil })
		}
	})
	time.Sleep(20 * time.Millisecond)
	noError(t, one.InitToken(t.Context(), tokentest.PIN(t, soPIN), "anew"))
	wg.Wait()
	close(stop)
	if held.Label() != "private" {
		t.Error("what is held was wiped")
	}
	o.Release()
	if login.Valid() == nil {
		t.Error("a login on another machine is valid")
	}
	for _, s := range []*Store{one, two, h.open(t, "/t/")} {
		noError(t, s.Sync(t.Context()))
		if got := labels(t, s); len(got) > 0 {
			t.Errorf("objects of before: %q", got)
		}
		info, err := s.Info(t.Context())
		if err != nil || info.Label != "anew" || info.Flags&p11.CKF_USER_PIN_INITIALIZED != 0 {
			t.Errorf("%q, %v, %v", info.Label, info.Flags, err)
		}
		if _, err := s.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN)); p11.RVOf(err) != p11.CKR_USER_PIN_NOT_INITIALIZED {
			t.Errorf("the user's PIN of before: %v", err)
		}
		if d := s.Damaged(); len(d) > 0 {
			t.Errorf("damaged: %v", d)
		}
	}
}

// A PIN that was changed on one machine is changed on all, and the logins go on.
func TestPINChangedElsewhere(t *testing.T) {
	h := newHosts(t, 1)
	one, two := h.open(t, "/t/"), h.open(t, "/t/")
	ready(t, one)
	login := must[tokens.Login](t)(two.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN)))
	stamp := two.PINStamp(p11.CKU_USER)
	noError(t, one.SetPIN(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN), tokentest.PIN(t, "new-pin-1")))
	if _, err := two.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN)); p11.RVOf(err) != p11.CKR_PIN_INCORRECT {
		t.Errorf("the old PIN: %v", err)
	}
	noError(t, login.Valid())
	create(t, two, "goes on", true)
	must[tokens.Login](t)(one.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, "new-pin-1")))
	want(t, one, "goes on")
	if two.PINStamp(p11.CKU_USER) == stamp {
		t.Error("the PIN's stamp is the old one")
	}
}
