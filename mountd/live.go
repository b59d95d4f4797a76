package mountd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"p11fs/engine"
	"p11fs/p11"
)

// control is what is written to the file ctl at the top of the tree, by root or the owner of
// the mount: tokens come and go while the daemon serves. Files and the configuration are its
// writer's to change: before a token comes, and after it went.
func (d *Daemon) control(ctx context.Context, by engine.Owner, line string) error {
	words := strings.Fields(line)
	d.changing.Lock()
	defer d.changing.Unlock()
	switch {
	case d.ended:
		return p11.Errorf(p11.CKR_CRYPTOKI_NOT_INITIALIZED, "the daemon is stopping")
	case len(words) == 2 && words[0] == "add":
		return d.addToken(ctx, words[1])
	case len(words) == 2 && words[0] == "remove":
		return d.removeToken(ctx, by, words[1], false)
	case len(words) == 3 && words[0] == "remove" && words[2] == "force":
		return d.removeToken(ctx, by, words[1], true)
	}
	return p11.Errorf(p11.CKR_ARGUMENTS_BAD, "that is no order: write add TOKEN, remove TOKEN or remove TOKEN force")
}

// addToken takes a token into service that the configuration has, or without one the
// directory of tokens.
func (d *Daemon) addToken(ctx context.Context, name string) error {
	found, _, err := d.conf.Slots()
	if err != nil {
		return p11.Errorf(p11.CKR_ARGUMENTS_BAD, "%w", err)
	}
	at := slices.IndexFunc(found, func(s Slot) bool { return s.label() == name })
	if at < 0 {
		return p11.Errorf(p11.CKR_ARGUMENTS_BAD, "there is no token %q in the configuration or the directory of tokens: p11fs token new makes one", name)
	}
	s := &slot{Slot: found[at]}
	if s.Kind == nil {
		return p11.Errorf(p11.CKR_ARGUMENTS_BAD, "%s", s.Why)
	}
	for _, other := range d.all() {
		if other.label() == name && other.token != nil {
			return p11.Advise(p11.Errorf(p11.CKR_ARGUMENTS_BAD, "the daemon serves the token %s already", name), "nothing to do")
		}
	}
	if s.numbered { // by the order of names, which is another at the next start
		s.ID = d.slotFor(name)
		s.Place.Slot = uint64(s.ID)
	}
	s.lockPath = d.conf.lockPath(s.Slot)
	if s.token, err = d.openToken(ctx, s); err != nil {
		return err
	}
	// One that could not be opened before makes way.
	rest := slices.DeleteFunc(slices.Clone(d.all()), func(o *slot) bool { return o.token == nil && (o.label() == name || o.ID == s.ID) })
	for _, o := range d.all() {
		if old, err := d.engine.Slot(o.ID); err == nil && !slices.Contains(rest, o) {
			if err := d.engine.RemoveSlot(ctx, old, engine.Owner{}, true); err != nil {
				return errors.Join(err, s.close())
			}
		}
	}
	if _, err := d.engine.AddSlot(s.config()); err != nil {
		return p11.Errorf(p11.CKR_ARGUMENTS_BAD, "%w", errors.Join(err, s.close()))
	}
	d.setSlots(append(rest, s))
	d.log.Info("token taken into service", "token", name, "kind", s.Kind.Name, "slot", uint64(s.ID))
	return nil
}

// slotFor is the number of the slot that a token would have, or the least that no slot has.
func (d *Daemon) slotFor(name string) (id p11.SlotID) {
	if at := slices.IndexFunc(d.all(), func(s *slot) bool { return s.label() == name }); at >= 0 {
		return d.all()[at].ID
	}
	for slices.ContainsFunc(d.all(), func(s *slot) bool { return s.ID == id }) {
		id++
	}
	return id
}

// removeToken takes a token out of service, and closes it.
func (d *Daemon) removeToken(ctx context.Context, by engine.Owner, name string, force bool) error {
	at := slices.IndexFunc(d.all(), func(s *slot) bool { return s.token != nil && s.label() == name })
	if at < 0 {
		return p11.Advise(p11.Errorf(p11.CKR_SLOT_ID_INVALID, "the daemon serves no token %q", name), "p11fs token ls lists them")
	}
	s := d.all()[at]
	served, err := d.engine.SlotNamed(name)
	if err != nil {
		return err
	}
	if err := d.openElsewhere(s, force); err != nil {
		return err
	}
	if err := d.engine.RemoveSlot(ctx, served, by, force); err != nil {
		return err
	}
	d.setSlots(slices.Delete(slices.Clone(d.all()), at, at+1))
	if d.tree != nil {
		d.tree.Forget(served)
	}
	if err := s.close(); err != nil {
		d.log.Warn("a token that went is not closed in order", "token", name, "err", err)
	}
	return nil
}

// openElsewhere refuses where programs with openCryptoki's library have the token open.
func (d *Daemon) openElsewhere(s *slot, force bool) error {
	shared, err := d.sharedThrough(s)
	if err != nil || shared == nil || force {
		return nil
	}
	users, err := usersOf(shared.Dir + "/" + shared.Name)
	users = slices.DeleteFunc(users, func(pid string) bool { return pid == fmt.Sprint(d.pid) })
	if err != nil || len(users) == 0 {
		return nil
	}
	return p11.Advise(p11.Errorf(p11.CKR_SESSION_EXISTS, "programs with openCryptoki's library have the token %s open (processes %s)", s.label(), strings.Join(users, ", ")),
		"end them, or add --force")
}

// setSlots has the daemon serve these slots. Programs with openCryptoki's library have the
// new ones when they start.
func (d *Daemon) setSlots(slots []*slot) {
	d.slots.Store(&slots)
	if d.sessionTable() != nil {
		d.stock.daemon.SetSlots(d.stockSlots())
	}
}

// all are the slots that the daemon has. The list is never changed.
func (d *Daemon) all() []*slot { return *d.slots.Load() }

// closeTokens closes what openToken opened. None is opened any more.
func (d *Daemon) closeTokens() error {
	d.changing.Lock()
	defer d.changing.Unlock()
	d.ended = true
	var errs []error
	for _, s := range slices.Backward(d.all()) {
		if s.token != nil {
			errs = append(errs, s.close())
		}
	}
	return errors.Join(errs...)
}
