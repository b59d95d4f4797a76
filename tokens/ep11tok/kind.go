package ep11tok

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

// usualSocket is where p11fs card serve has the cards of the whole machine.
const usualSocket = "/run/p11fs/card.ep11"

// cardDir is the folder of a token directory in which the token's own software card is.
const cardDir = "card"

// NewKind is the kind of token whose keys cards in EP11 mode have. p completes what needs no
// card, and does the cryptography of software cards.
func NewKind(p swtok.Provider) tokens.Kind {
	k := newKind(p, func(c conf, place tokens.Place) (card.Transport, error) { return connect(p, c, place) })
	k.Check = check(k.Check)
	k.Settings = []string{"card"}
	k.Vacant = func(p tokens.Place) string { return vacant(p, usualSocket) }
	return k
}

// vacant is tokens.Kind's: openCryptoki's configuration names a slot for EP11 cards also
// where the machine has none. One is meant where there is a token, the slot's configuration,
// or the socket of the machine's cards.
func vacant(p tokens.Place, socket string) string {
	for _, path := range []string{filepath.Join(p.Dir, "NVTOK.DAT"), filepath.Join(p.Dir, cardDir), socket} {
		if _, err := os.Lstat(path); err == nil || errors.Is(err, os.ErrPermission) {
			return ""
		}
	}
	if c, err := readConf(p.Config); p.Config != "" && (!errors.Is(err, os.ErrNotExist) && err != nil || c.card != "") {
		return "" // one that cannot be read is to be heard of
	}
	return "it is a slot of EP11 cards, and the machine has none: p11fs card serve makes software ones (p11fs(1))"
}

// connect is the way to the cards of a token: the socket that its configuration names; its
// own software card; or the socket of the machine.
func connect(p swtok.Provider, c conf, place tokens.Place) (card.Transport, error) {
	own := filepath.Join(place.Dir, cardDir)
	_, err := os.Stat(filepath.Join(own, "card.json"))
	switch {
	case c.library != "":
		return nil, p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "the library %s is not loaded into this process, which has the keys of other tokens too", clip(c.library)),
			"name a socket instead, card = PATH, at which p11fs card serve --library has it")
	case c.card == newCard && err != nil:
		if err := soft.MakeSet(own, "ep11", []card.APQN{{Adapter: 0, Domain: 1}}, []string{soft.WK}); err != nil {
			return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "a new software card: %w", err)
		}
	case c.card == newCard || c.card == "" && err == nil:
	case c.card == "":
		return card.Dial(usualSocket, card.EP11), nil
	case !filepath.IsAbs(c.card):
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "card = %s is neither %s nor the path of a socket from the root", clip(c.card), newCard)
	default:
		return card.Dial(c.card, card.EP11), nil
	}
	set, err := soft.OpenOwnSet(own)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "the software card: %w", err)
	}
	return soft.NewEP11(set, p, place.Log), nil
}

// newCard is the setting card of a token that is made with a software card of its own.
const newCard = "new"

// keepSetting has a token that is made with the socket of its cards find them again, where
// nothing else tells it. With a card of its own the card's folder does.
func keepSetting(c conf, place tokens.Place) error {
	own := filepath.Join(place.Dir, confFile)
	if _, err := os.Lstat(own); err == nil || !place.Create || !c.setting || c.card == "" || c.card == newCard {
		return nil
	}
	mode := os.FileMode(0o600)
	if place.Group != locks.NoGroup {
		mode = 0o640
	}
	return os.WriteFile(own, []byte("APQN_ANY\n#p11fs: card = \""+c.card+"\"\n"), mode)
}

// lookTime bounds how long cards are looked at that may be at other work.
const lookTime = 2 * time.Second

// check is tokens.Kind's: what directory says of the directory, and then the configuration.
func check(directory func(tokens.Place) (string, string)) func(tokens.Place) (wrong, mend string) {
	return func(p tokens.Place) (wrong, mend string) {
		if wrong, mend := directory(p); wrong != "" {
			return wrong, mend
		}
		file := confOf(p)
		c, err := placeConf(p)
		if err == nil {
			_, err = readFilter(c.filter)
		}
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
		via := card.Dial(c.card, card.EP11)
		defer via.Close()
		if _, err := ep11.Domain(ctx, via, c.apqns); gone(err) {
			return fmt.Sprintf("%v: objects are listed, and no key can be used; of a real card the command takes --library too", err), "p11fs card serve --socket " + c.card
		}
		return "", ""
	}
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
		if err := keepSetting(c, place); err != nil {
			return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "the token's own configuration: %w", err)
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
		t := &token{Store: s, cards: newCards(via, c, f, place.Now, like), soft: soft, conf: c, name: place.Name, log: place.Log, close: via.Close}
		_ = t.cards.learn(ctx, false) // a card that does not answer is asked again
		return t, nil
	}))
}

// confOf is the configuration file of a place: that of its slot, or the one in the token
// directory.
func confOf(place tokens.Place) string {
	if place.Config != "" {
		return place.Config
	}
	own := filepath.Join(place.Dir, confFile)
	if _, err := os.Lstat(own); err != nil {
		return ""
	}
	return own
}
