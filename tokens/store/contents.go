package store

import (
	"archive/tar"
	"io"
	"slices"
	"strings"
	"time"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/store/format"
)

// Contents is what a backup holds of a token, for a storage that is no directory.
type Contents struct {
	Data    []byte    // of NVTOK.DAT
	Keys    [2][]byte // of MK_SO and MK_USER, nil for none
	NameKey []byte    // see ShownName
	Objects []Content
}

// A Content is one object's file.
type Content struct {
	Name    format.Name
	Changed time.Time
	File    []byte
}

// Wipe wipes the files of objects, which may be public ones with something secret in them.
func (c *Contents) Wipe() {
	for _, o := range c.Objects {
		secret.Wipe(o.File)
	}
}

// ReadContents reads a backup whose objects have room bytes at most.
func ReadContents(r io.Reader, room int64) (*Contents, error) {
	c := &Contents{}
	objects := make(map[format.Name]Content)
	var index []byte
	err := ReadBackup(r, func(name string, b []byte, changed time.Time) error {
		b = slices.Clone(b) // which is wiped
		switch name {
		case dataFile:
			c.Data = b
		case soKeyFile:
			c.Keys[0] = b
		case userKeyFile:
			c.Keys[1] = b
		case nameKeyFile:
			c.NameKey = b
		case objectsDir + "/" + indexFile:
			index = b
		default:
			n, _ := format.ParseName(strings.TrimPrefix(name, objectsDir+"/"))
			old := objects[n]
			if room += int64(len(old.File) - len(b)); room < 0 {
				return p11.Advise(p11.Errorf(p11.CKR_DEVICE_MEMORY, "the backup has more objects than there is room for"), "destroy some where they are, and make another backup")
			}
			secret.Wipe(old.File)
			objects[n] = Content{n, changed, b}
		}
		return nil
	})
	for _, n := range format.ParseIndex(index).Names {
		if o, ok := objects[n]; ok {
			c.Objects = append(c.Objects, o)
			delete(objects, n)
		}
	}
	for _, o := range objects { // which were destroyed while the backup was made
		secret.Wipe(o.File)
	}
	if err != nil {
		c.Wipe()
		return nil, err
	}
	return c, nil
}

// WriteContents writes a backup, as Upkeep.Backup does. progress may be nil.
func WriteContents(w io.Writer, token string, c *Contents, now time.Time, progress func(done, total int)) error {
	a := archive{tar.NewWriter(w), token}
	if err := a.folders(now); err != nil {
		return err
	}
	names := make([]format.Name, len(c.Objects))
	for i, o := range c.Objects {
		if progress != nil {
			progress(i+1, len(c.Objects))
		}
		names[i] = o.Name
		if err := a.add(objectsDir+"/"+o.Name.String(), o.File, o.Changed); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name string
		b    []byte
	}{
		{objectsDir + "/" + indexFile, format.EditIndex(nil, nil, names...)},
		{soKeyFile, c.Keys[0]}, {userKeyFile, c.Keys[1]}, {nameKeyFile, c.NameKey}, {dataFile, c.Data},
	} {
		if f.b == nil {
			continue
		}
		if err := a.add(f.name, f.b, now); err != nil {
			return err
		}
	}
	return a.tar.Close()
}

// An archive is a backup that is being written.
type archive struct {
	tar   *tar.Writer
	token string
}

// folders adds the token's two directories.
func (a archive) folders(now time.Time) error {
	for _, dir := range []string{"", objectsDir + "/"} {
		h := &tar.Header{Typeflag: tar.TypeDir, Name: a.token + "/" + dir, Mode: 0o700, ModTime: now}
		if err := a.tar.WriteHeader(h); err != nil {
			return err
		}
	}
	return nil
}

// add adds a file of the token's directory.
func (a archive) add(name string, raw []byte, changed time.Time) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: a.token + "/" + name, Mode: 0o600, Size: int64(len(raw)), ModTime: changed.Truncate(time.Second)}
	err := a.tar.WriteHeader(h)
	if err == nil {
		_, err = a.tar.Write(raw)
	}
	return err
}
