package engine

import (
	"context"
	"errors"
	"sync"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

func TestLimitsPerUID(t *testing.T) {
	ctx := t.Context()
	b := newLimitedBench(t, hooks.Options{}, Limits{Sessions: 3, SessionObjects: 2})
	one, two := b.app(), b.app()
	s := b.session(t, one, rw)
	b.session(t, one, ro)
	last := b.session(t, two, rw)
	_, err := two.OpenSession(ctx, b.slot, ro)
	want(t, err, p11.CKR_SESSION_COUNT)
	var limit *LimitError
	if !errors.As(err, &limit) || limit.UID != 1000 || limit.Max != 3 {
		t.Errorf("%v is no LimitError of uid 1000", err)
	}
	other := b.NewApplication(Owner{UID: 1001}, ForPrograms)
	b.session(t, other, ro)
	want(t, last.Close(), p11.CKR_OK)
	last = b.session(t, two, rw)

	create(t, s, "class=data")
	h := create(t, last, "class=data")
	_, err = s.CreateObject(ctx, tmpl(t, "class=data"))
	want(t, err, p11.CKR_DEVICE_MEMORY)
	if !errors.As(err, &limit) {
		t.Errorf("%v is no LimitError", err)
	}
	create(t, s, "class=data token=true") // token objects are the token's to limit
	want(t, last.DestroyObject(ctx, h), p11.CKR_OK)
	create(t, s, "class=data")
}

// Public token objects are in no account: who has not logged in can make them up to a bound
// of all, and destroy them.
func TestPublicObjectsWithoutALogin(t *testing.T) {
	ctx := t.Context()
	b := newLimitedBench(t, hooks.Options{}, Limits{Public: 64 << 10})
	s, user := b.session(t, b.app(), rw), b.user(t)
	data, kib := tmpl(t, "class=data token=true"), func(n int) p11.Attributes {
		return p11.Attributes{{Type: p11.CKA_VALUE, Value: make([]byte, n<<10)}}
	}
	made := func(s *Session, n int) (p11.ObjectHandle, error) {
		return s.CreateObject(ctx, append(data.Clone(), kib(n)...))
	}
	first, err := made(s, 30)
	want(t, err, p11.CKR_OK)
	other := b.session(t, b.NewApplication(Owner{UID: 1001}, ForPrograms), rw)
	second, err := made(other, 20)
	want(t, err, p11.CKR_OK)
	_, err = made(s, 20)
	want(t, err, p11.CKR_DEVICE_MEMORY)
	_, err = s.CopyObject(ctx, first, nil)
	want(t, err, p11.CKR_DEVICE_MEMORY)
	want(t, s.SetAttributeValue(ctx, second, kib(40)), p11.CKR_DEVICE_MEMORY)
	_, err = s.CreateObject(ctx, append(tmpl(t, "class=data"), kib(100)...)) // which is in his account
	want(t, err, p11.CKR_OK)

	third, err := made(user, 100)
	want(t, err, p11.CKR_OK)
	want(t, user.SetAttributeValue(ctx, third, kib(200)), p11.CKR_OK)
	want(t, s.SetAttributeValue(ctx, third, kib(1)), p11.CKR_OK)
	want(t, s.DestroyObject(ctx, first), p11.CKR_OK)
	_, err = made(s, 30)
	want(t, err, p11.CKR_OK)
}

// A filling token has an object of 60 KiB when it was refreshed, as one has whose objects
// are still read when the first call comes.
type fillingToken struct {
	*hooks.Token
	once sync.Once
}

func (f *fillingToken) Refresh(ctx context.Context) (err error) {
	f.once.Do(func() {
		_, err = f.Create(ctx, p11.Attributes{
			{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_DATA)}, {Type: p11.CKA_PRIVATE, Value: p11.Bool(false)},
			{Type: p11.CKA_TOKEN, Value: p11.Bool(true)}, {Type: p11.CKA_VALUE, Value: make([]byte, 60<<10)},
		})
	})
	return err
}

// Public objects count that the token has not yet read when the first caller comes.
func TestPublicObjectsStillRead(t *testing.T) {
	token := hooks.New("tok", hooks.Options{})
	b := benchOf(t, token, &fillingToken{Token: token}, Limits{Public: 64 << 10})
	s := b.session(t, b.app(), rw)
	_, err := s.CreateObject(t.Context(), append(tmpl(t, "class=data token=true"), p11.Attribute{Type: p11.CKA_VALUE, Value: make([]byte, 20<<10)}))
	want(t, err, p11.CKR_DEVICE_MEMORY)
}

func TestStats(t *testing.T) {
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	b.session(t, b.app(), ro)
	create(t, s, "class=data token=true")
	create(t, s, aesKey+" token=true")
	create(t, s, aesKey+" token=true")
	create(t, s, "class=data")
	o, err := s.Begin(t.Context(), p11.CKF_DIGEST, mech(t, "sha256"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	got := b.Stats()
	if got.Bytes < 1 || got.Bytes > 8<<10 {
		t.Errorf("a session object holds %d bytes", got.Bytes)
	}
	got.Bytes = 0
	if want := (Stats{Applications: 2, Sessions: 2, SessionObjects: 1, PublicObjects: 1, PrivateObjects: 2, Handles: 4, Operations: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestSlots(t *testing.T) {
	b := newBench(t, hooks.Options{})
	if s, err := b.Slot(3); err != nil || s != b.slot || !s.Present() || s.Name() != "tok" || s.Kind() != "test" {
		t.Errorf("slot 3: %v, %v", s, err)
	}
	empty, err := b.Slot(4)
	if err != nil || empty.Present() || empty.Name() != "" || empty.Mechanisms() != nil {
		t.Errorf("slot 4: %v, %v", empty, err)
	}
	if b.slot.Info().Flags&p11.CKF_TOKEN_PRESENT == 0 || empty.Info().Flags&p11.CKF_TOKEN_PRESENT != 0 {
		t.Error("CKF_TOKEN_PRESENT is wrong")
	}
	_, err = b.Slot(5)
	want(t, err, p11.CKR_SLOT_ID_INVALID)
	if s, err := b.SlotNamed("tok"); err != nil || s != b.slot {
		t.Errorf("SlotNamed: %v, %v", s, err)
	}
	_, err = b.SlotNamed("")
	want(t, err, p11.CKR_SLOT_ID_INVALID)
	_, err = empty.TokenInfo(t.Context())
	want(t, err, p11.CKR_TOKEN_NOT_PRESENT)
	_, err = empty.Mechanism(p11.CKM_SHA256)
	want(t, err, p11.CKR_TOKEN_NOT_PRESENT)
	_, err = b.slot.Mechanism(p11.CKM_MD5)
	want(t, err, p11.CKR_MECHANISM_INVALID)
	_, err = b.app().Objects(t.Context(), empty, nil)
	want(t, err, p11.CKR_TOKEN_NOT_PRESENT)
	token := hooks.New("a", hooks.Options{})
	for _, slots := range [][]SlotConfig{{{ID: 1}, {ID: 1}}, {{ID: 1, Token: token}, {ID: 2, Token: token}}} {
		if _, err := New(Config{Slots: slots}); err == nil {
			t.Errorf("slots %v were accepted", slots)
		}
	}
}

// TestBytesOfAll: many uids together hold no more than twice what one may, and leave
// something for one who comes.
func TestBytesOfAll(t *testing.T) {
	const most = 1 << 20
	b := newLimitedBench(t, hooks.Options{}, Limits{Bytes: most})
	fill := func(uid uint32) (held int64) {
		for b.Account(uid).Take(1<<10) == nil {
			held += 1 << 10
		}
		return held
	}
	if n := fill(1); n != most {
		t.Errorf("one has %d bytes of %d", n, most)
	}
	for uid := range uint32(4) { // each has half of what is left
		if fill(2+uid) == 0 {
			t.Errorf("nothing is left for uid %d", 2+uid)
		}
	}
	for range 100 { // as time goes by, who has more gives back and takes no more
		for uid := range uint32(5) {
			b.Account(1 + uid).Give(16 << 10)
			fill(1 + uid)
		}
	}
	if n := b.Account(1).Held(); n > most/2 {
		t.Errorf("one of five has %d bytes", n)
	}
	if n := b.Stats().Bytes; n > 2*most*9/10 {
		t.Errorf("all have %d bytes", n)
	}
	if n := fill(99); n < most/10 {
		t.Errorf("who comes last has %d bytes", n)
	}
	var refused *LimitError
	if err := b.Account(1).Take(most); !errors.As(err, &refused) || refused.Max >= most {
		t.Errorf("%v", err)
	}
}

// TestBytesPerUID: what a uid has the engine keep counts in its account, and is given
// back however it ends.
func TestBytesPerUID(t *testing.T) {
	ctx := t.Context()
	b := newLimitedBench(t, hooks.Options{}, Limits{Bytes: 64 << 10})
	account := b.Account(1000)
	s := b.session(t, b.app(), rw)
	held := func(what string, least, most int64) {
		t.Helper()
		if n := account.Held(); n < least || n > most {
			t.Errorf("%s: %d bytes are held, want %d to %d", what, n, least, most)
		}
	}
	long := tmpl(t, "class=data")
	long.Set(p11.CKA_VALUE, make([]byte, 40<<10))
	h, err := s.CreateObject(ctx, long)
	want(t, err, p11.CKR_OK)
	held("an object", 40<<10, 44<<10)
	_, err = s.CreateObject(ctx, long)
	want(t, err, p11.CKR_DEVICE_MEMORY)
	_, err = s.CopyObject(ctx, h, nil)
	want(t, err, p11.CKR_DEVICE_MEMORY)
	want(t, s.SetAttributeValue(ctx, h, p11.Attributes{{Type: p11.CKA_VALUE, Value: make([]byte, 80<<10)}}), p11.CKR_DEVICE_MEMORY)
	held("what was refused", 40<<10, 44<<10)
	want(t, s.SetAttributeValue(ctx, h, p11.Attributes{{Type: p11.CKA_VALUE, Value: make([]byte, 8<<10)}}), p11.CKR_OK)
	held("a shorter value", 8<<10, 12<<10)
	other := b.session(t, b.NewApplication(Owner{UID: 1001}, ForPrograms), rw)
	create(t, other, "class=data")
	held("another uid's object", 8<<10, 12<<10)
	want(t, s.DestroyObject(ctx, h), p11.CKR_OK)
	held("the destroyed object", 0, 0)

	create(t, s, "class=data token=true")
	want(t, s.FindObjectsInit(ctx, nil), p11.CKR_OK)
	held("a search", 8, 8)
	want(t, s.FindObjectsFinal(ctx), p11.CKR_OK)
	held("a finished search", 0, 0)
	want(t, s.FindObjectsInit(ctx, nil), p11.CKR_OK)
	want(t, s.SessionCancel(ctx, p11.CKF_FIND_OBJECTS), p11.CKR_OK)
	held("a cancelled search", 0, 0)
	create(t, s, "class=data")
	want(t, s.FindObjectsInit(ctx, nil), p11.CKR_OK)
	want(t, s.Close(), p11.CKR_OK)
	held("a closed session", 0, 0)
}
