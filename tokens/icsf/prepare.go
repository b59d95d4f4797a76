package icsf

import (
	"context"
	"crypto/rand"
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

// Tokens asks a server for its tokens: c says which server, and is returned once for each,
// completed. password is that of c.BindDN, nil with SASL.
func Tokens(ctx context.Context, c icsffile.Config, password *secret.Bytes) (list []icsffile.Config, err error) {
	conn := icsfconn.New(icsfconn.Config{
		URI: c.URI, DN: c.BindDN, Password: password.Clone, External: c.Mech == icsffile.SASL, CACert: c.CACert, Cert: c.Cert, Key: c.Key,
	})
	defer conn.Close()
	const atATime = 10
	for after := icsfwire.Handle(""); len(list) < maxTokens; {
		var out icsfwire.TokenList
		r := &icsfwire.Request{Handle: after, Rules: []string{"TOKEN"}, Data: &icsfwire.ListTokens{Room: atATime * icsfwire.TokenRecordSize, Max: atATime}}
		if _, err := conn.Call(ctx, r, &out); err != nil {
			return nil, err
		}
		if len(out.Records) < icsfwire.TokenRecordSize {
			break
		}
		for b := out.Records; len(b) >= icsfwire.TokenRecordSize; b = b[icsfwire.TokenRecordSize:] {
			field := func(from, to int) string { return strings.TrimRight(string(b[from:to]), " \x00") }
			one := c
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

// Prepare makes the files of a token directory that has none: the configuration, and with
// SIMPLE the server's password, under the PIN that an SO has at first. The server is asked for
// the token that c names, or for the only one where it names none.
func Prepare(ctx context.Context, dir string, c icsffile.Config, password *secret.Bytes) error {
	list, err := Tokens(ctx, c, password)
	if err != nil {
		return err
	}
	var names []string
	var found *icsffile.Config
	for i := range list {
		names = append(names, list[i].Name)
		if list[i].Name == c.Name || c.Name == "" && len(list) == 1 {
			found = &list[i]
		}
	}
	if found == nil {
		return p11.Advise(p11.Errorf(p11.CKR_TOKEN_NOT_PRESENT, "the server has the tokens %s", strings.Join(names, ", ")), "name one of them with --icsf-token")
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
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return p11.Errorf(p11.CKR_FUNCTION_FAILED, "the token directory: %w", err)
	}
	for _, name := range []string{"MK_SO", passwordFile, ownConfig} { // the last one makes it whole
		if b, ok := files[name]; ok {
			if err := writeNew(filepath.Join(dir, name), b); err != nil {
				return err
			}
		}
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

// writeNew writes a file that is not there.
func writeNew(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_, err = f.Write(b)
		if serr := f.Sync(); err == nil {
			err = serr
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		return p11.Errorf(p11.CKR_FUNCTION_FAILED, "%w", fmt.Errorf("a file of the token: %w", err))
	}
	return nil
}
