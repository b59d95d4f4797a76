package mountd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"time"

	"p11fs/engine"
	"p11fs/locks"
	"p11fs/p11"
	"p11fs/tokens"
)

// group returns the group that shares the token directories, or locks.NoGroup. Only
// root can give files to it.
func (d *Daemon) group() int { return d.conf.group() }

func (c Config) group() int {
	if c.Mode != System || os.Geteuid() != 0 {
		return locks.NoGroup
	}
	g, err := user.LookupGroup(Group)
	if err != nil {
		return locks.NoGroup
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return locks.NoGroup
	}
	return gid
}

// pinDelay is what a wrong PIN costs whoever gave it: three of them, which lock it,
// take three seconds.
const pinDelay = time.Second

// startWait is how long the start waits for the locks of tokens: for all of them together,
// and a thirtieth of it for each at least. Everybody in the group can hold a lock, and must
// not keep the daemon from serving the other tokens.
const startWait = 30 * time.Second

// openTokens opens the token of each slot, and makes the engine. A slot whose
// token cannot be opened, or fails its self-test, stays empty.
func (d *Daemon) openTokens(ctx context.Context) error {
	var slots []engine.SlotConfig
	wait := cmp.Or(d.conf.startWait, startWait)
	d.lockWait, d.lockUntil = wait, time.Now().Add(wait)
	for _, s := range d.slots {
		if s.Kind != nil {
			if s.token, s.err = d.openToken(ctx, s); s.err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				d.log.Error("token not usable", "token", s.Place.Name, "dir", s.Place.Dir, "err", s.err)
			}
		}
		slots = append(slots, engine.SlotConfig{
			ID: s.ID, Description: s.Description, Manufacturer: s.Manufacturer,
			Hardware: s.Hardware, Firmware: s.Firmware, Token: s.token,
		})
	}
	var err error
	if d.engine, err = engine.New(engine.Config{Slots: slots, Log: d.log, Now: d.now, PINDelay: pinDelay, SeparateWrapping: d.conf.SeparateWrapping, Policy: d.policy, Table: d.sessionTable(), Times: threadTimes}); err != nil {
		return err
	}
	d.later(d.engine.Close)
	return nil
}

// openToken opens and tests the token of a slot, making its directory and the
// token in it if there is none.
func (d *Daemon) openToken(ctx context.Context, s *slot) (tokens.Token, error) {
	p := s.Place
	if s.Kind.Protection != nil {
		if why := d.policy.Store(s.Kind.Protection(p)); why != "" {
			return nil, fmt.Errorf("%s: change the policy, or the format of the directory", why)
		}
	}
	p.Group, p.Room = d.group(), d.conf.TokenSize
	if err := locks.MakeDirectory(p.Dir, dirMode(d.conf.Mode), p.Group); err != nil {
		return nil, err
	}
	lock, err := locks.Open(s.lockPath, p.Group)
	if err != nil {
		return nil, err
	}
	if p.Shared, err = d.sharedThrough(s); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	p.Lock, p.Create, p.Log, p.Now = lock, true, d.log.With("token", p.Name), d.now
	lock.SetPatience(max(time.Until(d.lockUntil), d.lockWait/30))
	token, err := s.Kind.Open(ctx, p)
	if errors.Is(err, locks.ErrHeld) {
		pid, _ := locks.Holder("/proc", s.lockPath) // 0 is said too
		err = p11.Advise(fmt.Errorf("%w (process %d)", err, pid), "end that process, and start p11fs mount again")
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	lock.SetPatience(0)
	if err := d.selfTest(ctx, token); err != nil {
		return nil, errors.Join(err, token.Close(), lock.Close())
	}
	d.later(func() error {
		if err := errors.Join(token.Close(), lock.Close()); err != nil {
			return fmt.Errorf("closing token %s: %w", p.Name, err)
		}
		return nil
	})
	return token, nil
}

// maxSelfTest is how long a token may test itself: a device that answers no more is not to
// keep the others waiting.
const maxSelfTest = time.Minute

// selfTest has a token test itself, if it can.
func (d *Daemon) selfTest(ctx context.Context, t tokens.Token) error {
	tester, ok := t.(tokens.SelfTester)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, maxSelfTest)
	defer cancel()
	begin := d.now()
	if err := tester.SelfTest(ctx); err != nil {
		d.selfTestFailed = append(d.selfTestFailed, t.Name())
		return err
	}
	d.selfTested += d.now().Sub(begin)
	return nil
}
