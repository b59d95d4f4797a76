package tokens

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"p11fs/locks"
	"p11fs/p11"
)

// A Kind is one kind of token that slots can hold. The program hands the daemon
// a list of them; nothing else names a kind.
type Kind struct {
	// Name is the kind's name, such as "swtok", and that of its token directory
	// where a slot names none.
	Name string
	// Library is openCryptoki's library of this kind, which slots of
	// opencryptoki.conf name, without path and version: "libpkcs11_sw".
	Library string
	// Files are the files in a token directory besides those of the objects.
	Files []string
	// Open opens the token in p.Dir. The directory is there; what of the token
	// is in it is not looked at before.
	Open func(ctx context.Context, p Place) (Token, error)
	// Check looks for what keeps Open from opening p.Dir, p.Format and
	// p.Config, without changing or locking anything. It returns one line that
	// says what is wrong, and one that mends it; both are empty where nothing
	// is wrong, and where there is no token yet. It may be nil.
	Check func(p Place) (wrong, mend string)
	// Caveats are what could be better about how p.Config has the token be, a line each, which
	// says with what. It may be nil.
	Caveats func(p Place) []string
	// OwnFormat is the tokversion of a user's own directory for which no configuration
	// says it: that of what is in it, and of what Open makes where there is nothing. It
	// may be nil, for zero.
	OwnFormat func(dir string) p11.Version
	// Made reports whether the token in dir says that it was made as one of this kind. It
	// may be nil, for a kind whose tokens are told by nothing but where they are.
	Made func(dir string) bool
	// Weak tells, in a few words, what is weak about how the directory of p is kept, and
	// the command that betters it; both are empty where nothing is. It may be nil.
	Weak func(p Place) (why, mend string)
	// Protection is what the directory of p is kept with, for a policy to judge. It may be
	// nil, for what keeps nothing.
	Protection func(p Place) Protection
	// Upkeep is for what is done with a directory beside opening it; nil for a kind that
	// has none. Of p it wants what Open does, but for Create.
	Upkeep func(p Place) Upkeep
	// Portable: a backup of Upkeep has a token of which nothing is anywhere else, and another
	// Portable kind restores it.
	Portable bool
	// NoBackup says why there is no Upkeep or none of its Backup; p11.AdviceOf it is how the
	// token is kept instead. It is nil where there is one.
	NoBackup error
	// Vacant says, of a slot of the machine's configuration, why it has no token and is to
	// get none, as where the machine lacks what such tokens live in; empty where it has one.
	// It may be nil.
	Vacant func(p Place) string
	// Unshared reports whether programs with openCryptoki's library must not know of the
	// token in p, since they could not use its directory. It may be nil, for one that they
	// share.
	Unshared func(p Place) bool
	// Owner is the user of the machine whose lock and shared memory the token in p has, where
	// programs with openCryptoki's library have those for each user apart; empty where they
	// do not. It may be nil, for that.
	Owner func(p Place) string
	// Settings are the names of the lines NAME = VALUE that the kind's own configuration file
	// may have, for a kind that takes them when a token is made.
	Settings []string
	// Lacking are the mechanisms that its tokens would have on another machine, or with
	// another cryptographic library.
	Lacking []Lack
}

// ErrAway is wrapped by an error of Kind.Open where what has the token does not answer now. A
// daemon opens it as soon as that does.
var ErrAway = errors.New("it comes by itself")

// ToMend stands in status between what is wrong and what to do about it.
const ToMend = "; to mend it: "

// A Protection is what a token directory keeps its objects and PINs with.
type Protection struct {
	Mechanisms []p11.MechanismType
	PRF        p11.PBKDF2PRF // 0 for none
	Bits       uint64        // of the weakest key
}

// A Lack is a mechanism that is not there, and why, in a few words.
type Lack struct {
	Type p11.MechanismType
	Why  string
}

// A Place says where a token is to be opened, and with what.
type Place struct {
	Name string // of the token
	Dir  string // the token directory
	// Config is the path of the kind's own configuration file, which confname
	// of opencryptoki.conf names; empty without.
	Config string
	// Format is tokversion of opencryptoki.conf, which says what format the
	// directory has: 3.8's below 3.12, and 3.12's from there on. Zero without, but
	// for a user's own directories: see Kind.OwnFormat.
	Format p11.Version
	// Slot is the number of the slot, by which Config has a token of several.
	Slot uint64
	// AnyFormat says that no configuration tells the format, but what is in the directory,
	// also where another one takes its place: see Kind.OwnFormat.
	AnyFormat bool
	// Lock is the token's lock; the token does not close it.
	Lock *locks.Lock
	// Shared is the shared memory through which programs with openCryptoki's
	// library use the same token; nil where none do.
	Shared *Shared
	// Room bounds the object files that are loaded, in bytes: 0 is DefaultRoom, a negative
	// number no bound.
	Room int64
	// Group owns what is made, or is locks.NoGroup.
	Group int
	// Create has a token be made where there is none.
	Create bool

	Log  *slog.Logger
	Now  func() time.Time
	Rand io.Reader // nil is the system's
}

// DefaultRoom is room for a million objects of 800 bytes each, or for 100,000 of 10,000.
const DefaultRoom = 1 << 30

// Shared names a segment of shared memory.
type Shared struct {
	Dir  string // /dev/shm
	Name string
}

// NewFormat reports whether a directory with this tokversion has the format of
// openCryptoki 3.12 rather than that of 3.8.
func NewFormat(tokversion p11.Version) bool {
	return tokversion.Major > 3 || tokversion.Major == 3 && tokversion.Minor >= 12
}
