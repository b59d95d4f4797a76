// Package cardway finds the cards that have the keys of a token, and reads what a token's own
// configuration says of them.
package cardway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/soft"
)

// New is the setting of a token that is made with a software card of its own, and Folder is
// where that is in the token's directory.
const (
	New    = "new"
	Folder = "card"
)

// A Way is what kinds of tokens differ in.
type Way struct {
	ABI    card.ABI
	Conf   string // the name of the configuration in a token's directory
	Begin  string // what such a file has in any case
	Socket string // of the cards of the machine, or of the user
	Make   func(dir string) error
	Open   func(*soft.Set, *slog.Logger) card.Transport
}

// Connect is the way to the cards of a place: the socket that setting names; its own software
// card, which New makes; or without a setting the card that there is, or the usual socket.
func (w Way) Connect(setting string, p tokens.Place) (card.Transport, error) {
	own := filepath.Join(p.Dir, Folder)
	_, err := os.Stat(filepath.Join(own, "card.json"))
	switch {
	case setting == New && err != nil:
		if err := w.Make(own); err != nil {
			return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "a new software card: %w", err)
		}
	case setting == New || setting == "" && err == nil:
	case setting == "":
		return card.Dial(w.Socket, w.ABI), nil
	case !filepath.IsAbs(setting):
		return nil, p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "card = %s is neither %s nor the path of a socket from the root", Clip(setting), New), "write one of these")
	default:
		return card.Dial(setting, w.ABI), nil
	}
	set, err := soft.OpenOwnSet(own)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "the software card: %w", err)
	}
	return w.Open(set, p.Log), nil
}

// Keep has a token that is made with a setting of its cards find them again, where nothing
// else tells it. With a card of its own the card's folder does.
func (w Way) Keep(setting string, p tokens.Place) error {
	if !p.Create || setting == "" {
		return nil
	}
	own := filepath.Join(p.Dir, w.Conf)
	text, cut := w.Begin+"\n#p11fs: card = \"", "\"\n"
	switch was, err := read(own, func(string) (*os.File, error) { return locks.OpenOwn(p.Dir, w.Conf) }); {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return err
	case was == text+setting+cut:
		return nil
	case !strings.HasPrefix(was, text): // nor of a token that was begun and not made
		return p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "%s is there already, and says itself which cards the token has", own), "write the cards there and leave --card out, or move the file away")
	default:
		if err := os.Remove(own); err != nil {
			return p11.Errorf(p11.CKR_FUNCTION_FAILED, "the token's own configuration: %w", err)
		}
	}
	if setting == New {
		return nil
	}
	mode := os.FileMode(0o600)
	if p.Group != locks.NoGroup {
		mode = 0o640
	}
	if err := os.WriteFile(own, []byte(text+setting+cut), mode); err != nil {
		return p11.Errorf(p11.CKR_FUNCTION_FAILED, "the token's own configuration: %w", err)
	}
	return nil
}

// Vacant is tokens.Kind's: openCryptoki's configuration names a slot for cards also where the
// machine has none. One is meant where there is a token, a configuration that names cards, or
// the usual socket. names says what the place's configuration has of cards.
func (w Way) Vacant(p tokens.Place, names func() (string, error)) string {
	for _, path := range []string{filepath.Join(p.Dir, "NVTOK.DAT"), filepath.Join(p.Dir, Folder), w.Socket} {
		if _, err := os.Lstat(path); err == nil || errors.Is(err, os.ErrPermission) {
			return ""
		}
	}
	if p.Config != "" {
		if setting, err := names(); err != nil && !errors.Is(err, os.ErrNotExist) || setting != "" {
			return "" // one that cannot be read is to be heard of
		}
	}
	return fmt.Sprintf("it is a slot of %s cards, and the machine has none: p11fs card serve makes software ones (p11fs(1))", w.ABI)
}

// usual says whether the token of a place that has no setting is one of the usual socket.
func (w Way) usual(p tokens.Place) bool {
	_, err := os.Lstat(filepath.Join(p.Dir, "NVTOK.DAT"))
	_, own := os.Lstat(filepath.Join(p.Dir, Folder))
	return err == nil && own != nil
}

// lookTime bounds how long cards are looked at that may be at other work.
const lookTime = 2 * time.Second

// Check is tokens.Kind's: what directory says of the directory, then the configuration, of
// which setting is what it has of cards, and then whether ask has an answer of the cards.
func (w Way) Check(directory func(tokens.Place) (string, string), setting func(tokens.Place) (string, error), ask func(context.Context, card.Transport, tokens.Place) error) func(tokens.Place) (wrong, mend string) {
	return func(p tokens.Place) (wrong, mend string) {
		if wrong, mend := directory(p); wrong != "" {
			return wrong, mend
		}
		socket, err := setting(p)
		switch {
		case errors.Is(err, os.ErrPermission):
			return "", ""
		case err != nil:
			return err.Error() + ": the token stays closed", "editor " + w.Path(p)
		case socket == New || socket == "" && !w.usual(p):
			return "", ""
		}
		socket = cmp.Or(socket, w.Socket)
		ctx, cancel := context.WithTimeout(context.Background(), lookTime)
		defer cancel()
		via := card.Dial(socket, w.ABI)
		defer via.Close()
		if err := ask(ctx, via, p); err != nil {
			return fmt.Sprintf("%v: objects are listed, and no key can be used until it is served again: a software card from its own directory, DIR, as any other opens none of these keys; a real one by --library in the place of --dir", err),
				fmt.Sprintf("p11fs card serve --kind %s --dir DIR --socket %s", w.ABI, socket)
		}
		return "", ""
	}
}
