package swtok

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/store"
	"p11fs/tokens/store/format"
)

// Kind is the name of the kind of token that this package is.
const Kind = "swtok"

// NewKind is the kind of token whose objects are in a token directory, and whose
// cryptography p does.
func NewKind(p Provider) tokens.Kind { return newKind(p, format.Iterations) }

// newKind has the iterations of PBKDF2 for PINs that are set.
func newKind(p Provider, iterations uint64) tokens.Kind {
	return tokens.Kind{
		Name: Kind, Library: "libpkcs11_sw", Files: []string{"NVTOK.DAT", "MK_SO", "MK_USER"},
		Check: check, Lacking: Lacking(p), OwnFormat: ownFormat, Weak: weak, Protection: protection,
		Open: func(ctx context.Context, place tokens.Place) (tokens.Token, error) {
			return open(ctx, p, iterations, place)
		},
		Upkeep: func(place tokens.Place) tokens.Upkeep { return upkeep(iterations, place) },
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

func open(ctx context.Context, p Provider, iterations uint64, place tokens.Place) (tokens.Token, error) {
	if place.Rand == nil {
		place.Rand = rand.Reader
	}
	conf := configOf(place)
	conf.Create, conf.Format = place.Create, formatOf(place, iterations)
	if place.AnyFormat {
		conf.Other = otherFormat(place, iterations)
	}
	s, err := store.Open(ctx, conf)
	if err != nil {
		return nil, err
	}
	return &token{s, NewCrypto(p, place.Rand), place.Name}, nil
}

// configOf is what the store of a place is told, but for the format.
func configOf(place tokens.Place) store.Config {
	return store.Config{
		Dir: place.Dir, Lock: place.Lock, Group: place.Group, Shared: (*store.Shared)(place.Shared), Log: place.Log, Now: place.Now,
	}
}

// upkeep is that of a place in either format.
func upkeep(iterations uint64, place tokens.Place) tokens.Upkeep {
	if place.Rand == nil {
		place.Rand = rand.Reader
	}
	conf := configOf(place)
	if !place.AnyFormat {
		conf.Format = formatOf(place, iterations)
	}
	before, after := place, place
	before.Format, after.Format = p11.Version{}, p11.Version{Major: 3, Minor: 12}
	return store.NewUpkeep(conf, formatOf(before, iterations), formatOf(after, iterations))
}

// otherFormat is the format that the slot does not declare.
func otherFormat(place tokens.Place, iterations uint64) format.Format {
	if tokens.NewFormat(place.Format) {
		place.Format = p11.Version{}
	} else {
		place.Format = p11.Version{Major: 3, Minor: 12}
	}
	return formatOf(place, iterations)
}

// formatOf is the format that the slot declares.
func formatOf(place tokens.Place, iterations uint64) format.Format {
	if tokens.NewFormat(place.Format) {
		k, _ := format.KindOf312(Kind)
		return format.V312(k, place.Rand, iterations)
	}
	k, _ := format.KindOf(Kind)
	return format.V38(k, place.Rand)
}

// ownFormat tells the format of a directory by the size of its NVTOK.DAT. What is new
// has the better one, as no stock program shares a user's own tokens.
func ownFormat(dir string) p11.Version {
	st, err := os.Lstat(filepath.Join(dir, "NVTOK.DAT"))
	if err == nil && st.Size() == formatOf(tokens.Place{}, 0).FileSize() {
		return p11.Version{}
	}
	return p11.Version{Major: 3, Minor: 12}
}

func check(p tokens.Place) (wrong, mend string) {
	file := filepath.Join(p.Dir, "NVTOK.DAT")
	st, err := os.Stat(file)
	size := formatOf(p, 0).FileSize()
	if err != nil || st.Size() == size {
		return "", "" // also for those who may not look
	}
	declared, other, line := "3.8", tokens.Place{Format: p11.Version{Major: 3, Minor: 12}}, "tokversion = 3.12"
	if tokens.NewFormat(p.Format) {
		declared, other, line = "3.12", tokens.Place{}, "tokversion = 0.0"
	}
	wrong = fmt.Sprintf("%s has %d bytes where format %s has %d", file, st.Size(), declared, size)
	if st.Size() == formatOf(other, 0).FileSize() {
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
