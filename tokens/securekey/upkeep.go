package securekey

import (
	"context"
	"io"

	"p11fs/p11"
	"p11fs/tokens"
)

// KeptWithCards has the upkeep of a kind of token be for what is in the token's directory
// alone: its configuration and a software card's folder are there, too, of which a directory
// in another format, or a backup, would have nothing.
func KeptWithCards(k tokens.Kind) tokens.Kind {
	next, weak := k.Upkeep, k.Weak
	k.NoBackup = errNoBackup
	k.Upkeep = func(p tokens.Place) tokens.Upkeep { return upkeep{next(p)} }
	k.Weak = func(p tokens.Place) (why, mend string) {
		if why, _ = weak(p); why != "" {
			why, mend = "it has the format of openCryptoki 3.8: PINs of 8 bytes at most, which somebody who reads the directory finds in moments", "have nobody else read it"
		}
		return why, mend
	}
	return k
}

var errNoBackup = p11.Advise(p11.Errorf(p11.CKR_FUNCTION_NOT_SUPPORTED, "its keys open with its cards alone, and a backup would have neither their master keys nor its configuration"),
	"stop p11fs and copy the token's directory with cp -a, after each change of the card's key anew, and a software card's directory with it")

type upkeep struct{ tokens.Upkeep }

// Migrate is tokens.Upkeep.
func (upkeep) Migrate(context.Context, tokens.Migration) (tokens.Migrated, error) {
	return tokens.Migrated{}, p11.Advise(p11.Errorf(p11.CKR_FUNCTION_NOT_SUPPORTED, "a token whose keys cards have stays in the format that it was made in"),
		"make another token with p11fs init, which has the newer format, and keys of its own")
}

// Backup is tokens.Upkeep.
func (upkeep) Backup(context.Context, io.Writer, func(done, total int)) error {
	return errNoBackup
}
