package seal

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/secret"
)

// A Key is the key of a fleet. Whoever made one calls Close.
type Key struct {
	root *secret.Bytes
	tags *secret.Bytes // see Tag
}

// NewKey makes a key of 32 bytes, which it wipes.
func NewKey(b []byte) (*Key, error) {
	if len(b) != keySize {
		secret.Wipe(b)
		return nil, fmt.Errorf("a fleet's key has %d bytes, not %d", keySize, len(b))
	}
	tags, err := hkdf.Key(sha256.New, b, nil, infoTag, keySize)
	if err != nil {
		secret.Wipe(b)
		return nil, err
	}
	k := &Key{}
	if k.root, err = secret.New(b); err != nil {
		secret.Wipe(tags)
		return nil, err
	}
	if k.tags, err = secret.New(tags); err != nil {
		return nil, errors.Join(err, k.root.Close())
	}
	return k, nil
}

// Close wipes the key. It may be called again.
func (k *Key) Close() error { return errors.Join(k.root.Close(), k.tags.Close()) }

// maxFile is the longest key file: the digits and what may stand around them.
const maxFile = 2*keySize + 64

// makeOne is how a key file is made.
const makeOne = "make one by (umask 077; openssl rand -hex 32 > FILE), and give all machines of the fleet the same"

// ReadKey reads the key in a file: 64 hexadecimal digits on one line.
func ReadKey(path string) (*Key, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, p11.Advise(fmt.Errorf("the fleet's key: %w", err), makeOne)
	}
	defer f.Close()
	if err := alone(f); err != nil {
		return nil, err
	}
	b := make([]byte, maxFile+1)
	defer secret.Wipe(b)
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, p11.Advise(fmt.Errorf("the fleet's key: %w", err), "see that the file can be read")
	}
	line := secret.Line(b[:n])
	root := make([]byte, keySize)
	if len(line) == hex.EncodedLen(keySize) {
		if _, err := hex.Decode(root, line); err == nil {
			return NewKey(root)
		}
		secret.Wipe(root)
	}
	return nil, p11.Advise(fmt.Errorf("the fleet's key in %s is not one line of %d hexadecimal digits", path, hex.EncodedLen(keySize)), makeOne)
}

// alone refuses a file that others may read. Where a file has an access control list, as
// systemd's credentials do, the bits of the group are only the most that the list may give.
func alone(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("the fleet's key: %w", err)
	}
	if !st.Mode().IsRegular() {
		return p11.Advise(fmt.Errorf("the fleet's key: %s is no regular file", f.Name()), makeOne)
	}
	most := os.FileMode(0)
	if _, err := unix.Fgetxattr(int(f.Fd()), "system.posix_acl_access", nil); err == nil {
		most = 0o040
	}
	if st.Mode().Perm()&0o077&^most != 0 {
		return p11.Advise(fmt.Errorf("the fleet's key: others may read or write %s (mode %04o)", f.Name(), st.Mode().Perm()), "chmod 600 "+f.Name()+", and make the fleet another key if somebody has read it")
	}
	if locks.Others(st) {
		return p11.Advise(fmt.Errorf("the fleet's key: %s is another user's, who knows it", f.Name()), "chown it to root or the daemon's user if it is the fleet's, else put the fleet's there")
	}
	return nil
}

// WriteKey makes a new key in a file that is not there yet.
func WriteKey(path string) error {
	root := make([]byte, keySize)
	defer secret.Wipe(root)
	_, _ = rand.Read(root) // never fails
	line := hex.AppendEncode(nil, root)
	line = append(line, '\n')
	defer secret.Wipe(line)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return p11.Advise(fmt.Errorf("make the fleet's key: %w", err), "name a file that is not there yet, in a directory that you may write")
	}
	_, err = f.Write(line)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return p11.Advise(fmt.Errorf("make the fleet's key: %w", errors.Join(err, os.Remove(path))), "see that the disk has room")
	}
	return nil
}
