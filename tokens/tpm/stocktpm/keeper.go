package stocktpm

import (
	"bytes"
	"context"
	"crypto/rsa"
	"errors"
	"log/slog"
	"os"
	"path/filepath"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/store"
	"p11fs/tokens/store/format"
	"p11fs/tokens/tpm/tpm12"
)

// state is what a token knows of its hierarchies.
type state struct {
	tpm    *tpm12.TPM
	store  *store.Store
	dir    string
	keyDir string // of the files of the PINs, in dir
	log    *slog.Logger
	root   func() (*rsa.PrivateKey, error) // makes the numbers of a root key
	leaf   int                             // the size of a leaf key
	pins   chan struct{}                   // has room for one: who sets a PIN, and has change
	change change
}

// A change is a PIN that is being set.
type change struct {
	old   *secret.Bytes // nil: the SO sets the user's
	made  []p11.ObjectHandle
	stale []p11.ObjectHandle // are of no more use when the PIN is set
}

// A keeper is format 3.8 of openCryptoki with PINs that a chip looks at.
type keeper struct {
	format.Format
	*state
}

var (
	_ format.Format  = keeper{}
	_ format.Rekeyer = keeper{}
)

// Recognize is format.Format.
func (k keeper) Recognize(file []byte) (format.Format, error) {
	f, err := k.Format.Recognize(file)
	if err != nil {
		return nil, err
	}
	return keeper{f, k.state}, nil
}

// Initialized is format.Data: there is no master key.
func (k keeper) Initialized(d format.TokenData) (format.TokenData, bool) {
	d, _ = k.Format.Initialized(d)
	return d, false
}

// PIN is format.Data: NVTOK.DAT holds nothing of a PIN.
func (k keeper) PIN(format.TokenData, p11.UserType) format.PINRecord { return "" }

// WithPIN is format.Data.
func (k keeper) WithPIN(d format.TokenData, _ p11.UserType, _ format.PINRecord) format.TokenData {
	return d
}

// UserPINSet is format.Data.
func (k keeper) UserPINSet(d format.TokenData) bool {
	return d.Flags()&p11.CKF_USER_PIN_INITIALIZED != 0
}

// NewToken is format.Keeper.
func (k keeper) NewToken(ctx context.Context) (format.TokenData, []byte, error) {
	d, _, err := k.Format.NewToken(ctx)
	return d, nil, err
}

// NewMasterKey is format.Keeper.
func (k keeper) NewMasterKey() (*secret.Bytes, error) {
	return nil, p11.Errorf(p11.CKR_GENERAL_ERROR, "the token has no master key")
}

// KeyFileSize is format.Keeper: that of a file of a root key differs.
func (k keeper) KeyFileSize() int { return 0 }

// The lengths of a PIN, as stock has them, whatever C_GetTokenInfo says.
const (
	shortestPIN = 6
	longestPIN  = 127
)

// PINLimits is format.Keeper.
func (k keeper) PINLimits(format.TokenData) (shortest, longest int) { return shortestPIN, longestPIN }

// KeyOf is format.Rekeyer: the secret that the leaf key takes.
func (k keeper) KeyOf(pin *secret.Bytes) (*secret.Bytes, error) {
	a := tpm12.PINAuth(pin)
	defer secret.Wipe(a[:])
	return secret.New(append([]byte{}, a[:]...))
}

// Open is format.Keeper. The chip looks at the PIN, but for that of an SO who has not set
// one.
func (k keeper) Open(ctx context.Context, u p11.UserType, pin *secret.Bytes, kept format.Kept) (o format.Opened, err error) {
	t, err := k.tree(ctx, u)
	if err != nil {
		return o, err
	}
	switch {
	case t.whole():
		if o.Right, err = k.open(ctx, t, pin, kept.File); err != nil {
			return o, err
		}
	case len(t.all) > 0:
		return o, p11.Errorf(p11.CKR_DEVICE_ERROR, "the keys that the PIN opens are damaged: their objects must come back from a backup")
	case u == p11.CKU_SO:
		pin.Use(func(b []byte) { o.Right = string(b) == tokens.DefaultSOPIN })
	default:
		return o, p11.Errorf(p11.CKR_USER_PIN_NOT_INITIALIZED, "the user has no keys: the SO sets the PIN")
	}
	if o.Right {
		o.Key, err = k.KeyOf(pin)
	}
	return o, err
}

// open tries a PIN on the leaf keys. Of two, the file of the root key says under which PIN
// the right one is; the other one goes.
func (k keeper) open(ctx context.Context, t tree, pin *secret.Bytes, file []byte) (bool, error) {
	decided := false
	if len(t.leaves) > 1 && file != nil {
		_, err := tpm12.ParseRoot(file, pin)
		if errors.Is(err, p11.CKR_PIN_INCORRECT) {
			return false, nil
		}
		decided = err == nil
	}
	if err := k.tpm.Opens(ctx, t.under()); errors.Is(err, tpm12.CodeDecrypt) {
		if err := k.move(ctx, &t, file, pin); err != nil {
			if errors.Is(err, p11.CKR_PIN_INCORRECT) {
				return false, nil
			}
			return false, err
		}
	} else if err != nil {
		return false, err
	}
	auth := tpm12.PINAuth(pin)
	defer secret.Wipe(auth[:])
	for i, leaf := range t.leaves {
		right, err := k.takes(ctx, t, leaf.key, auth)
		if err != nil {
			return false, err
		}
		if !right {
			continue
		}
		if decided {
			var others []p11.ObjectHandle
			for j, other := range t.leaves {
				if i != j {
					others = append(others, other.handle)
				}
			}
			k.log.Info("a change of PIN that was cut off is settled", "dir", k.dir)
			k.destroy(ctx, others)
		}
		return true, nil
	}
	return false, nil
}

// Make is format.Keeper: it changes the PIN of a hierarchy, or makes one. What it makes and
// what is of no more use then is noted in the change.
func (k keeper) Make(ctx context.Context, u p11.UserType, pin, _ *secret.Bytes, kept format.Kept) (format.Kept, error) {
	c := &k.change
	k.destroy(ctx, c.made) // of a try before
	c.made, c.stale = nil, nil
	t, err := k.tree(ctx, u)
	if err != nil {
		return format.Kept{}, err
	}
	if t.whole() && c.old != nil {
		return k.rekey(ctx, u, t, pin, kept)
	}
	if t.whole() && kept.File != nil {
		if _, err := tpm12.ParseRoot(kept.File, pin); err == nil {
			return format.Kept{}, nil // it is the user's PIN, which is unlocked
		}
	}
	if u == p11.CKU_USER {
		if err := k.removeFile(tpm12.MasterKeyFile); err != nil {
			return format.Kept{}, err
		}
	}
	made, file, err := k.grow(ctx, u, pin)
	for _, o := range made {
		c.made = append(c.made, o.Handle)
	}
	c.stale = t.all
	return format.Kept{File: file}, err
}

// rekey gives the leaf key of a role another PIN.
func (k keeper) rekey(ctx context.Context, u p11.UserType, t tree, pin *secret.Bytes, kept format.Kept) (made format.Kept, err error) {
	c := &k.change
	old, now := tpm12.PINAuth(c.old), tpm12.PINAuth(pin)
	defer secret.Wipe(old[:])
	defer secret.Wipe(now[:])
	var leaf tpm12.Key
	var at p11.ObjectHandle
	for _, one := range t.leaves {
		if leaf, err = k.tpm.ChangeAuth(ctx, t.under(), one.key, old, now); err == nil {
			at = one.handle
			break
		}
	}
	if err != nil {
		return made, err
	}
	file, err := reseal(kept.File, c.old, pin)
	if err != nil {
		// No file says which of two leaf keys counts: there is never more than one.
		k.log.Warn("the file of the root key, which another TPM would need, is not under the PIN: it stays as it is", "dir", k.dir, "file", namesOf(u).file, "err", err)
		_, err = k.store.Update(ctx, at, func(a p11.Attributes) (p11.Attributes, error) {
			b := a.With(blobAttribute, leaf.Print())
			b.Set(p11.CKA_MODULUS, bytes.Clone(leaf.Private))
			return b, nil
		})
		return made, err
	}
	o, err := k.store.Create(ctx, privatePart(namesOf(u).leaf, leaf))
	if err != nil {
		return made, err
	}
	c.made = []p11.ObjectHandle{o.Handle}
	for _, one := range t.leaves {
		c.stale = append(c.stale, one.handle)
	}
	return format.Kept{File: file}, nil
}

// reseal puts the file of a root key under another PIN.
func reseal(file []byte, old, pin *secret.Bytes) ([]byte, error) {
	key, err := tpm12.ParseRoot(file, old)
	if err != nil {
		return nil, err
	}
	return tpm12.PrintRoot(key, pin)
}

// removeFile removes a file of the directory of PINs, which nobody leads elsewhere.
func (s *state) removeFile(name string) error {
	dir, err := os.OpenRoot(s.dir)
	if err != nil {
		return failed(err)
	}
	defer dir.Close()
	if err := dir.Remove(filepath.Join(s.keyDir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return failed(err)
	}
	return nil
}

// setting calls f, which sets a PIN in place of old; nil: the SO sets the user's.
func (s *state) setting(ctx context.Context, old *secret.Bytes, f func() error) error {
	select {
	case s.pins <- struct{}{}:
		defer func() { <-s.pins }()
	case <-ctx.Done():
		return ctx.Err()
	}
	s.change = change{old: old}
	err := f()
	gone := s.change.stale
	if err != nil {
		gone = s.change.made
	}
	s.change = change{}
	s.destroy(context.WithoutCancel(ctx), gone)
	return err
}
