package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"p11fs/tokens/card"
	"p11fs/tokens/card/soft"
	"p11fs/tokens/card/softcca"
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
	// change changes master keys: of one APQN, or of all if that is nil. Without force it
	// activates none that no key of a token was put under.
	change(dir string, a *card.APQN, what string, force bool) error
	setOnline(dir string, a card.APQN, on bool) error
}

// cardKinds are all that there are.
func cardKinds() []cardKind { return []cardKind{ep11Cards(), ccaCards()} }

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

// setCards are cards of a soft.Set.
type setCards struct {
	kind      card.ABI
	registers []string // the master keys
	answers   func(*soft.Set, swtok.Provider, *slog.Logger) card.Transport
	// shown is the card and the verification patterns of a domain's master keys, as the file
	// card of a token has them.
	shown func(*soft.Set, card.APQN) (string, error)
}

// ep11Cards are those of package soft.
func ep11Cards() cardKind {
	return setCards{card.EP11, []string{soft.WK}, func(s *soft.Set, p swtok.Provider, log *slog.Logger) card.Transport { return soft.NewEP11(s, p, log) }, ep11Patterns}
}

// ccaCards are those of package softcca.
func ccaCards() cardKind {
	return setCards{card.CCA, softcca.MasterNames(), func(s *soft.Set, p swtok.Provider, log *slog.Logger) card.Transport {
		return softcca.NewCards(s, p, log)
	}, ccaPatterns}
}

func (k setCards) name() string  { return k.kind.String() }
func (k setCards) abi() card.ABI { return k.kind }

func (setCards) made(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, cardFile))
	return err == nil
}

func (k setCards) make(dir string, apqns []card.APQN) error {
	return soft.MakeSet(dir, k.name(), apqns, k.registers)
}

func (k setCards) set(dir string) (*soft.Set, error) {
	s, err := soft.OpenSet(dir)
	if err == nil && s.Kind() != k.name() {
		return nil, errors.Join(fmt.Errorf("%s has %s cards: say --kind %[2]s", dir, s.Kind()), s.Close())
	}
	return s, err
}

// with is do with the set of dir.
func (k setCards) with(dir string, do func(*soft.Set) error) error {
	s, err := k.set(dir)
	if err != nil {
		return err
	}
	return errors.Join(do(s), s.Close())
}

func (k setCards) open(dir string, p swtok.Provider, log *slog.Logger) (card.Transport, error) {
	s, err := k.set(dir)
	if err != nil {
		return nil, err
	}
	return k.answers(s, p, log), nil
}

func (k setCards) change(dir string, a *card.APQN, what string, force bool) error {
	return k.with(dir, func(s *soft.Set) error {
		at := s.APQNs()[0]
		if a != nil {
			at = *a
		}
		next := func(register string) bool { return s.Committed(at, register) }
		carried := func(register string) bool { return s.Carried(a, register) }
		if what == soft.ChangeActivate && !force && slices.ContainsFunc(k.registers, next) && !slices.ContainsFunc(k.registers, carried) {
			return errors.New("no key of a token is under the next master key yet, and activate loses all that are not: p11fs card reencipher TOKEN first, for each token of the card; with --force they may be lost")
		}
		for _, register := range k.registers {
			if err := s.Change(a, register, what); err != nil {
				return withAdvice(err)
			}
		}
		return nil
	})
}

func (k setCards) setOnline(dir string, a card.APQN, on bool) error {
	return k.with(dir, func(s *soft.Set) error { return s.SetOnline(a, on) })
}

func (k setCards) status(dir string) (lines []string, err error) {
	err = k.with(dir, func(s *soft.Set) error {
		lines = append(lines, fmt.Sprintf("%s software card in %s", k.name(), dir))
		for _, a := range s.APQNs() {
			patterns, err := k.shown(s, a)
			if err != nil {
				return err
			}
			state := "offline"
			if s.Online(a) {
				state = "online"
			}
			lines = append(lines, fmt.Sprintf("%v %s %s", a, state, patterns))
		}
		return nil
	})
	return lines, err
}

// patternShown is how many bytes of a verification pattern of EP11 are shown: the WKID.
const patternShown = 16

func ep11Patterns(s *soft.Set, a card.APQN) (string, error) {
	shown := func(pattern []byte) string {
		if pattern == nil {
			return "-"
		}
		return fmt.Sprintf("%x", pattern[:patternShown])
	}
	m, err := s.WrappingKey(a)
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("mode=ep11 serial=%s wk=%s next=%s", s.Serial(), shown(m.Current), shown(m.Next))
	if m.Committed {
		text += ",committed"
	}
	return text, nil
}

// ccaPatterns has of each master key what is current, old and next.
func ccaPatterns(s *soft.Set, a card.APQN) (string, error) {
	text := "mode=cca serial=" + softcca.Serial(s)
	for _, m := range softcca.Masters() {
		var shown []string
		for _, r := range []softcca.Register{softcca.Current, softcca.Old, softcca.New} {
			p, there, err := softcca.Pattern(s, a, m, r)
			switch {
			case err != nil:
				return "", err
			case there:
				shown = append(shown, fmt.Sprintf("%x", p))
			default:
				shown = append(shown, "-")
			}
		}
		text += fmt.Sprintf(" %v=%s old=%s next=%s", m, shown[0], shown[1], shown[2])
	}
	return text, nil
}
