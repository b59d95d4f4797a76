package store

import (
	"crypto/rand"
	"encoding/hex"
	"strings"

	"golang.org/x/sys/unix"
)

// The next version of a file stands beside it until it takes its place, under the name
// .p11fs.NAME.RANDOM: a name that could be foreseen would be taken by whoever may write the
// directory, and then nothing could be written, not even that a PIN was wrong.
const (
	tempPrefix = ".p11fs."
	tempRandom = 16 // hexadecimal digits
)

func tempName(name string) string {
	b := make([]byte, tempRandom/2)
	_, _ = rand.Read(b) // which never fails
	return tempPrefix + name + "." + hex.EncodeToString(b)
}

// isTemp reports whether a name is one that tempName gives, or gave when it was the same
// for each version of a file.
func isTemp(name string) bool {
	base, ok := strings.CutPrefix(name, tempPrefix)
	if !ok || name == nameKeyFile || name == countFile || name == unfinishedMark {
		return false
	}
	switch base {
	case dataFile, soKeyFile, userKeyFile, indexFile, nameKeyFile, countFile, "object", "TPM2":
		return true
	}
	at := len(base) - tempRandom - 1
	if at < 1 || base[at] != '.' {
		return false
	}
	_, err := hex.DecodeString(base[at+1:])
	return err == nil
}

// A prepared file is the next version of one, which is durable but not in its place.
type prepared struct {
	d          *folder
	name, temp string // temp is empty when it is in its place
}

// prepare writes the next version of a file, which the caller commits, and drops.
func (d *folder) prepare(name string, b []byte) (*prepared, error) {
	p := &prepared{d, name, tempName(name)}
	if err := d.put(p.temp, name, b, d.k.Sync); err != nil {
		return nil, err
	}
	return p, nil
}

// drop removes what was not put in its place. nil has nothing to drop.
func (p *prepared) drop() {
	if p != nil && p.temp != "" {
		_ = p.d.k.Unlink(p.d.fd, p.temp)
	}
}

// rename puts the file in its place and returns its stamp. It is durable after sync.
func (p *prepared) rename() (stamp, error) {
	if err := p.d.k.Rename(p.d.fd, p.temp, p.name); err != nil {
		return stamp{}, ioError("rename", p.name, err)
	}
	p.temp = ""
	return p.d.stamp(p.name)
}

// commit puts the file in its place, durably, and returns its stamp.
func (p *prepared) commit() (stamp, error) {
	st, err := p.rename()
	if err == nil {
		err = p.d.sync()
	}
	return st, err
}

// write replaces a file by one with the contents b: after a crash at any moment
// the file is the old or the new one.
func (d *folder) write(name string, b []byte) (stamp, error) {
	p, err := d.prepare(name, b)
	if err != nil {
		return stamp{}, err
	}
	defer p.drop()
	return p.commit()
}

// sweep removes what a process that was killed has left of files that it wrote. The token's
// lock is held, and so nobody writes one now.
func (s *Store) sweep(d *folder) {
	err := d.each(func(name string) error {
		if isTemp(name) {
			_ = d.remove(name) // what is a directory was never one
		}
		return nil
	})
	if err != nil {
		s.cfg.Log.Warn("what a process that was killed may have left behind stays", "dir", d.path, "err", err)
	}
}

// Replace replaces a file of an open token's directory dir as the store replaces its own. It
// has mode 0660 with a group, and 0600 with NoGroup.
func Replace(dir, name string, b []byte, group int) error {
	d, err := openFolder(unix.AT_FDCWD, dir, linux{}, group)
	if err != nil {
		return err
	}
	defer d.close()
	_, err = d.write(name, b)
	return err
}
