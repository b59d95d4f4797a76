package tpm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
	"p11fs/tokens/tpm/tpm20"
)

// A keeper is format 3.12 of openCryptoki with the master key sealed in a TPM: nothing in
// the directory lets a PIN be tried.
type keeper struct {
	format.Format
	chip  *tpm20.Chip
	dir   string
	group int
	cost  int // of PINs that are set; 0: none is said
	warm  *warm

	mu     sync.Mutex // guards record; files are written under it
	record record
}

var _ format.Format = (*keeper)(nil)

// recordSize is how long format 3.12's record of a PIN is. Of ours a tag says whether it
// is the same one; the derivations around it are none.
const (
	recordSize = 176
	tagAt      = 8
)

// newRecord is a record that no other PIN has.
func newRecord() format.PINRecord {
	b := make([]byte, recordSize)
	_, _ = rand.Read(b[tagAt : tagAt+32]) // which never fails
	return format.PINRecord(b)
}

// Recognize is format.Format.
func (k *keeper) Recognize(file []byte) (format.Format, error) {
	_, err := k.ParseFile(file)
	return k, err
}

// NewToken is format.Keeper.
func (k *keeper) NewToken(ctx context.Context) (d format.TokenData, soFile []byte, err error) {
	if d, _, err = k.Format.NewToken(ctx); err != nil {
		return d, nil, err
	}
	master, err := k.NewMasterKey()
	if err != nil {
		return d, nil, err
	}
	defer master.Close()
	pin, err := secret.New([]byte(tokens.DefaultSOPIN))
	if err != nil {
		return d, nil, err
	}
	defer pin.Close()
	kept, err := k.Make(ctx, p11.CKU_SO, pin, master, format.Kept{})
	if err != nil {
		return d, nil, err
	}
	return k.WithPIN(k.WithPIN(d, p11.CKU_SO, kept.Record), p11.CKU_USER, newRecord()), kept.File, nil
}

// KeyFileSize is format.Keeper.
func (k *keeper) KeyFileSize() int { return keyFileSize }

// Open is format.Keeper. The TPM looks at the PIN.
func (k *keeper) Open(ctx context.Context, user p11.UserType, pin *secret.Bytes, kept format.Kept) (o format.Opened, err error) {
	if kept.File == nil {
		return o, errKeyFile
	}
	f, err := parseKeyFile(kept.File)
	if err != nil {
		return o, err
	}
	if err := ctx.Err(); err != nil {
		return o, err
	}
	stretched, err := k.warm.stretch(user, pin, f)
	if err != nil {
		return o, err
	}
	defer stretched.Close()
	o.Key, err = k.chip.Unseal(ctx, k.parent(), stretched, f.seal)
	switch {
	case errors.Is(err, tpm20.ErrWrongAuth):
		return o, nil
	case errors.Is(err, tpm20.ErrLocked):
		return o, k.locked(ctx, f.seal.Index)
	}
	if o.Right = err == nil; o.Right {
		k.warm.right(user, pin, f, stretched)
	}
	return o, err
}

// locked is the error of a PIN that the TPM does not look at.
func (k *keeper) locked(ctx context.Context, index uint32) error {
	if g, err := k.chip.Guard(ctx); err == nil && g.Locked {
		return p11.Advise(p11.Errorf(p11.CKR_PIN_LOCKED, "the TPM looks at no PIN of any program now, after %d failures", g.Failures),
			fmt.Sprintf("wait %d seconds for each further try, or have the owner of the machine reset its lockout", g.Interval))
	}
	return p11.Errorf(p11.CKR_PIN_LOCKED, "the index %#x of the TPM has counted too many wrong PINs", index)
}

// Make is format.Keeper. An index that it makes is noted before, so that it is removed
// where nothing comes of it: see sweep.
func (k *keeper) Make(ctx context.Context, _ p11.UserType, pin, master *secret.Bytes, before format.Kept) (kept format.Kept, err error) {
	f := keyFile{cost: k.costOf(before)}
	_, _ = rand.Read(f.salt[:]) // which never fails
	if err := ctx.Err(); err != nil {
		return kept, err
	}
	stretched, err := tpm20.Stretch(pin, f.salt[:], f.cost)
	if err != nil {
		return kept, err
	}
	defer stretched.Close()
	var index uint32
	if k.protection() == PINFail {
		if index, err = k.newIndex(ctx, stretched); err != nil {
			return kept, err
		}
	}
	if f.seal, err = k.chip.Seal(ctx, k.parent(), stretched, index, master); err != nil {
		return kept, err
	}
	kept.Record = newRecord()
	kept.File, err = f.print()
	return kept, err
}

// costOf is the cost of a PIN that is set: what is said, or else that of the one in whose
// place it is set, or that of the SO's, so that a token keeps what it was made with.
func (k *keeper) costOf(before format.Kept) int {
	if k.cost != 0 {
		return k.cost
	}
	f, err := parseKeyFile(before.File)
	if err != nil {
		so, _, _ := readFile(k.dir, "MK_SO", keyFileSize) // none in a new token
		f, err = parseKeyFile(so)
	}
	if err != nil {
		return tpm20.Cost
	}
	return min(max(f.cost, tpm20.MinCost), tpm20.MaxCost)
}

// tries is how many wrong PINs an index lets pass, as the token itself does.
const tries = 3

func (k *keeper) newIndex(ctx context.Context, pin *tpm20.PIN) (uint32, error) {
	index, err := k.chip.FreeIndex(ctx)
	if err != nil {
		return 0, err
	}
	if err := k.note(func(list []uint32) []uint32 { return append(list, index) }); err != nil {
		return 0, err
	}
	return index, k.chip.DefineIndex(ctx, k.parent(), index, pin, tries)
}

// note changes the list of indexes, on the disk first.
func (k *keeper) note(change func([]uint32) []uint32) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	now, err := readRecord(k.dir)
	if err != nil {
		return err
	}
	now.indexes = change(now.indexes)
	if err := now.write(k.dir, k.group); err != nil {
		return err
	}
	k.record.indexes = now.indexes
	return nil
}

func (k *keeper) parent() tpm20.Parent {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.record.parent
}

func (k *keeper) protection() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.record.protection
}

// changing calls f, which may change a PIN, and then removes the indexes that no PIN has
// any more. Nobody else does that with the directory meanwhile.
func (k *keeper) changing(ctx context.Context, f func() error) error {
	defer func() {
		k.warm.settle(p11.CKU_SO, false)
		k.warm.settle(p11.CKU_USER, false)
	}()
	if k.protection() != PINFail {
		return f()
	}
	unlock, err := lockDirectory(ctx, k.dir)
	if err != nil {
		return err
	}
	defer unlock()
	err = f()
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if serr := k.sweep(after); err == nil && serr != nil && p11.RVOf(serr) != p11.CKR_DEVICE_REMOVED {
		return serr // which the next change repeats
	}
	return err
}

// sweep removes indexes that were made for PINs and are not those of one.
func (k *keeper) sweep(ctx context.Context) error {
	used := make(map[uint32]bool)
	for _, name := range []string{"MK_SO", "MK_USER"} {
		b, _, err := readFile(k.dir, name, keyFileSize)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		var f *keyFile
		if err == nil {
			f, err = parseKeyFile(b)
		}
		if err != nil {
			return nil // it may come back from a backup
		}
		used[f.seal.Index] = true
	}
	r, err := readRecord(k.dir)
	if err != nil {
		return err
	}
	var gone []uint32
	for _, i := range r.indexes {
		if used[i] {
			continue
		}
		if err := k.chip.RemoveIndex(ctx, i); err != nil {
			return err
		}
		gone = append(gone, i)
	}
	if len(gone) == 0 {
		return nil
	}
	return k.note(func(list []uint32) []uint32 {
		return slices.DeleteFunc(list, func(i uint32) bool { return slices.Contains(gone, i) })
	})
}

// lockDirectory keeps out others who change PINs in a directory.
func lockDirectory(ctx context.Context, dir string) (unlock func(), err error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, failed(err)
	}
	for {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return func() { _ = unix.Close(fd) }, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			_ = unix.Close(fd)
			return nil, failed(err)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			_ = unix.Close(fd)
			return nil, ctx.Err()
		}
	}
}
