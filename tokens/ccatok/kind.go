package ccatok

import (
	"cmp"
	"context"
	"errors"

	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/securekey"
	"p11fs/tokens/store"
	"p11fs/tokens/swtok"
)

// Kind is the name of the kind of token that this package is.
const Kind = "ccatok"

// NewKind is the kind of token whose keys a card in CCA mode has. p does what needs no card.
// socket is where the card of a token is whose configuration says none.
func NewKind(p swtok.Provider, socket string) tokens.Kind {
	return newKind(p, func(c conf) card.Transport { return card.Dial(cmp.Or(c.card, socket), card.CCA) })
}

// newKind has connect make the way to the card of a token. It does not wait for it.
func newKind(p swtok.Provider, connect func(conf) card.Transport) tokens.Kind {
	return swtok.NewKindOver(Kind, "libpkcs11_cca", securekey.Reading, func(ctx context.Context, place tokens.Place, s *store.Store) (tokens.Token, error) {
		c, err := readConf(place)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		for _, word := range c.ignored {
			place.Log.Info("a word of ccatok.conf changes nothing here", "token", place.Name, "word", word)
		}
		l := &link{via: connect(c), now: place.Now, expected: c.expected, watch: make(map[int]func())}
		t := &token{Store: s, Crypto: swtok.NewHeldCrypto(p, place.Rand, &holder{l}), link: l, conf: c, name: place.Name, log: place.Log}
		_ = l.call(ctx, func(card.Transport) error { return nil }) // a card that does not answer is asked again
		return t, nil
	})
}
