package tokens

import (
	"context"
	"errors"
	"io"
	"strings"

	"p11fs/p11"
	"p11fs/secret"
)

// Upkeep is what is done with one token directory beside serving it, while a daemon
// serves it or none does. What changes it holds the token's lock, and after a kill at
// any point there is the old token or the new one. Wrong PINs count as at a login.
type Upkeep interface {
	// State looks at the directory, without any lock.
	State() (DirectoryState, error)
	// Migrate puts a directory in the newer format in the place of this one, which stays
	// beside it as a backup. It goes on with a migration that was cut off. For a token that
	// has the newer format it returns ErrMigrated, and of objects that cannot be read a
	// DamagedError.
	Migrate(ctx context.Context, m Migration) (Migrated, error)
	// Rollback puts the backup of a migration in the place of what came of it, which stays
	// beside it. declare is as in Migration.
	Rollback(ctx context.Context, declare func() error) error
	// Forget removes what a migration left beside the token: see DirectoryState.
	Forget(ctx context.Context) error
	// Check looks at every file of the token, and with the user's PIN, which may be nil,
	// into all objects.
	Check(ctx context.Context, pin *secret.Bytes) (Checked, error)
	// Backup writes the token, as a tar archive of one directory, as it is at one moment.
	// progress is called with how many of how many objects are done; it may be nil.
	Backup(ctx context.Context, w io.Writer, progress func(done, total int)) error
	// Restore puts a token that Backup wrote in the place of this one, or of none. One that
	// somebody has used gives ErrInitialized unless replace is set; it then stays beside
	// the new one, in DirectoryState.Replaced. before, which may be nil, is called when all is
	// there but the exchange.
	Restore(ctx context.Context, r io.Reader, replace bool, before func() error) error
}

// An Accepter is an Upkeep of a token that knows when somebody has changed what keeps it who may
// not.
type Accepter interface {
	// Accept has the token be what its store holds now, on all machines. ask is told what that
	// is, a line each, and returns the PIN of the security officer, which Accept closes; its
	// error ends all with nothing changed. Wrong PINs count.
	Accept(ctx context.Context, ask func(found []string) (*secret.Bytes, error)) error
}

// Errors of an Upkeep.
var (
	ErrMigrated    = errors.New("the token has the newer format already")
	ErrInitialized = errors.New("there is an initialised token in its place")
)

// A DirectoryState is what stands in and beside a token directory.
type DirectoryState struct {
	Present     bool
	Format      p11.Version // 3.8 or 3.12
	Initialized bool
	UserPIN     bool // the user has one
	Label       string
	Flags       p11.Flags // those of CK_TOKEN_INFO
	// Paths of directories beside it, empty for none: what the token was before it was
	// migrated; a migration that was cut off or rolled back; and what a restored backup
	// replaced.
	Backup, Unfinished, Replaced string
	// CountedOut is the path of the file of a monotonic counter that has no number left.
	CountedOut string
	// RolledBack says that Unfinished was cut off at its very end, or has been the token.
	RolledBack bool
}

// A Migration is how a token is migrated.
type Migration struct {
	SO, User *secret.Bytes // User is nil of a token whose user has no PIN
	// SkipDamaged leaves objects that cannot be read behind, in the backup.
	SkipDamaged bool
	// Progress is called with how many of how many objects are done. It may be nil.
	Progress func(done, total int)
	// Declare is called when all is there but the exchange of the directories, to
	// write down that the format is another; undo takes that back. It may be nil.
	Declare func() (undo func() error, err error)
}

// Migrated is what came of a migration.
type Migrated struct {
	Objects int
	Damaged []string // those that were left behind, and why
}

// A DamagedError says that objects cannot be read, so that they would be lost.
type DamagedError struct{ Objects []string }

func (e *DamagedError) Error() string {
	return "objects cannot be read: " + e.Objects[0]
}

// Checked is what Check found: lines about what is wrong, and about what is harmless.
type Checked struct {
	Objects, Private int // Private are those of them that the check saw as private
	Wrong, Notes     []string
}

// MovedSuffix ends the name of a directory that was moved out of the way for a moment: see
// MovedAway.
const MovedSuffix = ".moved"

// MovedAway returns the token whose directory stands under name, a hidden one, because a
// file system that cannot exchange two directories in one step was cut off in three; the
// next Open brings it back. It returns "" for any other name.
func MovedAway(name string) string {
	rest, ok := strings.CutSuffix(name, MovedSuffix)
	dot := strings.LastIndexByte(rest, '.')
	if !ok || dot < 2 || rest[0] != '.' {
		return ""
	}
	return rest[1:dot]
}
