package rpc

import (
	"p11fs/engine"
	"p11fs/mountd/rpc/wire"
	"p11fs/p11"
)

// handlers answer the calls. Those that are missing have a session and are not
// supported: the operation states of C_GetOperationState, which would carry key
// material out of the daemon, and the messages of PKCS#11 v3.0 §5.9 to §5.16.
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
	wire.CallCloseSession:     (*request).closeSession,
	wire.CallCloseAllSessions: (*request).closeAllSessions,
	wire.CallGetSessionInfo:   (*request).getSessionInfo,
	wire.CallSessionCancel:    (*request).sessionCancel,
	wire.CallInitPIN:          (*request).initPIN,
	wire.CallSetPIN:           (*request).setPIN,
	wire.CallLogin:            (*request).login,
	wire.CallLoginUser:        (*request).loginUser,
	wire.CallLogout:           (*request).logout,

	wire.CallCreateObject:      (*request).createObject,
	wire.CallCopyObject:        (*request).copyObject,
	wire.CallDestroyObject:     (*request).destroyObject,
	wire.CallGetObjectSize:     (*request).getObjectSize,
	wire.CallGetAttributeValue: (*request).getAttributeValue,
	wire.CallSetAttributeValue: (*request).setAttributeValue,
	wire.CallFindObjectsInit:   (*request).findObjectsInit,
	wire.CallFindObjects:       (*request).findObjects,
	wire.CallFindObjectsFinal:  (*request).findObjectsFinal,

	wire.CallEncryptInit:         initialise(p11.CKF_ENCRYPT),
	wire.CallEncrypt:             transform(whole(p11.CKF_ENCRYPT), p11.CKF_ENCRYPT),
	wire.CallEncryptUpdate:       transform(part(p11.CKF_ENCRYPT), p11.CKF_ENCRYPT),
	wire.CallEncryptFinal:        final(p11.CKF_ENCRYPT),
	wire.CallDecryptInit:         initialise(p11.CKF_DECRYPT),
	wire.CallDecrypt:             transform(whole(p11.CKF_DECRYPT), p11.CKF_DECRYPT),
	wire.CallDecryptUpdate:       transform(part(p11.CKF_DECRYPT), p11.CKF_DECRYPT),
	wire.CallDecryptFinal:        final(p11.CKF_DECRYPT),
	wire.CallDigestInit:          initialise(p11.CKF_DIGEST),
	wire.CallDigest:              transform(whole(p11.CKF_DIGEST), p11.CKF_DIGEST),
	wire.CallDigestUpdate:        update(silent(p11.CKF_DIGEST)),
	wire.CallDigestKey:           (*request).digestKey,
	wire.CallDigestFinal:         final(p11.CKF_DIGEST),
	wire.CallSignInit:            initialise(p11.CKF_SIGN),
	wire.CallSign:                transform(whole(p11.CKF_SIGN), p11.CKF_SIGN),
	wire.CallSignUpdate:          update(silent(p11.CKF_SIGN)),
	wire.CallSignFinal:           final(p11.CKF_SIGN),
	wire.CallSignRecoverInit:     initialise(p11.CKF_SIGN_RECOVER),
	wire.CallSignRecover:         transform(whole(p11.CKF_SIGN_RECOVER), p11.CKF_SIGN_RECOVER),
	wire.CallVerifyInit:          initialise(p11.CKF_VERIFY),
	wire.CallVerify:              (*request).verify,
	wire.CallVerifyUpdate:        update(silent(p11.CKF_VERIFY)),
	wire.CallVerifyFinal:         (*request).verifyFinal,
	wire.CallVerifyRecoverInit:   initialise(p11.CKF_VERIFY_RECOVER),
	wire.CallVerifyRecover:       transform(whole(p11.CKF_VERIFY_RECOVER), p11.CKF_VERIFY_RECOVER),
	wire.CallDigestEncryptUpdate: transform(both(p11.CKF_ENCRYPT, p11.CKF_DIGEST), p11.CKF_ENCRYPT),
	wire.CallDecryptDigestUpdate: transform(both(p11.CKF_DECRYPT, p11.CKF_DIGEST), p11.CKF_DECRYPT),
	wire.CallSignEncryptUpdate:   transform(both(p11.CKF_ENCRYPT, p11.CKF_SIGN), p11.CKF_ENCRYPT),
	wire.CallDecryptVerifyUpdate: transform(both(p11.CKF_DECRYPT, p11.CKF_VERIFY), p11.CKF_DECRYPT),
	wire.CallGenerateKey:         (*request).generateKey,
	wire.CallGenerateKeyPair:     (*request).generateKeyPair,
	wire.CallWrapKey:             (*request).wrapKey,
	wire.CallUnwrapKey:           (*request).unwrapKey,
	wire.CallDeriveKey:           (*request).deriveKey,
	wire.CallDeriveKey2:          (*request).deriveKey,
	wire.CallSeedRandom:          update((*engine.Session).SeedRandom),
	wire.CallGenerateRandom:      (*request).generateRandom,

	wire.CallSignOnce:    once(p11.CKF_SIGN),
	wire.CallVerifyOnce:  (*request).verifyOnce,
	wire.CallEncryptOnce: once(p11.CKF_ENCRYPT),
	wire.CallDecryptOnce: once(p11.CKF_DECRYPT),
	wire.CallDigestOnce:  once(p11.CKF_DIGEST),
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

// unsupported answers the calls that are missing. It reads no argument but the
// session.
func (q *request) unsupported() error {
	q.session()
	if err := q.failure(); err != nil {
		return err
	}
	return p11.CKR_FUNCTION_NOT_SUPPORTED
}

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
	if q.conn.protocol == wire.V0 {
		version = p11.Version{Major: 2, Minor: 40} // those clients know no later
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
	i, err := slot.TokenInfo(q.ctx)
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
	slot := q.slot()
	pin := q.pin()
	defer func() { _ = pin.Close() }()
	label := q.r.Text()
	if err := q.end(); err != nil {
		return err
	}
	// Clients measure the blank padded field as a C string, and so may send
	// less or more of it.
	return q.app.InitToken(q.ctx, slot, pin, trimBlanks(label[:min(len(label), labelSize)]))
}

func trimBlanks(s string) string {
	for len(s) > 0 && s[len(s)-1] == ' ' {
		s = s[:len(s)-1]
	}
	return s
}

// waitForSlotEvent waits until C_Finalize (PKCS#11 v3.1 §5.5.3): slots do not change
// while the daemon runs.
func (q *request) waitForSlotEvent() error {
	flags := p11.Flags(q.r.Ulong())
	if err := q.end(); err != nil {
		return err
	}
	if flags&p11.CKF_DONT_BLOCK != 0 {
		return p11.CKR_NO_EVENT
	}
	select {
	case <-q.ended:
		return p11.CKR_CRYPTOKI_NOT_INITIALIZED
	case <-q.ctx.Done():
		return q.ctx.Err()
	}
}
