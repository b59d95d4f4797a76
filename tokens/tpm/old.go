package tpm

import (
	"cmp"
	"context"
	"errors"
	"os"
	"os/user"
	"strconv"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tpm/desk"
	"p11fs/tokens/tpm/stocktpm"
	"p11fs/tokens/tpm/tpm12"
)

// isOld says whether a directory is one of stock's token of a TPM 1.2.
func isOld(dir string) bool {
	_, err := readRecord(dir)
	return errors.Is(err, os.ErrNotExist) && stocktpm.Found(dir)
}

// openOld opens the token of a TPM 1.2.
func (k *kind) openOld(ctx context.Context, place tokens.Place, conf settings) (tokens.Token, error) {
	device := k.oldDevice(conf)
	if err := device.Check(); err != nil {
		return nil, p11.Errorf(p11.CKR_ARGUMENTS_BAD, "%w", err)
	}
	srk, err := tpm12.SRKAuth(os.LookupEnv)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "the TPM's storage root key: %w", err)
	}
	name, err := conf.userName()
	if err != nil {
		return nil, err
	}
	chip, release, err := k.old.Take(string(device), func() (*tpm12.TPM, error) { return tpm12.Open(device, srk), nil })
	if err != nil {
		return nil, err
	}
	t, err := stocktpm.Open(ctx, place, stocktpm.Config{Kind: Kind, Provider: k.provider, TPM: chip, Release: release, User: name})
	if err != nil {
		release()
	}
	return t, err
}

// oldDevice is the TPM 1.2 of a token, of which the kernel has one, for one program.
func (k *kind) oldDevice(s settings) desk.Device {
	return desk.Device(cmp.Or(s.device, k.device, "/dev/tpm0"))
}

// userName is the user of the machine whose part of an old token this program has: who runs
// it, as with stock's programs, unless the settings say another one.
func (s settings) userName() (string, error) {
	if s.user != "" {
		return s.user, nil
	}
	u, err := user.LookupId(strconv.Itoa(os.Getuid()))
	if err != nil {
		return "", p11.Errorf(p11.CKR_FUNCTION_FAILED, "the name of the user, which a directory of the token has: %w", err)
	}
	return u.Username, nil
}

// owner is tokens.Kind's.
func owner(p tokens.Place) string {
	if !isOld(p.Dir) {
		return ""
	}
	conf, err := readSettings(p.Config)
	if err != nil {
		return "" // of which open tells
	}
	name, err := conf.userName()
	if err != nil {
		return ""
	}
	return name
}
