package stocktpm

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/store"
	"p11fs/tokens/store/format"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tpm/desk"
	"p11fs/tokens/tpm/tpm12"
)

// A token is a token directory, whose PINs and RSA keys a TPM has, and swtok's cryptography
// around these.
type token struct {
	store.Veil // of the keys of the hierarchies
	*swtok.Crypto
	state
	name, kind string
	release    func() // gives the TPM back
	test       func(context.Context) error
}

var (
	_ tokens.Token        = (*token)(nil)
	_ tokens.KeyGenerator = (*token)(nil)
	_ tokens.Adopter      = (*token)(nil)
	_ tokens.Hider        = (*token)(nil)
	_ tokens.Offliner     = (*token)(nil)
	_ tokens.SelfTester   = (*token)(nil)
	_ tokens.Describer    = (*token)(nil)
)

// Config says what a token is opened with, beside its place.
type Config struct {
	Kind     string // the name of its kind
	Provider swtok.Provider
	// TPM has the keys. Release gives it back.
	TPM     *tpm12.TPM
	Release func()
	// User is the user of the machine whose files of PINs these are.
	User string
}

// UserName says whether a user's directory can be called so.
func UserName(name string) bool {
	return name != "" && filepath.Base(name) == name && name != "TOK_OBJ" && name[0] != '.' && len(name) <= 255
}

// Protection is what a token directory is kept with: private objects under a key of zeros.
func Protection() tokens.Protection {
	return tokens.Protection{Mechanisms: []p11.MechanismType{p11.CKM_AES_CBC, p11.CKM_SHA_1}}
}

// Found says whether there is a directory of stock's tpm token, by its NVTOK.DAT.
func Found(dir string) bool {
	st, err := os.Lstat(filepath.Join(dir, "NVTOK.DAT"))
	return err == nil && st.Mode().IsRegular() && st.Size() == format.V38(format.TPM(), nil).FileSize()
}

// Open opens a token directory, with tokens.Place's Create also one that is to be made. It
// asks nothing of the TPM. When it fails the TPM stays the caller's.
func Open(ctx context.Context, place tokens.Place, c Config) (tokens.Token, error) {
	if !UserName(c.User) {
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "no user of the machine is called %q", c.User)
	}
	if place.Rand == nil {
		place.Rand = rand.Reader
	}
	if place.Create {
		mode := os.FileMode(0o700)
		if place.Group != locks.NoGroup {
			mode = 0o770
		}
		if err := locks.MakeDirectory(place.Dir, mode, place.Group); err != nil {
			return nil, failed(err)
		}
	}
	t := &token{
		name: place.Name, kind: c.Kind, release: c.Release, test: swtok.NewCrypto(c.Provider, place.Rand).SelfTest,
		state: state{tpm: c.TPM, dir: place.Dir, keyDir: c.User, log: place.Log, root: newRoot, leaf: treeBits, pins: make(chan struct{}, 1)},
	}
	user := namesOf(p11.CKU_USER)
	s, err := store.Open(ctx, store.Config{
		Dir: place.Dir, Format: keeper{format.V38(format.TPM(), place.Rand), &t.state}, Lock: place.Lock, Create: place.Create,
		Group: place.Group, Keys: &store.Keys{Dir: c.User, SO: namesOf(p11.CKU_SO).file, User: user.file},
		Shared: (*store.Shared)(place.Shared), Room: place.Room, Log: place.Log, Now: place.Now,
	})
	if err != nil {
		return nil, err
	}
	t.Veil, t.store = store.Veil{Store: s, Own: hiddenObjects()}, s
	t.Crypto = swtok.NewHeldCrypto(c.Provider, place.Rand, &holder{&t.state})
	t.Arrange(arrange)
	return t, nil
}

// Name is tokens.Token.
func (t *token) Name() string { return t.name }

// Kind is tokens.Token.
func (t *token) Kind() string { return t.kind }

// Close is tokens.Storage.
func (t *token) Close() error {
	err := t.Store.Close()
	t.release()
	return err
}

// Offline is tokens.Offliner.
func (t *token) Offline() error { return t.tpm.Offline() }

// SelfTest is tokens.SelfTester, of the cryptography that is not the TPM's.
func (t *token) SelfTest(ctx context.Context) error { return t.test(ctx) }

// Describe is tokens.Describer.
func (t *token) Describe(ctx context.Context) []string {
	lines := []string{
		fmt.Sprintf("TPM 1.2 at %s, as openCryptoki's tpm token has it for the user %s", t.tpm.Device(), t.keyDir),
		"private objects are kept under a key of zeros, but for the RSA keys, which the TPM has",
	}
	if free, err := t.tpm.Slots(ctx); err == nil {
		lines = append(lines, fmt.Sprintf("%d keys more can be loaded", free))
	}
	return lines
}

// Info is tokens.Storage. The lengths of PINs are those that are taken.
func (t *token) Info(ctx context.Context) (p11.TokenInfo, error) {
	info, err := t.Store.Info(ctx)
	info.MinPINLen, info.MaxPINLen = shortestPIN, longestPIN
	return info, err
}

// InitPIN is tokens.Admin.
func (t *token) InitPIN(ctx context.Context, so tokens.Login, pin *secret.Bytes) error {
	return t.setting(ctx, nil, func() error { return t.Store.InitPIN(ctx, so, pin) })
}

// SetPIN is tokens.Admin.
func (t *token) SetPIN(ctx context.Context, user p11.UserType, old, pin *secret.Bytes) error {
	return t.setting(ctx, old, func() error { return t.Store.SetPIN(ctx, user, old, pin) })
}

// InitToken is tokens.Admin. The SO's hierarchy outlives the objects, as does the PIN;
// stock gives the SO the default PIN back.
func (t *token) InitToken(ctx context.Context, pin *secret.Bytes, label string) error {
	return t.setting(ctx, nil, func() error {
		if err := t.Refresh(ctx); err != nil {
			return err
		}
		kept, err := t.hierarchy(ctx, p11.CKU_SO)
		if err == nil {
			err = t.Store.InitToken(ctx, pin, label)
		}
		if err != nil || len(kept) == 0 {
			return err
		}
		ctx := context.WithoutCancel(ctx)
		if _, err := t.CreateAll(ctx, kept); err != nil {
			return fmt.Errorf("the keys of the SO's PIN, which is the default one again: %w", err)
		}
		for _, name := range []string{tpm12.PrivateRootFile, tpm12.MasterKeyFile} {
			if err := t.removeFile(name); err != nil {
				return err
			}
		}
		return nil
	})
}

// hierarchy copies the objects of a role's hierarchy.
func (t *token) hierarchy(ctx context.Context, u p11.UserType) (list []p11.Attributes, err error) {
	tree, err := t.tree(ctx, u)
	if err != nil {
		return nil, err
	}
	for _, h := range tree.all {
		o, err := t.Store.ByHandle(h)
		if err != nil {
			return nil, err
		}
		a, err := o.Acquire()
		if err != nil {
			return nil, err
		}
		list = append(list, a.Clone())
		o.Release()
	}
	return list, nil
}

// GenerateRandom is tokens.Crypto. It is no worse than either of the TPM's generator and
// the kernel's.
func (t *token) GenerateRandom(ctx context.Context, b []byte) error {
	if err := t.Crypto.GenerateRandom(ctx, b); err != nil {
		return err
	}
	return desk.MixRandom(ctx, b, t.tpm.Random)
}

// Visibility is tokens.Hider.
func (t *token) Visibility(attrs p11.Attributes, at p11.AttributeType) tokens.Visibility {
	class, _ := attrs.Class()
	kt, _ := attrs.KeyType()
	switch {
	case class != p11.CKO_PRIVATE_KEY && class != p11.CKO_PUBLIC_KEY || kt != p11.CKK_RSA:
	case at == blobAttribute || at == authAttribute:
		return tokens.Hidden
	case class == p11.CKO_PRIVATE_KEY && p11.SecretValue(at):
		return tokens.Withheld
	}
	return tokens.Readable
}
