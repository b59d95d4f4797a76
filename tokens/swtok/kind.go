package swtok

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"

	"p11fs/p11"
	"p11fs/shm"
	"p11fs/tokens"
	"p11fs/tokens/store"
	"p11fs/tokens/store/format"
)

// Kind is the name of the kind of token that this package is.
const Kind = "swtok"

// NewKind is the kind of token whose objects are in a token directory, and whose
// cryptography p does.
func NewKind(p Provider) tokens.Kind {
	return tokens.Kind{
		Name: Kind, Library: "libpkcs11_sw", Files: []string{"NVTOK.DAT", "MK_SO", "MK_USER"},
		Check: check, Lacking: Lacking(p),
		Open: func(ctx context.Context, place tokens.Place) (tokens.Token, error) { return open(ctx, p, place) },
	}
}

// A token is a token directory and a Crypto. What the store can do beyond
// tokens.Storage, the token can.
type token struct {
	*store.Store
	*Crypto
	name string
}

var _ tokens.Sharer = (*token)(nil)

func (t *token) Name() string { return t.name }
func (t *token) Kind() string { return Kind }

func open(ctx context.Context, p Provider, place tokens.Place) (tokens.Token, error) {
	if wrong, mend := checkFormat(place.Format); wrong != "" {
		return nil, p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED, "%s; mend it with: %s", wrong, mend)
	}
	if place.Rand == nil {
		place.Rand = rand.Reader
	}
	kind, ok := format.KindOf(Kind)
	if !ok {
		panic("swtok: the format does not know its own token")
	}
	s, err := store.Open(ctx, store.Config{
		Dir: place.Dir, Format: format.V38(kind, place.Rand), Lock: place.Lock, Create: place.Create, Group: place.Group,
		Shared: (*store.Shared)(place.Shared), Log: place.Log, Now: place.Now,
	})
	if err != nil {
		return nil, err
	}
	return &token{s, NewCrypto(p, place.Rand), place.Name}, nil
}

// checkFormat refuses a directory that is said to have another format than 3.8's.
func checkFormat(v p11.Version) (wrong, mend string) {
	if !tokens.NewFormat(v) {
		return "", ""
	}
	return fmt.Sprintf("the slot has tokversion = %d.%d, a format that p11fs does not read", v.Major, v.Minor),
		"tokversion = 0.0 (in the slot, and only if the directory has the format of openCryptoki 3.8)"
}

func check(p tokens.Place) (wrong, mend string) {
	if wrong, mend = checkFormat(p.Format); wrong != "" {
		return wrong, mend
	}
	file := filepath.Join(p.Dir, "NVTOK.DAT")
	st, err := os.Stat(file)
	if err != nil || st.Size() == shm.TokenDataSize {
		return "", "" // also for those who may not look
	}
	return fmt.Sprintf("%s has %d bytes where format 3.8 has %d: it is damaged or of another format, and the token stays closed",
			file, st.Size(), shm.TokenDataSize),
		fmt.Sprintf("put it back from a backup, or, for an empty token in its place: mv %s %s.damaged", p.Dir, p.Dir)
}
