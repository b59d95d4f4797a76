package rpc

import (
	"strings"

	"p11fs/mountd/rpc/wire"
	"p11fs/p11"
)

// handlers answer the calls of the library and of slots. They read the arguments.
var handlers = map[wire.Call]func(*request) error{ //nolint:gochecknoglobals // a table, never written
	wire.CallFinalize:         (*request).finalize,
	wire.CallGetInfo:          (*request).getInfo,
	wire.CallGetSlotList:      (*request).getSlotList,
	wire.CallGetSlotInfo:      (*request).getSlotInfo,
	wire.CallGetTokenInfo:     (*request).getTokenInfo,
	wire.CallGetMechanismList: (*request).getMechanismList,
	wire.CallGetMechanismInfo: (*request).getMechanismInfo,
	wire.CallInitToken:        (*request).initToken,
	wire.CallInitToken2:       (*request).initToken,
	wire.CallWaitForSlotEvent: (*request).waitForSlotEvent,
	wire.CallOpenSession:      (*request).openSession,
	wire.CallCloseAllSessions: (*request).closeAllSessions,
}

// The lengths of the fixed fields, in bytes.
const (
	descriptionSize  = 64
	manufacturerSize = 32
	labelSize        = 32
	modelSize        = 16
	serialSize       = 16
	timeSize         = 16
)

func (q *request) finalize() error {
	if err := q.end(); err != nil {
		return err
	}
	q.conn.state.finalize()
	return nil
}

func (q *request) getInfo() error {
	if err := q.end(); err != nil {
		return err
	}
	version := p11.Version{Major: 3, Minor: 0}
	switch q.conn.protocol { // those of p11-kit know no later
	case wire.V0:
		version = p11.Version{Major: 2, Minor: 40}
	case wire.Own:
		version = p11.Version{Major: 3, Minor: 2}
	}
	q.w.Version(version)
	q.w.Space("p11fs", manufacturerSize)
	q.w.Ulong(0)
	q.w.Space("p11fs token daemon", 32)
	q.w.Version(q.conn.server.config.Version)
	return nil
}

func (q *request) getSlotList() error {
	present, room := q.r.Byte() != 0, q.r.Room()
	if err := q.end(); err != nil {
		return err
	}
	var ids []p11.SlotID
	for _, s := range q.conn.server.config.Engine.Slots() {
		if !present || s.Present() {
			ids = append(ids, s.ID())
		}
	}
	list(q, ids, room)
	return nil
}

// list writes the `au` of a function with room for a list.
func list[T ~uint64](q *request, items []T, room wire.Room) {
	if len(items) > int(room) {
		q.w.Count(len(items))
		return
	}
	wire.Ulongs(q.w, items)
}

func (q *request) getSlotInfo() error {
	slot := q.slot()
	if err := q.end(); err != nil {
		return err
	}
	i := slot.Info()
	q.w.Space(i.Description, descriptionSize)
	q.w.Space(i.Manufacturer, manufacturerSize)
	q.w.Ulong(uint64(i.Flags))
	q.w.Version(i.HardwareVersion)
	q.w.Version(i.FirmwareVersion)
	return nil
}

func (q *request) getTokenInfo() error {
	slot := q.slot()
	if err := q.end(); err != nil {
		return err
	}
	i, err := q.app.TokenInfo(q.ctx, slot)
	if err != nil {
		return err
	}
	q.w.Space(i.Label, labelSize)
	q.w.Space(i.Manufacturer, manufacturerSize)
	q.w.Space(i.Model, modelSize)
	q.w.Space(i.Serial, serialSize)
	for _, v := range []uint64{
		uint64(i.Flags), i.MaxSessions, i.Sessions, i.MaxRWSessions, i.RWSessions, i.MaxPINLen, i.MinPINLen,
		i.TotalPublicMem, i.FreePublicMem, i.TotalPrivateMem, i.FreePrivateMem,
	} {
		q.w.Ulong(v)
	}
	q.w.Version(i.HardwareVersion)
	q.w.Version(i.FirmwareVersion)
	q.w.Space(i.UTCTime, timeSize)
	return nil
}

func (q *request) getMechanismList() error {
	slot := q.slot()
	room := q.r.Room()
	if err := q.end(); err != nil {
		return err
	}
	if !slot.Present() {
		return p11.CKR_TOKEN_NOT_PRESENT
	}
	var types []p11.MechanismType
	for _, m := range slot.Mechanisms() {
		if q.conn.protocol.Passes(m.Type) {
			types = append(types, m.Type)
		}
	}
	list(q, types, room)
	return nil
}

func (q *request) getMechanismInfo() error {
	slot := q.slot()
	t := p11.MechanismType(q.r.Ulong())
	if err := q.end(); err != nil {
		return err
	}
	m, err := slot.Mechanism(t)
	if err != nil {
		return err
	}
	q.w.Ulong(m.MinKeySize)
	q.w.Ulong(m.MaxKeySize)
	q.w.Ulong(uint64(m.Flags))
	return nil
}

// initToken also answers C_InitToken2, which only fixes the label's length.
func (q *request) initToken() error {
	slot, given, label := q.slot(), q.r.Array(), q.r.Text()
	if err := q.end(); err != nil {
		return err
	}
	pin, err := newPIN(given)
	if err != nil {
		return err
	}
	defer func() { _ = pin.Close() }()
	// Clients measure the blank padded field as a C string, and so may send
	// less or more of it.
	return q.app.InitToken(q.ctx, slot, pin, strings.TrimRight(label[:min(len(label), labelSize)], " "))
}

// waitForSlotEvent waits until a token comes or goes, or C_Finalize (PKCS#11 v3.1 §5.5.4). It
// has no turn meanwhile.
func (q *request) waitForSlotEvent() error {
	flags := p11.Flags(q.r.Ulong())
	if err := q.end(); err != nil {
		return err
	}
	q.turn.End()
	q.turn = nil
	for {
		id, err := q.app.SlotEvent()
		if err == nil {
			q.w.Ulong(uint64(id))
		}
		if err == nil || flags&p11.CKF_DONT_BLOCK != 0 {
			return err
		}
		select {
		case <-q.app.SlotNews():
		case <-q.ended:
			return p11.CKR_CRYPTOKI_NOT_INITIALIZED
		case <-q.ctx.Done():
			return q.ctx.Err()
		}
	}
}

func (q *request) openSession() error {
	slot := q.slot()
	flags := p11.Flags(q.r.Ulong())
	if err := q.end(); err != nil {
		return err
	}
	s, err := q.app.OpenSession(q.ctx, slot, flags)
	if err != nil {
		return err
	}
	q.w.Ulong(uint64(s.Handle()))
	return nil
}

func (q *request) closeAllSessions() error {
	slot := q.slot()
	if err := q.end(); err != nil {
		return err
	}
	err := q.app.CloseAllSessions(slot)
	q.conn.state.forget()
	return err
}
