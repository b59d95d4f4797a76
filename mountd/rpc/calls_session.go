package rpc

import (
	"p11fs/p11"
)

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

func (q *request) closeSession() error {
	s := q.session()
	if err := q.end(); err != nil {
		return err
	}
	err := s.Close()
	q.conn.state.forget()
	return err
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

func (q *request) getSessionInfo() error {
	s := q.session()
	if err := q.end(); err != nil {
		return err
	}
	i, err := s.Info()
	if err != nil {
		return err
	}
	q.w.Ulong(uint64(i.SlotID))
	q.w.Ulong(uint64(i.State))
	q.w.Ulong(uint64(i.Flags))
	q.w.Ulong(i.DeviceError)
	return nil
}

func (q *request) sessionCancel() error {
	s := q.session()
	flags := p11.Flags(q.r.Ulong())
	if err := q.end(); err != nil {
		return err
	}
	return s.SessionCancel(q.ctx, flags)
}

func (q *request) initPIN() error {
	s := q.session()
	pin := q.pin()
	defer func() { _ = pin.Close() }()
	if err := q.end(); err != nil {
		return err
	}
	return s.InitPIN(q.ctx, pin)
}

func (q *request) setPIN() error {
	s := q.session()
	old := q.pin()
	defer func() { _ = old.Close() }()
	pin := q.pin()
	defer func() { _ = pin.Close() }()
	if err := q.end(); err != nil {
		return err
	}
	return s.SetPIN(q.ctx, old, pin)
}

func (q *request) login() error {
	s := q.session()
	user := p11.UserType(q.r.Ulong())
	pin := q.pin()
	defer func() { _ = pin.Close() }()
	if err := q.end(); err != nil {
		return err
	}
	return s.Login(q.ctx, user, pin)
}

// loginUser is C_LoginUser (PKCS#11 v3.0 §5.6.9). Tokens have no user names:
// only an empty one is C_Login.
func (q *request) loginUser() error {
	s := q.session()
	user := p11.UserType(q.r.Ulong())
	pin := q.pin()
	defer func() { _ = pin.Close() }()
	name := q.input()
	if err := q.end(); err != nil {
		return err
	}
	if len(name) != 0 {
		return p11.Errorf(p11.CKR_FUNCTION_NOT_SUPPORTED, "the token has no named users")
	}
	return s.Login(q.ctx, user, pin)
}

func (q *request) logout() error {
	s := q.session()
	if err := q.end(); err != nil {
		return err
	}
	return s.Logout(q.ctx)
}
