package mountd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"p11fs/engine"
	"p11fs/p11"
	"p11fs/secret"
)

// pinCredential is what the name of a systemd credential with a token's PIN begins with; the
// token's name is the rest (systemd.exec(5), LoadCredential=).
const pinCredential = "pin."

// maxPINFile is the longest file of a PIN that is read.
const maxPINFile = 4096

// holdLogins has the daemon log in to the tokens for which it is given a PIN. Where that
// fails, grants for keys of the token give nothing, and all else goes on.
func (d *Daemon) holdLogins(ctx context.Context) error {
	for _, s := range d.present() {
		if err := d.holdLogin(ctx, s); err != nil {
			return err
		}
	}
	for name := range d.conf.Hold {
		if _, err := d.engine.SlotNamed(name); err != nil {
			d.log.Error("the daemon holds no login", "token", name, "err", err)
		}
	}
	return nil
}

// holdLogin is holdLogins for one token. Its error is that of ctx.
func (d *Daemon) holdLogin(ctx context.Context, s *slot) error {
	file, ok := d.conf.Hold[s.Place.Name]
	if !ok && d.conf.Credentials != "" {
		file = filepath.Join(d.conf.Credentials, pinCredential+s.Place.Name)
		_, err := os.Lstat(file)
		ok = !errors.Is(err, fs.ErrNotExist)
	}
	if !ok {
		return nil
	}
	if err := d.hold(ctx, s, file); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		d.log.Error("the daemon holds no login", "token", s.Place.Name, "file", file, "err", err)
	}
	return nil
}

// hold logs in with the PIN of a file. A PIN of which a wrong one was given since the last
// right one is not tried: a file with the wrong one would lock it in a few starts.
func (d *Daemon) hold(ctx context.Context, s *slot, file string) error {
	slot, err := d.engine.SlotNamed(s.Place.Name)
	if err != nil {
		return err
	}
	info, err := slot.TokenInfo(ctx)
	if err != nil {
		return err
	}
	if tries, state := info.Flags.PINState(p11.CKU_USER); tries != "many" || state == "unset" {
		return fmt.Errorf("the PIN is %s, and %s tries are left: log in by hand first, then start anew or use p11fs unlock", state, tries)
	}
	pin, err := readPIN(file)
	if err != nil {
		return err
	}
	defer pin.Close()
	return slot.Hold(ctx, engine.Owner{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), PID: os.Getpid(), Door: "start", Command: "p11fs"}, pin)
}

// readPIN reads a PIN from a file that nobody but the daemon's user and root may read or
// write.
func readPIN(name string) (*secret.Bytes, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fmt.Errorf("%s is no file: write the PIN into one", name)
	case int(st.Uid) != os.Geteuid() && st.Uid != 0:
		return nil, fmt.Errorf("%s belongs to user %d: chown %d %[1]s", name, st.Uid, os.Geteuid())
	case st.Mode&0o077 != 0:
		return nil, fmt.Errorf("others may read or write %s (mode %04o): chmod 0400 %[1]s, and change the PIN", name, st.Mode&0o7777)
	}
	b := make([]byte, maxPINFile)
	defer secret.Wipe(b)
	n, err := io.ReadFull(f, b)
	switch {
	case err == nil:
		return nil, fmt.Errorf("%s is longer than a PIN: write the PIN alone into it", name)
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, err
	}
	pin := secret.Line(b[:n])
	if len(pin) == 0 {
		return nil, fmt.Errorf("%s is empty: write the PIN into it", name)
	}
	return secret.New(pin)
}
