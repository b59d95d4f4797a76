package ep11tok

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"time"

	"p11fs/p11"
	"p11fs/tokens/card"
	"p11fs/tokens/card/ep11"
)

// cards are those of a token.
type cards struct {
	card.Health
	via    card.Transport
	target card.Target // of the configuration; none is any
	wkvp   []byte      // the wrapping key that is expected; nil for that of the first card
	filter filter
	like   func(p11.MechanismType) (p11.MechanismInfo, bool) // a mechanism as it is in software

	asking chan struct{} // has room for one: who asks the cards what they are

	mu      sync.Mutex // guards all below; nothing is locked under it
	known   bool       // the cards have said what they are
	domains []domain
	list    []p11.MechanismInfo
	imports map[string][]byte // the key that brings keys in, by the WKID of its domains
}

// A domain is one card's, or, with any, the one that answered.
type domain struct {
	card.APQN
	any    bool
	err    error // why it is of no use
	info   ep11.DomainInfo
	module ep11.ModuleInfo
	points [ep11.ControlPointBytes]byte
}

// wkid is what the keys of the domain carry.
func (d *domain) wkid() []byte { return d.info.WK[:wkvpSize] }

// target is what reaches the domain.
func (d *domain) target() card.Target {
	if d.any {
		return nil
	}
	return card.Target{d.APQN}
}

func newCards(via card.Transport, c conf, f filter, now func() time.Time, like func(p11.MechanismType) (p11.MechanismInfo, bool)) *cards {
	return &cards{
		via: via, target: c.apqns, wkvp: c.wkvp, filter: f, like: like, asking: make(chan struct{}, 1),
		imports: make(map[string][]byte), Health: card.Health{Now: now},
	}
}

// heard remembers whether a card answered a call that ended with err.
func (c *cards) heard(ctx context.Context, err error) {
	if err != nil && ctx.Err() != nil {
		return // nobody waited for it
	}
	if !gone(err) {
		c.Heard(nil)
		return
	}
	c.mu.Lock()
	c.known = false // another one may come in its place
	c.mu.Unlock()
	c.Heard(failed(err, nil))
}

// ask makes a call of the cards, which must have said what they are.
func (c *cards) ask(ctx context.Context, f func() error) error {
	if err := c.learn(ctx, false); err != nil {
		return err
	}
	return c.try(ctx, f)
}

// try makes a call.
func (c *cards) try(ctx context.Context, f func() error) error {
	if err := c.May(); err != nil {
		return err
	}
	err := f()
	c.heard(ctx, err)
	return err
}

// learn asks the cards what they are, if they have not said so, or anew.
func (c *cards) learn(ctx context.Context, anew bool) error {
	c.mu.Lock()
	known := c.known
	c.mu.Unlock()
	if known && !anew {
		return nil
	}
	if err := c.May(); err != nil {
		return err
	}
	select {
	case c.asking <- struct{}{}:
		defer func() { <-c.asking }()
	case <-ctx.Done():
		return ctx.Err()
	}
	c.mu.Lock()
	known = c.known
	c.mu.Unlock()
	if known && !anew {
		return nil
	}
	var domains []domain
	var list []p11.MechanismInfo
	err := card.Ask(ctx, func(ctx context.Context) (err error) {
		domains, list, err = c.look(ctx)
		return err
	})
	c.heard(ctx, err)
	if err != nil {
		return failed(err, nil)
	}
	c.mu.Lock()
	changed := !slices.Equal(list, c.list)
	c.known, c.domains, c.list = true, domains, list
	c.mu.Unlock()
	if changed {
		c.Tell()
	}
	return nil
}

// look asks each card. The error is that of the last one if none is of use.
func (c *cards) look(ctx context.Context) ([]domain, []p11.MechanismInfo, error) {
	list := []domain{{any: true}}
	if len(c.target) > 0 {
		list = nil
		for _, a := range c.target {
			list = append(list, domain{APQN: a})
		}
	}
	var last error
	useful := 0
	for i := range list {
		d := &list[i]
		if d.err = c.lookAt(ctx, d); d.err != nil {
			if ctx.Err() != nil {
				return nil, nil, ctx.Err()
			}
			last = d.err
			continue
		}
		useful++
	}
	if useful == 0 {
		return nil, nil, last
	}
	mechanisms, err := c.mechanisms(ctx, list)
	return list, mechanisms, err
}

// lookAt asks one card.
func (c *cards) lookAt(ctx context.Context, d *domain) (err error) {
	if d.info, err = ep11.Domain(ctx, c.via, d.target()); err != nil {
		return err
	}
	if d.any {
		d.Domain = uint16(d.info.Domain)
	}
	if d.module, err = ep11.Module(ctx, c.via, d.target()); err != nil {
		return err
	}
	d.points, err = ep11.ControlPoints(ctx, c.via, d.target())
	return err
}

// wrong says why a domain is not for new keys: it has no wrapping key, or another one than
// it is expected to have, which is that of the first domain where none is named.
func (d *domain) wrong(want []byte) error {
	switch {
	case d.err != nil:
		return d.err
	case d.info.Flags&ep11.DomainWK == 0:
		return p11.Errorf(ep11.WKNotInitialised, "the domain %s has no wrapping key", d.name())
	case want != nil && !bytes.Equal(d.wkid(), want):
		return p11.Errorf(ep11.WKIDMismatch, "the domain %s has the wrapping key %s and not %s", d.name(), hex.EncodeToString(d.wkid()), hex.EncodeToString(want))
	}
	return nil
}

func (d *domain) name() string {
	if d.any {
		return fmt.Sprintf("any.%04x", d.Domain)
	}
	return d.String()
}

// fresh is where new keys are made, and the WKID that they get. All of them are of one
// wrapping key, so that each of these domains can use each of them.
func (c *cards) fresh() (card.Target, []byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	want := c.wkvp
	var target card.Target
	var why error
	found := false
	for i := range c.domains {
		d := &c.domains[i]
		if err := d.wrong(want); err != nil {
			why = err
			continue
		}
		want, found = d.wkid(), true
		target = append(target, d.target()...)
	}
	if !found {
		if why == nil {
			why = p11.Errorf(p11.CKR_DEVICE_REMOVED, "no card has said what it is")
		}
		return nil, nil, failed(why, nil)
	}
	return target, bytes.Clone(want), nil
}

// of is where a key can be used: at the domains of its wrapping key, or, where none is known
// to be one of these, or it says none, at all of them.
func (c *cards) of(blob []byte) card.Target {
	id := ep11.Blob(blob).WKID()
	c.mu.Lock()
	defer c.mu.Unlock()
	var all, fit card.Target
	for i := range c.domains {
		d := &c.domains[i]
		if d.err != nil {
			continue
		}
		all = append(all, d.target()...)
		if id == nil || bytes.Equal(id, d.wkid()) {
			fit = append(fit, d.target()...)
		}
	}
	if len(fit) == 0 {
		return all
	}
	return fit
}

// lines tell of the domains, one each: all of it, or what most people want to know.
func (c *cards) lines(all bool) []string {
	why := c.Why()
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for i := range c.domains {
		d := &c.domains[i]
		if d.err != nil || why != nil {
			list = append(list, d.name()+" offline")
			continue
		}
		next := "-"
		if d.info.Flags&ep11.DomainNext != 0 {
			next = hex.EncodeToString(d.info.Next[:wkvpSize])
			if d.info.Flags&ep11.DomainNextCommitted != 0 {
				next += ",committed"
			}
		}
		wk := "-"
		if d.info.Flags&ep11.DomainWK != 0 {
			wk = hex.EncodeToString(d.wkid())
		}
		if all {
			m := &d.module
			list = append(list, fmt.Sprintf("%s online mode=ep11 serial=%s api=%d firmware=%d.%d domain-mode=%x wk=%s next=%s control-points=%x",
				d.name(), printable(m.Serial[:]), m.API, m.FirmwareVersion[0], m.FirmwareVersion[1], d.info.Mode, wk, next, d.points))
			continue
		}
		list = append(list, fmt.Sprintf("%s online serial=%s wk=%s next=%s api=%d", d.name(), printable(d.module.Serial[:]), wk, next, d.module.API))
	}
	if len(list) == 0 {
		list = append(list, "no card has answered yet")
	}
	return list
}

// printable is what a card calls itself, for people.
func printable(b []byte) string {
	b = bytes.TrimRight(b, " \x00")
	if len(b) == 0 || bytes.ContainsFunc(b, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "-"
	}
	return string(b)
}
