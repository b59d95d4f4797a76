package ccatok

import (
	"context"
	"errors"
	"log/slog"

	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cardway"
	"p11fs/tokens/card/soft"
	"p11fs/tokens/card/softcca"
	"p11fs/tokens/securekey"
	"p11fs/tokens/store"
	"p11fs/tokens/swtok"
)

// Kind is the name of the kind of token that this package is.
const Kind = "ccatok"

// NewKind is the kind of token whose keys a card in CCA mode has. p does what needs no card,
// and the cryptography of software cards. socket is where the card of a token is that has
// none of its own and whose configuration says none.
func NewKind(p swtok.Provider, socket string) tokens.Kind {
	w := wayTo(p, socket)
	k := newKind(p, func(c conf, place tokens.Place) (card.Transport, error) {
		if c.setting {
			if err := w.Keep(c.card, place); err != nil {
				return nil, err
			}
		}
		return w.Connect(c.card, place)
	})
	k.Check = w.Check(k.Check, setting, func(ctx context.Context, via card.Transport, p tokens.Place) error {
		c, err := readConf(p)
		if err != nil {
			return err
		}
		return (&link{via: via, expected: c.expected}).learn(ctx)
	})
	k.Settings = []string{"card"}
	k.Vacant = func(p tokens.Place) string { return vacant(w, p) }
	return k
}

// wayTo is the way to the card of a token.
func wayTo(p swtok.Provider, socket string) cardway.Way {
	return cardway.Way{
		ABI: card.CCA, Conf: confFile, Begin: "version cca-0", Socket: socket,
		Make: func(dir string) error { return softcca.MakeSet(dir, []card.APQN{{Adapter: 0, Domain: 1}}) },
		Open: func(s *soft.Set, log *slog.Logger) card.Transport { return softcca.NewCards(s, p, log) },
	}
}

// setting is what the configuration of a place says of its card.
func setting(p tokens.Place) (string, error) {
	c, err := readConf(p)
	return c.card, err
}

func vacant(w cardway.Way, p tokens.Place) string {
	return w.Vacant(p, func() (string, error) { return setting(p) })
}

// newKind has connect make the way to the card of a token. It does not wait for it.
func newKind(p swtok.Provider, connect func(conf, tokens.Place) (card.Transport, error)) tokens.Kind {
	return securekey.KeptWithCards(swtok.NewKindOver(Kind, "libpkcs11_cca", securekey.Reading, func(ctx context.Context, place tokens.Place, s *store.Store) (tokens.Token, error) {
		c, err := readConf(place)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		for _, word := range c.ignored {
			place.Log.Info("a word of ccatok.conf changes nothing here", "token", place.Name, "word", word)
		}
		via, err := connect(c, place)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		l := &link{via: via, Health: card.Health{Now: place.Now}, expected: c.expected}
		t := &token{Store: s, Crypto: swtok.NewHeldCrypto(p, place.Rand, &holder{l}), link: l, conf: c, name: place.Name, log: place.Log}
		_ = l.call(ctx, func(card.Transport) error { return nil }) // a card that does not answer is asked again
		return t, nil
	}))
}
