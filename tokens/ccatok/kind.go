package ccatok

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cca"
	"p11fs/tokens/card/soft"
	"p11fs/tokens/card/softcca"
	"p11fs/tokens/securekey"
	"p11fs/tokens/store"
	"p11fs/tokens/swtok"
)

// Kind is the name of the kind of token that this package is.
const Kind = "ccatok"

// cardDir is the folder of a token directory in which the token's own software card is.
const cardDir = "card"

// newCard is the setting card of a token that is made with a software card of its own.
const newCard = "new"

// NewKind is the kind of token whose keys a card in CCA mode has. p does what needs no card,
// and the cryptography of software cards. socket is where the card of a token is that has
// none of its own and whose configuration says none.
func NewKind(p swtok.Provider, socket string) tokens.Kind {
	k := newKind(p, func(c conf, place tokens.Place) (card.Transport, error) { return connect(p, c, place, socket) })
	k.Check = check(k.Check)
	k.Settings = []string{"card"}
	return k
}

// lookTime bounds how long a card is looked at that may be at other work.
const lookTime = 2 * time.Second

// check is tokens.Kind's: what directory says of the directory, and then the configuration
// and whether its card answers.
func check(directory func(tokens.Place) (string, string)) func(tokens.Place) (wrong, mend string) {
	return func(p tokens.Place) (wrong, mend string) {
		if wrong, mend := directory(p); wrong != "" {
			return wrong, mend
		}
		file := p.Config
		if file == "" {
			file = filepath.Join(p.Dir, confFile)
		}
		c, err := readConf(p)
		switch {
		case errors.Is(err, os.ErrPermission):
			return "", ""
		case err != nil:
			return err.Error() + ": the token stays closed", "editor " + file
		case c.card == "" || c.card == newCard:
			return "", ""
		}
		ctx, cancel := context.WithTimeout(context.Background(), lookTime)
		defer cancel()
		via := card.Dial(c.card, card.CCA)
		defer via.Close()
		_, _, err = cca.CSUACFQ(ctx, via, nil, cca.Rules{"STATICSB"}.Bytes())
		if p11.RVOf(err) != p11.CKR_DEVICE_REMOVED {
			return "", ""
		}
		return fmt.Sprintf("%v: objects are listed, and no key can be used; of a real card the command takes --library too", err), "p11fs card serve --kind cca --socket " + c.card
	}
}

// connect is the way to the card of a token: the socket that its configuration names; its
// own software card; or the socket of the machine.
func connect(p swtok.Provider, c conf, place tokens.Place, socket string) (card.Transport, error) {
	own := filepath.Join(place.Dir, cardDir)
	_, err := os.Stat(filepath.Join(own, "card.json"))
	switch {
	case c.card == newCard && err != nil:
		if err := softcca.MakeSet(own, []card.APQN{{Adapter: 0, Domain: 1}}); err != nil {
			return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "a new software card: %w", err)
		}
	case c.card == newCard || c.card == "" && err == nil:
	case c.card == "":
		return card.Dial(socket, card.CCA), nil
	case !filepath.IsAbs(c.card):
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "card = %q is neither %s nor the path of a socket from the root", c.card, newCard)
	default:
		return card.Dial(c.card, card.CCA), keep(c.card, place)
	}
	set, err := soft.OpenOwnSet(own)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "the software card: %w", err)
	}
	return softcca.NewCards(set, p, place.Log), nil
}

// keep has a token that is made for a card at a socket find it again, where nothing else
// tells it.
func keep(socket string, place tokens.Place) error {
	own := filepath.Join(place.Dir, confFile)
	if _, err := os.Lstat(own); err == nil || !place.Create {
		return nil
	}
	mode := os.FileMode(0o600)
	if place.Group != locks.NoGroup {
		mode = 0o640
	}
	if err := os.WriteFile(own, []byte("version cca-0\n#p11fs: card = "+socket+"\n"), mode); err != nil {
		return p11.Errorf(p11.CKR_FUNCTION_FAILED, "the token's own configuration: %w", err)
	}
	return nil
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
		l := &link{via: via, now: place.Now, expected: c.expected, watch: make(map[int]func())}
		t := &token{Store: s, Crypto: swtok.NewHeldCrypto(p, place.Rand, &holder{l}), link: l, conf: c, name: place.Name, log: place.Log}
		_ = l.call(ctx, func(card.Transport) error { return nil }) // a card that does not answer is asked again
		return t, nil
	}))
}
