package ep11tok

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cardway"
	"p11fs/tokens/card/ep11"
	"p11fs/tokens/card/soft"
	"p11fs/tokens/securekey"
	"p11fs/tokens/store"
	"p11fs/tokens/swtok"
)

// Kind is the name of the kind of token that this package is.
const Kind = "ep11tok"

// confFile is the configuration of a token for which its slot names none.
const confFile = "ep11tok.conf"

// NewKind is the kind of token whose keys cards in EP11 mode have. p completes what needs no
// card, and does the cryptography of software cards. socket is where the cards of a token are
// that has none of its own and whose configuration says none.
func NewKind(p swtok.Provider, socket string) tokens.Kind {
	w := wayTo(p, socket)
	k := newKind(p, func(c conf, place tokens.Place) (card.Transport, error) {
		if c.library != "" {
			return nil, p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "the library %s is not loaded into this process, which has the keys of other tokens too", cardway.Clip(c.library)),
				"name a socket instead, card = PATH, at which p11fs card serve --library has it")
		}
		if c.setting {
			if err := w.Keep(c.card, place); err != nil {
				return nil, err
			}
		}
		return w.Connect(c.card, place)
	})
	k.Check = w.Check(k.Check, func(p tokens.Place) (string, error) {
		c, err := placeConf(p)
		if err == nil {
			_, err = readFilter(c.filter)
		}
		return c.card, err
	}, func(ctx context.Context, via card.Transport, p tokens.Place) error {
		c, err := placeConf(p)
		if err == nil {
			_, err = ep11.Domain(ctx, via, c.apqns)
		}
		if gone(err) {
			return err
		}
		return nil
	})
	k.Settings = []string{"card"}
	k.Caveats = caveats
	k.Vacant = func(p tokens.Place) string { return vacant(w, p) }
	return k
}

// wayTo is the way to the cards of a token.
func wayTo(p swtok.Provider, socket string) cardway.Way {
	return cardway.Way{
		ABI: card.EP11, Conf: confFile, Begin: "APQN_ANY", Socket: socket,
		Make: func(dir string) error {
			return soft.MakeSet(dir, card.EP11.String(), []card.APQN{{Adapter: 0, Domain: 1}}, []string{soft.WK})
		},
		Open: func(s *soft.Set, log *slog.Logger) card.Transport { return soft.NewEP11(s, p, log) },
	}
}

// caveats are what doctor tells of a configuration.
func caveats(p tokens.Place) []string {
	c, err := placeConf(p)
	if _, own := os.Stat(filepath.Join(p.Dir, "card")); err != nil || own == nil || len(c.apqns) > 0 || !c.strict && !c.vhsm {
		return nil
	}
	return []string{p.Name + ": its keys are bound to logins at the cards, and with APQN_ANY one may come to a card that is not logged in: name the cards by APQN_ALLOWLIST in " + confFile}
}

func vacant(w cardway.Way, p tokens.Place) string {
	return w.Vacant(p, func() (string, error) {
		c, err := placeConf(p)
		return c.card, err
	})
}

// newKind has connect make the way to the cards of a token. It does not wait for them.
func newKind(p swtok.Provider, connect func(conf, tokens.Place) (card.Transport, error)) tokens.Kind {
	return securekey.KeptWithCards(swtok.NewKindOver(Kind, "libpkcs11_ep11", securekey.Reading, func(ctx context.Context, place tokens.Place, s *store.Store) (_ tokens.Token, err error) {
		defer func() {
			if err != nil {
				_ = s.Close() // which has failed to be of use
			}
		}()
		c, err := placeConf(place)
		if err != nil {
			return nil, err
		}
		f, err := readFilter(c.filter)
		if err != nil {
			return nil, err
		}
		for _, word := range c.ignored {
			place.Log.Info("a word of ep11tok.conf changes nothing here", "token", place.Name, "word", word)
		}
		via, err := connect(c, place)
		if err != nil {
			return nil, err
		}
		soft := swtok.NewCrypto(p, place.Rand)
		rows := make(map[p11.MechanismType]p11.MechanismInfo)
		for _, m := range soft.Mechanisms() {
			rows[m.Type] = m
		}
		like := func(m p11.MechanismType) (p11.MechanismInfo, bool) {
			info, ok := rows[m]
			return info, ok
		}
		t := &token{Veil: store.Veil{Store: s, Own: ownObjects()}, cards: newCards(via, c, f, place.Now, like), soft: soft, conf: c, name: place.Name, log: place.Log, now: place.Now, close: via.Close}
		t.sessions = newSessions(t)
		if !place.AnyFormat { // a user's own tokens have no numbers that stay
			t.slot = uint32(place.Slot)
		}
		_ = t.cards.learn(ctx, false) // a card that does not answer is asked again
		return t, nil
	}))
}
