package tpm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tpm/stocktpm"
	"p11fs/tokens/tpm/tpm20"
)

// lookTime bounds how long a TPM is looked at that may be at other work.
const lookTime = 2 * time.Second

// vacant is tokens.Kind's: openCryptoki's configuration names a slot for the TPM 1.2 of
// its own token also where the machine has none. Ours is meant where the slot names a file
// of its settings, or its directory is one of ours.
func vacant(p tokens.Place) string {
	if _, err := os.Lstat(filepath.Join(p.Dir, chipFile)); err == nil || errors.Is(err, os.ErrPermission) || stocktpm.Found(p.Dir) {
		return ""
	}
	if _, err := os.Lstat(filepath.Join(p.Dir, "NVTOK.DAT")); err != nil && p.Config != "" {
		return ""
	}
	return "it is the slot of openCryptoki's token of a TPM 1.2, and nobody has made that; one of a TPM 2.0 has a confname (p11fs(5))"
}

// check is tokens.Kind's.
func (k *kind) check(p tokens.Place) (wrong, mend string) {
	r, err := readRecord(p.Dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if _, err := os.Lstat(filepath.Join(p.Dir, "NVTOK.DAT")); err == nil && !stocktpm.Found(p.Dir) {
			return fmt.Sprintf("%s has no file %s, and an NVTOK.DAT that is not that of a token of a TPM 1.2: it stays closed", p.Dir, chipFile), "put it back from a backup"
		}
		r = &record{}
	case errors.Is(err, os.ErrPermission):
		return "", ""
	case err != nil:
		return err.Error() + ": the token stays closed", "put it back from a backup"
	}
	conf, err := readSettings(p.Config)
	if err != nil {
		return err.Error(), "editor " + p.Config
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTime)
	defer cancel()
	name, err := k.deviceOf(r, conf)
	if err != nil {
		return err.Error() + ": the token stays closed", p11.AdviceOf(err)
	}
	device := tpm20.Device(name)
	if isOld(p.Dir) {
		device = k.oldDevice(conf)
	}
	err = device.Try(ctx)
	if errors.Is(err, unix.EBUSY) && device.Held("p11fs", "/proc") {
		return "", ""
	}
	if err != nil || len(r.parent.Name) == 0 {
		return device.Trouble(err, "/proc")
	}
	chip, release, err := k.take(string(device))
	if err != nil {
		return "", ""
	}
	defer release()
	if err := chip.Knows(ctx, r.parent); errors.Is(err, tpm20.ErrOther) {
		return fmt.Sprintf("%s: %v", p.Dir, tpm20.ErrOther), "give it its TPM back, or make it anew: rm -r " + p.Dir + ", and p11fs init"
	}
	return "", ""
}

// weak is tokens.Kind's: how far the TPM's own count of wrong PINs can be trusted.
func (k *kind) weak(p tokens.Place) (why, mend string) {
	r, err := readRecord(p.Dir)
	if isOld(p.Dir) {
		return "private objects are under a key of zeros, as stock has it: who reads the directory reads them, but for the RSA keys, which the TPM has", "keep secret keys and data in another token"
	}
	if err != nil {
		return "", "" // of which check tells
	}
	conf, err := readSettings(p.Config)
	if err != nil {
		return "", ""
	}
	device, err := k.deviceOf(r, conf)
	if err != nil {
		return "", "" // of which check tells
	}
	chip, release, err := k.take(device)
	if err != nil {
		return "", ""
	}
	defer release()
	ctx, cancel := context.WithTimeout(context.Background(), lookTime)
	defer cancel()
	g, err := chip.Guard(ctx)
	switch {
	case err != nil:
		return "", ""
	case !g.LockoutAuth && !g.OwnerAuth:
		why = "neither the TPM's lockout nor its owner has a password: who may open its device sets the count of wrong PINs back, and can remove what is the token's"
	case !g.LockoutAuth:
		why = "the TPM's lockout has no password: who may open its device sets the count of wrong PINs back"
	case !g.OwnerAuth:
		return "the TPM's owner has no password: who may open its device can remove what is the token's", "tpm2_changeauth -c owner PASSWORD, once its storage key is persistent at 0x81000001"
	default:
		return "", ""
	}
	return why, "tpm2_changeauth -c lockout PASSWORD"
}
