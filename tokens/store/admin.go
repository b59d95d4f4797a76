package store

import (
	"context"
	"slices"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
)

// InitToken is tokens.Admin (PKCS#11 v3.1 §5.5.7, C_InitToken). Wrong PINs count
// as at a login.
//
// Nothing here can be one step. The order leaves a token that works wherever it
// is cut off: first without objects (as long as the index lists them the lists
// in the segment are mended from it), then without a user and under its new
// label, then with a new master key.
func (s *Store) InitToken(ctx context.Context, pin *secret.Bytes, label string) error {
	end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	so, err := partOf(p11.CKU_SO)
	if err != nil {
		return err
	}
	d := s.snapshot()
	if d.flags()&so.locked != 0 {
		return p11.Errorf(p11.CKR_PIN_LOCKED, "the SO PIN is locked after wrong tries")
	}
	if !d.pinFits(pin.Len()) || !d.pinMatches(so.hash, pin) {
		// A change of the SO's PIN that was cut off is completed first.
		key, err := s.checkPIN(so, pin)
		if err != nil {
			return err
		}
		_ = key.Close()
	}
	d = newTokenData(s.cfg.Kind)
	d.setHash(so.hash, pinHash(pin))
	d.flag(p11.CKF_TOKEN_INITIALIZED, 0)
	if err := d.setLabel(label); err != nil {
		return err
	}
	master, err := s.cfg.Kind.newMasterKey(s.cfg.Rand)
	if err != nil {
		return err
	}
	defer master.Close()
	wrapped, err := s.cfg.Kind.wrap(master, pin)
	if err != nil {
		return err
	}
	// What can fail for want of room fails before anything is lost.
	if err := s.top.prepare(tempName(dataFile), d[:]); err != nil {
		return err
	}
	if err := s.top.prepare(tempName(soKeyFile), wrapped); err != nil {
		_ = s.top.remove(tempName(dataFile))
		return err
	}
	put, err := s.emptyLists()
	if err != nil {
		return err
	}
	// The lines are marked at first: if the process is killed, the files are
	// removed later.
	if err := s.rewriteIndex(func(name, bool) lineEdit { return markLine }); err != nil {
		put()
		return err
	}
	s.endAll()
	if err := s.removeObjects(); err != nil {
		return err
	}
	st, err := s.top.commit(tempName(dataFile), dataFile)
	if err != nil {
		return err
	}
	s.setData(d, st)
	if err := s.commitKey(soKeyFile, wrapped); err != nil {
		return err
	}
	return s.top.remove(userKeyFile)
}

// endAll ends all logins and forgets all objects.
func (s *Store) endAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLoginsLocked(&s.roles[roleSO])
	s.endLoginsLocked(&s.roles[roleUser])
	for n := range s.files {
		s.forgetLocked(n)
	}
	s.names = reservation{}
	s.destroyed.clear()
}

// removeObjects removes every file that has the name of an object or stands in the
// index, so that names can start again, stock's scratch file, and what is in the
// index.
func (s *Store) removeObjects() error {
	x, err := s.readIndex()
	if err != nil {
		return err
	}
	files, err := s.objs.list()
	if err != nil {
		return err
	}
	for _, file := range files {
		if _, ok := parseName(file); ok || file == "IDX.TMP" || slices.Contains(x.unknown, file) {
			if err := s.objs.remove(file); err != nil {
				return err
			}
		}
	}
	if err := s.objs.sync(); err != nil {
		return err
	}
	return s.writeIndex(nil)
}

// InitPIN is tokens.Admin (PKCS#11 v3.1 §5.6.5, C_InitPIN).
func (s *Store) InitPIN(ctx context.Context, so tokens.Login, pin *secret.Bytes) error {
	l, ok := so.(*userLogin)
	if !ok || l.s != s || l.user != p11.CKU_SO {
		return p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "only the SO sets the user's PIN")
	}
	end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	s.mu.Lock()
	err = s.validLocked(l)
	var master *secret.Bytes
	if err == nil {
		master, err = s.roles[roleSO].key.Clone()
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	defer master.Close()
	d := s.snapshot()
	if err := d.checkNewPIN(pin); err != nil {
		return err
	}
	p, err := partOf(p11.CKU_USER)
	if err != nil {
		return err
	}
	d.setHash(p.hash, pinHash(pin))
	d.flag(p11.CKF_USER_PIN_INITIALIZED, p.toChange|p.countLow|p.finalTry|p.locked)
	return s.replacePIN(p, master, pin, d)
}

// SetPIN is tokens.Admin (PKCS#11 v3.1 §5.6.6, C_SetPIN). Wrong old PINs count as
// at a login. The master key is unwrapped with the old PIN, whoever is logged in.
func (s *Store) SetPIN(ctx context.Context, user p11.UserType, old, pin *secret.Bytes) error {
	p, err := partOf(user)
	if err != nil {
		return err
	}
	end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	master, err := s.checkPIN(p, old)
	if err != nil {
		return err
	}
	defer master.Close()
	d := s.snapshot()
	if err := d.checkNewPIN(pin); err != nil {
		return err
	}
	if pin.Equal(old) {
		return p11.Errorf(p11.CKR_PIN_INVALID, "the new PIN is the old one")
	}
	if isText(pin, p.defaultPIN) {
		return p11.Errorf(p11.CKR_PIN_INVALID, "the new PIN is the default one of the %s, which is not allowed", p.title)
	}
	d.setHash(p.hash, pinHash(pin))
	d.flag(0, p.toChange)
	return s.replacePIN(p, master, pin, d)
}

// replacePIN wraps the master key under the role's new PIN and makes d, with the
// PIN's hash, the token's data. Both files are on the disk before either takes
// its place. Cut off between the two, the role's master key opens with the new
// PIN and checkPIN puts the hash right.
func (s *Store) replacePIN(p part, master, pin *secret.Bytes, d tokenData) error {
	wrapped, err := s.cfg.Kind.wrap(master, pin)
	if err != nil {
		return err
	}
	before, err := s.readKeyFile(p.keyFile)
	if err != nil {
		return err
	}
	if err := s.top.prepare(tempName(p.keyFile), wrapped); err != nil {
		return err
	}
	if err := s.top.prepare(tempName(dataFile), d[:]); err != nil {
		_ = s.top.remove(tempName(p.keyFile))
		return err
	}
	err = s.commitKey(p.keyFile, wrapped)
	if err == nil {
		var st stamp
		if st, err = s.top.commit(tempName(dataFile), dataFile); err == nil {
			s.setData(d, st)
			return nil
		}
	}
	// The caller hears that the PIN is the old one, so make that true.
	_ = s.top.remove(tempName(dataFile))
	_ = s.top.remove(tempName(p.keyFile))
	if before != nil {
		if rerr := s.saveKey(p.keyFile, before); rerr != nil {
			s.cfg.Log.Error("the change of PIN is half done: the new PIN opens the token", "dir", s.cfg.Dir, "role", p.title, "err", rerr)
		}
	}
	return err
}

// saveKey replaces a master key file.
func (s *Store) saveKey(file string, wrapped []byte) error {
	if err := s.top.prepare(tempName(file), wrapped); err != nil {
		return err
	}
	return s.commitKey(file, wrapped)
}

func (s *Store) commitKey(file string, wrapped []byte) error {
	st, err := s.top.commit(tempName(file), file)
	if err != nil {
		return err
	}
	if file == soKeyFile {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.soKey, s.keyStamp = wrapped, st
	}
	return nil
}
