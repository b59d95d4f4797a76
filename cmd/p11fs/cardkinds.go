package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"p11fs/tokens/card"
	"p11fs/tokens/card/soft"
	"p11fs/tokens/swtok"
)

// A cardKind is one kind of software card.
type cardKind interface {
	name() string
	abi() card.ABI
	// made says whether there are cards in dir, and make makes some.
	made(dir string) bool
	make(dir string, apqns []card.APQN) error
	// open opens them to answer calls.
	open(dir string, p swtok.Provider, log *slog.Logger) (card.Transport, error)
	// status tells of them, in lines.
	status(dir string) ([]string, error)
	// change changes master keys: of one APQN, or of all if that is nil.
	change(dir string, a *card.APQN, what string) error
	setOnline(dir string, a card.APQN, on bool) error
}

// cardKinds are all that there are.
func cardKinds() []cardKind { return []cardKind{ep11Cards{}} }

func cardKindNames() (names []string) {
	for _, k := range cardKinds() {
		names = append(names, k.name())
	}
	return names
}

func cardKindOf(name string) (cardKind, error) {
	for _, k := range cardKinds() {
		if k.name() == name {
			return k, nil
		}
	}
	return nil, &usageError{err: fmt.Errorf("there is no kind of card %q: name %s", name, strings.Join(cardKindNames(), ", "))}
}

// ep11Cards are the cards of package soft.
type ep11Cards struct{}

func (ep11Cards) name() string  { return "ep11" }
func (ep11Cards) abi() card.ABI { return card.EP11 }

func (ep11Cards) made(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, cardFile))
	return err == nil
}

func (k ep11Cards) make(dir string, apqns []card.APQN) error {
	return soft.MakeSet(dir, k.name(), apqns, []string{soft.WK})
}

func (k ep11Cards) set(dir string) (*soft.Set, error) {
	s, err := soft.OpenSet(dir)
	if err == nil && s.Kind() != k.name() {
		return nil, errors.Join(fmt.Errorf("%s has %s cards: say --kind %[2]s", dir, s.Kind()), s.Close())
	}
	return s, err
}

// with is do with the set of dir.
func (k ep11Cards) with(dir string, do func(*soft.Set) error) error {
	s, err := k.set(dir)
	if err != nil {
		return err
	}
	return errors.Join(do(s), s.Close())
}

func (k ep11Cards) open(dir string, p swtok.Provider, log *slog.Logger) (card.Transport, error) {
	s, err := k.set(dir)
	if err != nil {
		return nil, err
	}
	return soft.NewEP11(s, p, log), nil
}

func (k ep11Cards) change(dir string, a *card.APQN, what string) error {
	return k.with(dir, func(s *soft.Set) error { return withAdvice(s.Change(a, soft.WK, what)) })
}

func (k ep11Cards) setOnline(dir string, a card.APQN, on bool) error {
	return k.with(dir, func(s *soft.Set) error { return s.SetOnline(a, on) })
}

// patternShown is how many bytes of a verification pattern are shown: the WKID.
const patternShown = 16

func (k ep11Cards) status(dir string) (lines []string, err error) {
	shown := func(pattern []byte) string {
		if pattern == nil {
			return "-"
		}
		return fmt.Sprintf("%x", pattern[:patternShown])
	}
	err = k.with(dir, func(s *soft.Set) error {
		lines = append(lines, fmt.Sprintf("%s software card, serial number %s, in %s", k.name(), s.Serial(), dir))
		for _, a := range s.APQNs() {
			m, err := s.WrappingKey(a)
			if err != nil {
				return err
			}
			state := "offline"
			if s.Online(a) {
				state = "online"
			}
			line := fmt.Sprintf("%v %s wk=%s next=%s", a, state, shown(m.Current), shown(m.Next))
			if m.Committed {
				line += " committed"
			}
			lines = append(lines, line)
		}
		return nil
	})
	return lines, err
}
