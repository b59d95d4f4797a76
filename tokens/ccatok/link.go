package ccatok

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"p11fs/p11"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cca"
)

// A link is the way to the card of a token.
type link struct {
	card.Health
	via      card.Transport
	expected map[string]cca.Pattern

	mu    sync.Mutex // guards all below; nothing is locked under it
	known bool       // the card has the master keys that are expected
}

// call makes calls of a card that has the right master keys.
func (l *link) call(ctx context.Context, f func(via card.Transport) error) error {
	if err := l.May(); err != nil {
		return err
	}
	l.mu.Lock()
	known := l.known
	l.mu.Unlock()
	var err error
	if !known {
		err = l.learn(ctx)
	}
	if err == nil {
		err = f(l.via)
	}
	l.heard(ctx, err)
	return err
}

// heard remembers whether a card answered what ended with err.
func (l *link) heard(ctx context.Context, err error) {
	if err != nil && ctx.Err() != nil {
		return // nobody waited for it
	}
	var answered cca.Error
	gone := err != nil && p11.RVOf(err) == p11.CKR_DEVICE_REMOVED && (!errors.As(err, &answered) || answered == cca.ErrNoCard)
	if !gone {
		l.Heard(nil)
		return
	}
	l.mu.Lock()
	l.known = false // another one may come in its place
	l.mu.Unlock()
	l.Heard(err)
}

// Where the answer to STATICSB has the verification patterns of the current master keys:
// behind their length and identifier (openCryptoki 3.19).
func places() map[string]uint16 {
	return map[string]uint16{"SYM": 0x0f07, "AES": 0x0f0b, "APKA": 0x0f0e}
}

// patternsOf are the patterns of the current master keys in an answer to STATICSB.
func patternsOf(data []byte) map[string]cca.Pattern {
	found, all := make(map[string]cca.Pattern), allPatterns(data)
	for name, id := range places() {
		if p, ok := all[id]; ok {
			found[name] = p
		}
	}
	return found
}

// allPatterns are those of all registers, by identifier.
func allPatterns(data []byte) map[uint16]cca.Pattern {
	found := make(map[uint16]cca.Pattern)
	for len(data) >= 4 {
		n, id := int(binary.BigEndian.Uint16(data)), binary.BigEndian.Uint16(data[2:])
		if n < 4 || n > len(data) {
			break
		}
		if n == 4+len(cca.Pattern{}) {
			found[id] = cca.Pattern(data[4:n])
		}
		data = data[n:]
	}
	return found
}

// learn asks the card which master keys it has, if some are expected.
func (l *link) learn(ctx context.Context) error {
	var data []byte
	err := card.Ask(ctx, func(ctx context.Context) (err error) {
		_, data, err = cca.CSUACFQ(ctx, l.via, nil, cca.Rules{"STATICSB"}.Bytes())
		return err
	})
	if err != nil {
		return err
	}
	have := patternsOf(data)
	for name, want := range l.expected {
		if have[name] != want {
			return p11.Errorf(p11.CKR_DEVICE_ERROR, "the card's %s master key is %x and not %x, which the configuration expects", name, have[name], want)
		}
	}
	l.mu.Lock()
	l.known = true
	l.mu.Unlock()
	return nil
}

// describe is a few lines on the card.
func (l *link) describe(ctx context.Context) (lines []string) {
	err := l.call(ctx, func(via card.Transport) error {
		answer, _, err := cca.CSUACFQ(ctx, via, nil, cca.Rules{"STATCRD2"}.Bytes())
		if err != nil {
			return err
		}
		if r, err := cca.ParseRules(answer); err == nil && len(r) > 14 {
			lines = append(lines, fmt.Sprintf("%s in CCA mode, serial number %s", r[4], r[14]))
		}
		_, data, err := cca.CSUACFQ(ctx, via, nil, cca.Rules{"STATICSB"}.Bytes())
		if err != nil {
			return err
		}
		have := patternsOf(data)
		lines = append(lines, fmt.Sprintf("master keys sym=%x aes=%x apka=%x", have["SYM"], have["AES"], have["APKA"]))
		return nil
	})
	if err != nil {
		return nil
	}
	return lines
}
