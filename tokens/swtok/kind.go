package swtok

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/store"
	"p11fs/tokens/store/format"
)

// Kind is the name of the kind of token that this package is.
const Kind = "swtok"

// NewKind is the kind of token whose objects are in a token directory, and whose
// cryptography p does.
func NewKind(p Provider) tokens.Kind {
	k := newKind(p, format.Iterations)
	k.Lacking, k.Portable = Lacking(p), true
	return k
}

// newKind has the iterations of PBKDF2 for PINs that are set.
func newKind(p Provider, iterations uint64) tokens.Kind {
	return directory{name: Kind, iterations: iterations}.kind("libpkcs11_sw", over(Kind, func(random io.Reader) *Crypto { return NewCrypto(p, random) }))
}

// NewKindLike is a kind that is as this one, but for its name, which format.KindOf knows,
// the library of slots that have it, and the cryptography of a token, which crypto makes
// with the token's randomness. It has no list of what is lacking.
func NewKindLike(name, library string, crypto func(random io.Reader) *Crypto) tokens.Kind {
	return directory{name: name, iterations: format.Iterations}.kind(library, over(name, crypto))
}

// NewKindOver is NewKindLike for tokens that are made by open, which gets their place with
// its randomness, and their store, and closes it where it fails. Objects are read as read
// has them, which is called with each format that a directory may have.
func NewKindOver(name, library string, read func(format.Format) format.Format, open func(context.Context, tokens.Place, *store.Store) (tokens.Token, error)) tokens.Kind {
	return directory{name: name, iterations: format.Iterations, read: read}.kind(library, open)
}

// over makes tokens of a store and a Crypto.
func over(name string, crypto func(random io.Reader) *Crypto) func(context.Context, tokens.Place, *store.Store) (tokens.Token, error) {
	return func(_ context.Context, place tokens.Place, s *store.Store) (tokens.Token, error) {
		return &token{s, crypto(place.Rand), place.Name, name}, nil
	}
}

// A directory is a kind of token directory.
type directory struct {
	name       string // of the kind
	iterations uint64
	read       func(format.Format) format.Format // nil: as they are
}

func (k directory) kind(library string, open func(context.Context, tokens.Place, *store.Store) (tokens.Token, error)) tokens.Kind {
	return tokens.Kind{
		Name: k.name, Library: library, Files: []string{"NVTOK.DAT", "MK_SO", "MK_USER"},
		Check: check, OwnFormat: ownFormat, Made: k.made, Weak: weak, Protection: protection,
		Open: func(ctx context.Context, place tokens.Place) (tokens.Token, error) {
			s, err := k.open(ctx, &place)
			if err != nil {
				return nil, err
			}
			return open(ctx, place, s)
		},
		Upkeep: k.upkeep,
	}
}

// A token is a token directory and a Crypto. What the store can do beyond
// tokens.Storage, the token can.
type token struct {
	*store.Store
	*Crypto
	name, kind string
}

var _ tokens.Sharer = (*token)(nil)

func (t *token) Name() string { return t.name }
func (t *token) Kind() string { return t.kind }

// open opens the store, and completes the place.
func (k directory) open(ctx context.Context, place *tokens.Place) (*store.Store, error) {
	if place.Rand == nil {
		place.Rand = rand.Reader
	}
	conf := configOf(*place)
	conf.Create, conf.Format = place.Create, k.formatOf(*place)
	if place.AnyFormat {
		conf.Other = k.otherFormat(*place)
	}
	if k.read != nil {
		conf.Format = k.read(conf.Format)
		if conf.Other != nil {
			conf.Other = k.read(conf.Other)
		}
	}
	return store.Open(ctx, conf)
}

// configOf is what the store of a place is told, but for the format.
func configOf(place tokens.Place) store.Config {
	return store.Config{
		Dir: place.Dir, Lock: place.Lock, Group: place.Group, Shared: (*store.Shared)(place.Shared), Room: place.Room, Log: place.Log, Now: place.Now,
	}
}

// upkeep is that of a place in either format.
func (k directory) upkeep(place tokens.Place) tokens.Upkeep {
	if place.Rand == nil {
		place.Rand = rand.Reader
	}
	conf := configOf(place)
	if !place.AnyFormat {
		conf.Format = k.formatOf(place)
	}
	before, after := place, place
	before.Format, after.Format = p11.Version{}, p11.Version{Major: 3, Minor: 12}
	return store.NewUpkeep(conf, k.formatOf(before), k.formatOf(after))
}

// otherFormat is the format that the slot does not declare.
func (k directory) otherFormat(place tokens.Place) format.Format {
	if tokens.NewFormat(place.Format) {
		place.Format = p11.Version{}
	} else {
		place.Format = p11.Version{Major: 3, Minor: 12}
	}
	return k.formatOf(place)
}

// formatOf is the format that the slot declares.
func (k directory) formatOf(place tokens.Place) format.Format {
	if tokens.NewFormat(place.Format) {
		facts, _ := format.KindOf312(k.name)
		return format.V312(facts, place.Rand, k.iterations)
	}
	facts, _ := format.KindOf(k.name)
	return format.V38(facts, place.Rand)
}

// fileSize is that of an NVTOK.DAT in the format of a place, which is the same for each
// kind of directory.
func fileSize(place tokens.Place) int64 { return directory{name: Kind}.formatOf(place).FileSize() }

// ownFormat tells the format of a directory by the size of its NVTOK.DAT. What is new
// has the better one, as no stock program shares a user's own tokens.
func ownFormat(dir string) p11.Version {
	st, err := os.Lstat(filepath.Join(dir, "NVTOK.DAT"))
	if err == nil && st.Size() == fileSize(tokens.Place{}) {
		return p11.Version{}
	}
	return p11.Version{Major: 3, Minor: 12}
}

// made tells by the model that the token names, in either format.
func (k directory) made(dir string) bool {
	f, err := os.OpenFile(filepath.Join(dir, "NVTOK.DAT"), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	var head [format.ModelSize]byte
	if _, err := io.ReadFull(f, head[:]); err != nil {
		return false
	}
	old, _ := format.KindOf(k.name)
	newer, _ := format.KindOf312(k.name)
	model := format.ModelOf(head)
	return model == old.Model || model == newer.Model
}

func check(p tokens.Place) (wrong, mend string) {
	file := filepath.Join(p.Dir, "NVTOK.DAT")
	st, err := os.Stat(file)
	size := fileSize(p)
	if err != nil || st.Size() == size {
		return "", "" // also for those who may not look
	}
	declared, other, line := "3.8", tokens.Place{Format: p11.Version{Major: 3, Minor: 12}}, "tokversion = 3.12"
	if tokens.NewFormat(p.Format) {
		declared, other, line = "3.12", tokens.Place{}, "tokversion = 0.0"
	}
	wrong = fmt.Sprintf("%s has %d bytes where format %s has %d", file, st.Size(), declared, size)
	if st.Size() == fileSize(other) {
		return wrong + ": it has another format than the slot says, and the token stays closed", line + " (in the slot)"
	}
	return wrong + ": it is damaged or of another format, and the token stays closed",
		fmt.Sprintf("put it back from a backup, or, for an empty token in its place: mv %s %s.damaged", p.Dir, p.Dir)
}

// weak tells of format 3.8, by what is in the directory now.
func weak(p tokens.Place) (why, mend string) {
	if _, err := os.Lstat(filepath.Join(p.Dir, "NVTOK.DAT")); err != nil || tokens.NewFormat(ownFormat(p.Dir)) {
		return "", ""
	}
	return "it has the format of openCryptoki 3.8: PINs of 8 bytes at most, which somebody who reads the directory finds in moments, and with them the keys", "p11fs migrate " + p.Name
}

// protection is that of openCryptoki 3.12's format, or of 3.8's: the master key is of
// three-key DES, under keys of two-key DES that are made of the PINs' hashes.
func protection(p tokens.Place) tokens.Protection {
	if tokens.NewFormat(p.Format) {
		return tokens.Protection{
			Mechanisms: []p11.MechanismType{p11.CKM_AES_KEY_GEN, p11.CKM_AES_KEY_WRAP, p11.CKM_AES_GCM, p11.CKM_PKCS5_PBKD2},
			PRF:        p11.CKP_PKCS5_PBKD2_HMAC_SHA512, Bits: 256,
		}
	}
	return tokens.Protection{
		Mechanisms: []p11.MechanismType{p11.CKM_DES3_KEY_GEN, p11.CKM_DES3_CBC, p11.CKM_SHA_1, p11.CKM_MD5}, Bits: 80,
	}
}
