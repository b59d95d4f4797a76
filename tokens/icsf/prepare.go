package icsf

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/icsf/icsfconn"
	"p11fs/tokens/icsf/icsffile"
	"p11fs/tokens/icsf/icsfwire"
)

// ownConfig is the configuration in the token directory itself, of a token for which no slot
// names one.
const ownConfig = "token.conf"

// maxTokens bounds the tokens of a server that are looked at.
const maxTokens = 1024

// An Offered is a token of a server.
type Offered struct {
	icsffile.Config
	Protected bool // nobody may write to it
}

// Tokens asks a server for its tokens: c says which server, and is returned once for each,
// completed. password is that of c.BindDN, nil with SASL.
func Tokens(ctx context.Context, c icsffile.Config, password *secret.Bytes) (list []Offered, err error) {
	if err := c.CheckServer(); err != nil {
		return nil, p11.Errorf(p11.CKR_ARGUMENTS_BAD, "%w", err)
	}
	conf := connOf(&c)
	conf.Password = password.Clone
	conn := icsfconn.New(conf)
	defer conn.Close()
	const atATime = 10
	for after := icsfwire.Handle(""); len(list) < maxTokens; {
		var out icsfwire.TokenList
		r := &icsfwire.Request{Handle: after, Rules: []string{"TOKEN"}, Data: &icsfwire.ListTokens{Room: atATime * icsfwire.TokenRecordSize, Max: atATime}}
		_, err := conn.Call(ctx, r, &out)
		if errors.Is(err, icsfconn.ErrPassword) {
			return nil, p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "the server refused the password for %s", c.BindDN), "give the one that the server has for that name, which is no PIN, or another --binddn")
		}
		if err != nil {
			return nil, err
		}
		if len(out.Records) < icsfwire.TokenRecordSize {
			break
		}
		for b := out.Records; len(b) >= icsfwire.TokenRecordSize; b = b[icsfwire.TokenRecordSize:] {
			field := func(from, to int) string { return strings.TrimRight(string(b[from:to]), " \x00") }
			one := Offered{Config: c, Protected: b[flagsAt]&protected != 0}
			one.Name, one.Manufacturer, one.Model, one.Serial = field(0, 32), field(32, 64), field(64, 80), field(80, 96)
			if !icsffile.ValidName(one.Name) || icsfwire.TokenHandle(one.Name) <= after {
				return nil, p11.Errorf(p11.CKR_DEVICE_ERROR, "the server lists what is no token")
			}
			after = icsfwire.TokenHandle(one.Name)
			list = append(list, one)
		}
	}
	return list, nil
}

// Where the record of a token has its flags, and the first of them.
const flagsAt, protected = 112, 0x80

// Prepare makes the files of a token directory, which is there and has none: the configuration, and with
// SIMPLE the server's password, under the PIN that an SO has at first. The server is asked for
// the token that c names, or for the only one where it names none.
func Prepare(ctx context.Context, dir *os.Root, c icsffile.Config, password *secret.Bytes) error {
	list, err := Tokens(ctx, c, password)
	if err != nil {
		return err
	}
	found, err := choose(list, c.Name, "name one of them with --icsf-token")
	if err != nil {
		return err
	}
	if err := found.Check(); err != nil {
		return p11.Errorf(p11.CKR_ARGUMENTS_BAD, "%w", err)
	}
	files := map[string][]byte{ownConfig: found.Print(0)}
	if found.Mech == icsffile.Simple {
		if err := passwordFiles(files, password); err != nil {
			return err
		}
	}
	for _, name := range []string{"MK_SO", passwordFile, ownConfig} { // the last one makes it whole
		if b, ok := files[name]; ok {
			if err := writeNew(dir, name, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// ReplacePassword stores another password of the server in the place of the one in a token
// directory, once the server has taken it. pin is the user's or the SO's: it opens the key
// under which the password is.
func ReplacePassword(ctx context.Context, dir string, pin, password *secret.Bytes) error {
	c, err := readConfig(tokens.Place{Dir: dir})
	if err != nil {
		return err
	}
	if c.Mech != icsffile.Simple {
		return p11.Advise(p11.Errorf(p11.CKR_ARGUMENTS_BAD, "the token has no password: a certificate says who it is"), "put another certificate where CERT says")
	}
	var master *secret.Bytes
	found := false
	for _, name := range []string{"MK_USER", "MK_SO"} {
		b, err := readOwn(dir, name, icsffile.KeyFileSize)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		found = true
		if err == nil {
			master, err = icsffile.OpenMaster(b, pin)
		}
		if err != nil {
			return err
		}
		if master != nil {
			break
		}
	}
	if !found {
		return p11.Advise(p11.Errorf(p11.CKR_TOKEN_NOT_PRESENT, "%s has neither MK_SO nor MK_USER", dir), noKeys(dir))
	}
	if master == nil {
		return p11.Errorf(p11.CKR_PIN_INCORRECT, "it is neither the user's PIN nor the SO's")
	}
	defer master.Close()
	if _, err := Tokens(ctx, *c, password); err != nil {
		return err
	}
	b, err := icsffile.SealPassword(rand.Reader, master, password)
	if err != nil {
		return p11.Errorf(p11.CKR_ARGUMENTS_BAD, "the server's password: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return p11.Errorf(p11.CKR_FUNCTION_FAILED, "%w", err)
	}
	defer root.Close()
	const made = "." + passwordFile + ".new"
	if err := root.Remove(made); err != nil && !errors.Is(err, os.ErrNotExist) {
		return p11.Errorf(p11.CKR_FUNCTION_FAILED, "%w", err)
	}
	if err := writeNew(root, made, b); err != nil {
		return err
	}
	if err := root.Rename(made, passwordFile); err != nil {
		return p11.Errorf(p11.CKR_FUNCTION_FAILED, "%w", errors.Join(err, root.Remove(made)))
	}
	return nil
}

// passwordFiles adds the files of the master key and of the password.
func passwordFiles(files map[string][]byte, password *secret.Bytes) error {
	key := make([]byte, icsffile.MasterKeySize)
	_, _ = rand.Read(key) // which never fails
	master, err := secret.New(key)
	if err != nil {
		return err
	}
	defer master.Close()
	pin, err := secret.New([]byte(tokens.DefaultSOPIN))
	if err != nil {
		return err
	}
	defer pin.Close()
	if files["MK_SO"], err = icsffile.SealMaster(rand.Reader, pin, master); err == nil {
		files[passwordFile], err = icsffile.SealPassword(rand.Reader, master, password)
	}
	if err != nil {
		return p11.Errorf(p11.CKR_ARGUMENTS_BAD, "the server's password: %w", err)
	}
	return nil
}

// writeNew writes a file that is not there, whatever has the directory's name by now.
func writeNew(dir *os.Root, name string, b []byte) error {
	f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_, err = f.Write(b)
		if serr := f.Sync(); err == nil {
			err = serr
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}
	if errors.Is(err, os.ErrExist) {
		return p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "%s is there already, of a token that was begun and not made", filepath.Join(dir.Name(), name)), "move it away, and init again")
	}
	if err != nil {
		return p11.Errorf(p11.CKR_FUNCTION_FAILED, "%w", fmt.Errorf("a file of the token: %w", err))
	}
	return nil
}
