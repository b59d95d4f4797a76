package icsf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/icsf/icsffile"
	"p11fs/tokens/swtok"
)

// Kind is the name of the kind of token that this package is.
const Kind = "icsf"

// NewKind is the kind of token whose objects are those of a token of ICSF. p does the
// cryptography around them. trace is the path of a file that each call of a server is added to,
// without data and secrets; empty is none.
func NewKind(p swtok.Provider, trace string) tokens.Kind {
	return newKind(p, times{freshFor, keepFor}, trace)
}

func newKind(p swtok.Provider, w times, trace string) tokens.Kind {
	return tokens.Kind{
		Name: Kind, Library: "libpkcs11_icsf", Files: []string{"NVTOK.DAT", "MK_SO", "MK_USER", passwordFile},
		Open: func(ctx context.Context, place tokens.Place) (tokens.Token, error) {
			c, err := readConfig(place)
			if err != nil {
				return nil, err
			}
			var to *os.File
			if trace != "" {
				if to, err = os.OpenFile(trace, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
					return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "the trace of the server's calls: %w", err)
				}
			}
			t, err := open(ctx, p, place, c, w, to)
			if err != nil {
				_ = to.Close()
				return nil, err
			}
			return t, nil
		},
		Check: check, Weak: weak,
		NoBackup: errNoBackup,
		Unshared: func(tokens.Place) bool { return true },
	}
}

// maxConfig bounds a configuration file.
const maxConfig = 1 << 16

// configOf is where the configuration is that confname of a slot names, or that of a user's
// own token.
func configOf(place tokens.Place) string {
	return cmp.Or(place.Config, filepath.Join(place.Dir, ownConfig))
}

// readConfig reads it.
func readConfig(place tokens.Place) (*icsffile.Config, error) {
	path := configOf(place)
	open := func() (*os.File, error) { return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0) }
	if place.Config == "" { // who may write the directory does not say which server gets the password
		open = func() (*os.File, error) { return locks.OpenOwn(place.Dir, ownConfig) }
	}
	f, err := open()
	switch {
	case errors.Is(err, os.ErrNotExist) && place.Config == "":
		return nil, p11.Advise(p11.Errorf(p11.CKR_TOKEN_NOT_PRESENT, "nothing says which server has the token: %w", err), "make it with p11fs init icsf --uri URI, or name its file with confname")
	case errors.Is(err, os.ErrNotExist):
		return nil, p11.Advise(p11.Errorf(p11.CKR_TOKEN_NOT_PRESENT, "the configuration of the token: %w", err), "write the file, as pkcsicsf does, or another name behind confname")
	case err != nil:
		return nil, p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "the configuration of the token: %w", err), "have it belong to the daemon's user or root, and nobody else write it: ls -l shows who may")
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "the configuration of the token: %w", err)
	}
	c, err := icsffile.ParseConfig(b, place.Slot)
	if err != nil { // which says what to write
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "%w", fmt.Errorf("%s: %w", path, err))
	}
	return c, nil
}

// errNoBackup says why there is no tokens.Upkeep.
var errNoBackup = p11.Advise(p11.Errorf(p11.CKR_FUNCTION_NOT_SUPPORTED, "its objects are on the server, and nothing is in its directory but the PINs and the server's password"),
	"save the server's tokens (ICSF's TKDS), and copy the directory with cp -a while p11fs is stopped")
