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
	d.later(d.closeTokens)
	for _, s := range d.all() {
		if s.Kind != nil {
			if s.token, s.err = d.openToken(ctx, s); s.err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if errors.As(s.err, new(selfTestError)) {
					d.selfTestFailed = append(d.selfTestFailed, s.Place.Name)
				}
				d.log.Error("token not usable", "token", s.Place.Name, "dir", s.Place.Dir, "err", s.err)
			}
		}
		slots = append(slots, s.config())
	}
	var err error
	if d.engine, err = engine.New(engine.Config{Slots: slots, Log: d.log, Now: d.now, PINDelay: pinDelay, SeparateWrapping: d.conf.SeparateWrapping, Policy: d.policy, Table: d.sessionTable(),
		Processors: d.conf.Processors, Times: threadTimes}); err != nil {
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
	began := d.now()
	if err := selfTest(ctx, token); err != nil {
		return nil, errors.Join(err, token.Close(), lock.Close())
	}
	d.selfTested.Add(int64(d.now().Sub(began)))
	s.close = func() error {
		if err := errors.Join(token.Close(), lock.Close()); err != nil {
			return fmt.Errorf("closing token %s: %w", p.Name, err)
		}
		return nil
	}
	return token, nil
}

// maxSelfTest is how long a token may test itself: a device that answers no more is not to
// keep the others waiting.
const maxSelfTest = time.Minute

// A selfTestError is why a token is not served that did not pass its own test.
type selfTestError struct{ error }

// Unwrap returns what went wrong.
func (e selfTestError) Unwrap() error { return e.error }

// selfTest has a token test itself, if it can.
func selfTest(ctx context.Context, t tokens.Token) error {
	tester, ok := t.(tokens.SelfTester)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, maxSelfTest)
	defer cancel()
	if err := tester.SelfTest(ctx); err != nil {
		return selfTestError{err}
	}
	return nil
}
