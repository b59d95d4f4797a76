package softcca

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"p11fs/secret"
	"p11fs/tokens/swtok"
)

// Open opens the domain whose master keys are in files of a directory, such as
// "aes.current", or makes one there.
func Open(p swtok.Provider, serial, dir string) (*Domain, error) {
	d := domain(p, serial)
	d.dir = dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	made, err := d.load()
	if err == nil && !made {
		err = d.begin()
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// marker is there once a domain was made: without keys it then was zeroised.
const marker = "kind"

func (d *Domain) file(m Master, r Register) string {
	return filepath.Join(d.dir, m.String()+"."+r.String())
}

func (d *Domain) load() (made bool, err error) {
	for _, m := range Masters() {
		for _, r := range Registers() {
			b, err := os.ReadFile(d.file(m, r))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return false, err
			}
			if len(b) != masterSize {
				secret.Wipe(b)
				return false, fmt.Errorf("%s: a master key has %d bytes, not %d", d.file(m, r), masterSize, len(b))
			}
			if d.keys[m][r], err = secret.New(b); err != nil {
				return false, err
			}
			made = true
		}
	}
	_, err = os.Stat(filepath.Join(d.dir, marker))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	return made || err == nil, nil
}

// begin makes the first master keys.
func (d *Domain) begin() error {
	for _, m := range Masters() {
		key, err := newMaster(d.random)
		if err != nil {
			return err
		}
		d.keys[m][Current] = key
		if err := d.save(m); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(d.dir, marker), []byte("cca\n"), 0o600)
}

// save writes the registers of a master key, the old one first: after a crash no key is
// nowhere. The caller has the lock, or is alone.
func (d *Domain) save(m Master) (err error) {
	if d.dir == "" {
		return nil
	}
	for _, r := range []Register{Old, Current, New} {
		name := d.file(m, r)
		if d.keys[m][r] == nil {
			if rerr := os.Remove(name); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
				err = errors.Join(err, rerr)
			}
			continue
		}
		d.keys[m][r].Use(func(b []byte) { err = errors.Join(err, writeFile(name, b)) })
	}
	return err
}

// writeFile replaces a file as a whole.
func writeFile(name string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}
