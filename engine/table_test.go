package engine_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"p11fs/engine"
	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/tokentest/hooks"
)

// table stands for the segment that processes share.
type table struct {
	own, others atomic.Int64
	fail        atomic.Bool
}

func (t *table) Opened(context.Context, p11.SlotID) error {
	if t.fail.Load() {
		return errors.New("the table is full")
	}
	t.own.Add(1)
	return nil
}

func (t *table) Closed(p11.SlotID) error { t.own.Add(-1); return nil }

func (t *table) Others(context.Context, p11.SlotID) (uint64, error) {
	return uint64(t.others.Load()), nil
}

func TestSessionTable(t *testing.T) {
	ctx := context.Background()
	shared := &table{}
	token := hooks.New("mem", hooks.Options{})
	e, err := engine.New(engine.Config{Slots: []engine.SlotConfig{{ID: 1, Token: token}}, Table: shared})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(e.Close(), token.Close()) }()
	slot := e.Slots()[0]
	app := e.NewApplication(engine.Owner{}, engine.ForPrograms)
	for range 2 {
		if _, err := app.OpenSession(ctx, slot, p11.CKF_SERIAL_SESSION); err != nil {
			t.Fatal(err)
		}
	}
	shared.others.Store(3)
	if info, err := slot.TokenInfo(ctx); err != nil || info.Sessions != 5 || shared.own.Load() != 2 {
		t.Errorf("%d sessions, %d told, %v; want 5 and 2", info.Sessions, shared.own.Load(), err)
	}
	shared.fail.Store(true)
	if _, err := app.OpenSession(ctx, slot, p11.CKF_SERIAL_SESSION); err == nil {
		t.Error("a session that could not be told of was opened")
	}
	app.Close()
	if n := shared.own.Load(); n != 0 {
		t.Errorf("%d sessions are still told of", n)
	}
	pin, err := secret.New([]byte("87654321"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pin.Close() }()
	app = e.NewApplication(engine.Owner{}, engine.ForPrograms)
	defer app.Close()
	if err := app.InitToken(ctx, slot, pin, "x"); !errors.Is(err, p11.CKR_SESSION_EXISTS) {
		t.Errorf("C_InitToken beside other processes' sessions: %v", err)
	}
	shared.others.Store(0)
	if err := app.InitToken(ctx, slot, pin, "x"); err != nil {
		t.Error(err)
	}
	if info, err := slot.TokenInfo(ctx); err != nil || info.Sessions != 0 {
		t.Errorf("%d sessions, %v", info.Sessions, err)
	}
}
