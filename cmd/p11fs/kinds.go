package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"p11fs/mountd"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/ccatok"
	"p11fs/tokens/ep11tok"
	"p11fs/tokens/fleet"
	"p11fs/tokens/icsf"
	"p11fs/tokens/lite"
	"p11fs/tokens/store/format"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tpm"
)

// setKinds gives c all kinds of token that there are, with the cryptographic
// library that provider names: auto, go or libcrypto. The first kind is that of
// a user's own tokens whose name says no other.
func setKinds(c *mountd.Config, provider string) error {
	p, err := loadProvider(provider, c.Log)
	if err != nil {
		return err
	}
	c.Provider = p.Name() + " " + p.Version()
	device := ""
	if c.Mode == mountd.User {
		device = os.Getenv("P11FS_TPM")
	}
	c.Kinds = []tokens.Kind{swtok.NewKind(p), lite.NewKind(p, c.Log), tpm.NewKind(p, device), ep11tok.NewKind(p, socketOf(c.Mode, card.EP11)), ccatok.NewKind(p, socketOf(c.Mode, card.CCA)), icsf.NewKind(p, os.Getenv("P11FS_ICSF_TRACE")), fleet.NewKind(p, format.Iterations)}
	return nil
}

// socketOf is where cards answer of which nothing else says where they are: as p11fs card
// serve and the libraries have it, those of root are the machine's.
func socketOf(mode mountd.Mode, abi card.ABI) string {
	run := "/run"
	if mode == mountd.User && os.Geteuid() != 0 {
		run = cmp.Or(os.Getenv("XDG_RUNTIME_DIR"), run)
	}
	return filepath.Join(run, "p11fs", "card."+abi.String())
}

func loadProvider(name string, log *slog.Logger) (swtok.Provider, error) {
	switch name {
	case "go":
		return swtok.GoProvider(), nil
	case "auto", "libcrypto":
		p := swtok.LoadProvider(log)
		if name == "libcrypto" && p.Name() != name {
			return nil, errors.New("the system's libcrypto cannot be loaded: apt-get install libssl3, or take another --provider")
		}
		return p, nil
	}
	return nil, &usageError{err: fmt.Errorf("there is no provider %q: name auto, go or libcrypto", name)}
}

// libcrypto returns the version of the system's libcrypto, or why it cannot be
// used.
func libcrypto() (string, error) {
	p := swtok.LoadProvider(slog.New(slog.DiscardHandler))
	if p.Name() != "libcrypto" {
		return "", errors.New("neither libcrypto.so.3 nor libcrypto.so.1.1 can be loaded: apt-get install libssl3")
	}
	return p.Version(), nil
}
