package store

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/store/format"
)

// A backup is the token's directory as a tar archive, with files of the token only, and
// with the objects alone that OBJ.IDX lists. An object may come twice; what comes last
// counts, as it does for tar(1).

// settled is how old a file must be for its stamp to show any later change: the clock of a
// file system does not go on with each write.
const settled = time.Second

// A backup is one that is being written.
type backup struct {
	archive
	u        *Upkeep
	progress func(done, total int)
	done     map[format.Name]stamp // what is in the archive
	listed   []format.Name         // by the index before the token's lock was held
	patience time.Time             // until when half-written files are looked at again
}

// errHalf is why a backup waits: a stock program, which writes without the lock, is about
// to write the rest of a file.
var errHalf = errors.New("an object file is half written")

// Backup is tokens.Upkeep. Most objects are copied without the token's lock. What has
// changed by the time the lock is held is copied again under it, with the index and the
// token's data: so the archive holds the token at that moment.
func (u *Upkeep) Backup(ctx context.Context, w io.Writer, progress func(done, total int)) error {
	s, err := u.site()
	if err != nil {
		return err
	}
	defer s.close()
	top, objs, err := openToken(s, u.cfg.Dir)
	if err != nil {
		return err
	}
	defer top.close()
	defer objs.close()
	b := &backup{archive: archive{tar.NewWriter(w), s.name}, u: u, progress: progress, done: make(map[format.Name]stamp)}
	if err := b.folders(u.cfg.Now()); err != nil {
		return err
	}
	if _, err := b.objects(ctx, objs, nil); err != nil {
		return err
	}
	for b.patience = time.Now().Add(shortWait); ; {
		err = u.locked(ctx, func(s site) error {
			if u.changed(s, top) {
				return p11.Advise(p11.Errorf(p11.CKR_FUNCTION_REJECTED, "the token's directory was replaced meanwhile"), "start again")
			}
			return b.rest(ctx, top, objs)
		})
		if !errors.Is(err, errHalf) && (!errors.Is(err, format.ErrShort) || time.Now().After(b.patience)) {
			break
		}
		time.Sleep(shortPause)
	}
	if err != nil {
		return err
	}
	return b.tar.Close()
}

// openToken opens a token's two directories.
func openToken(s site, dir string) (top, objs *folder, err error) {
	if top, err = s.open(s.name); err == nil {
		if objs, err = openFolder(top.fd, objectsDir, s.k, s.group); err != nil {
			top.close()
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = p11.Errorf(p11.CKR_TOKEN_NOT_PRESENT, "there is no token in %s", dir)
	}
	return top, objs, err
}

// changed reports whether the token's directory is another one than top.
func (u *Upkeep) changed(s site, top *folder) bool {
	var open, now unix.Stat_t
	return unix.Fstat(top.fd, &open) != nil || unix.Fstatat(s.fd, s.name, &now, unix.AT_SYMLINK_NOFOLLOW) != nil ||
		open.Ino != now.Ino || open.Dev != now.Dev
}

// objects copies the objects that are not in the archive as they are now, and returns the
// index that lists them. codec is nil where the token's lock is not held; else it says which
// files are whole.
func (b *backup) objects(ctx context.Context, objs *folder, codec format.Objects) (index []byte, err error) {
	last := codec != nil
	index, _, err = objs.read(indexFile, maxIndexFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, notRecognized(b.u.cfg.Dir, err)
	}
	x := format.ParseIndex(index)
	if last && time.Now().Before(b.patience) && b.lost(x, objs) {
		return nil, errHalf
	}
	names := x.Names
	if !last {
		b.listed = names
	}
	for i, n := range names {
		if err := ctx.Err(); err != nil {
			return nil, ioError("copy", b.u.cfg.Dir, err)
		}
		if b.progress != nil {
			b.progress(i+1, len(names))
		}
		if st, err := objs.stamp(n.String()); err == nil && st == b.done[n] && st != (stamp{}) {
			continue
		}
		raw, st, err := objs.read(n.String(), format.MaxObjectFile)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case errors.Is(err, errUnfit):
			if last {
				b.u.cfg.Log.Warn("an object is not in the backup", "dir", b.u.cfg.Dir, "name", n, "err", err)
			}
			continue
		case err != nil:
			return nil, err
		}
		if last && time.Now().Before(b.patience) {
			_, attrs, err := codec.Open(n, raw)
			attrs.Wipe()
			if errors.Is(err, format.ErrDamaged) {
				return nil, errHalf
			}
		}
		err = b.add(objectsDir+"/"+n.String(), raw, st)
		secret.Wipe(raw)
		if err != nil {
			return nil, err
		}
		if last || time.Since(time.Unix(0, max(st.ctime, st.mtime))) > settled {
			b.done[n] = st
		}
	}
	return index, nil
}

// lost reports whether an index has no line of an object that it has listed before, and whose
// file is there: stock's programs rewrite it in place.
func (b *backup) lost(x format.Index, objs *folder) bool {
	told := make(map[format.Name]bool, len(x.Names))
	for _, n := range slices.Concat(x.Names, x.Destroyed) {
		told[n] = true
	}
	return slices.ContainsFunc(b.listed, func(n format.Name) bool { return !told[n] && !objs.absent(n.String()) })
}

// rest copies what has changed, and what says what of it counts. The token's lock is held.
func (b *backup) rest(ctx context.Context, top, objs *folder) error {
	now, err := b.u.lookIn(top)
	if err != nil {
		return err
	}
	if !now.present {
		return p11.Errorf(p11.CKR_TOKEN_NOT_PRESENT, "there is no token in %s", b.u.cfg.Dir)
	}
	codec, err := now.format.Objects(nil)
	if err != nil {
		return err
	}
	index, err := b.objects(ctx, objs, codec)
	if err != nil {
		return err
	}
	if err := b.add(objectsDir+"/"+indexFile, index, stamp{}); err != nil {
		return err
	}
	for _, file := range []string{soKeyFile, userKeyFile, nameKeyFile, dataFile} {
		raw, st, err := top.read(file, maxDataFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = b.add(file, raw, st)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// add adds a file of the token's directory, with its time if that is known.
func (b *backup) add(name string, raw []byte, st stamp) error {
	when := b.u.cfg.Now()
	if st.mtime != 0 {
		when = time.Unix(0, st.mtime)
	}
	return b.archive.add(name, raw, when)
}

// BackupOf returns the name of the token in a backup, and a reader of the same backup from
// its beginning.
func BackupOf(r io.Reader) (token string, again io.Reader, err error) {
	const block = 512
	b := bufio.NewReaderSize(r, block)
	head, err := b.Peek(block)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", nil, readError(err)
	}
	h, err := tar.NewReader(bytes.NewReader(head)).Next()
	if err != nil {
		return "", nil, errNoBackup("it is no tar archive")
	}
	token, _, _ = strings.Cut(h.Name, "/")
	return token, b, nil
}

func errNoBackup(why string, args ...any) error {
	return p11.Advise(p11.Errorf(p11.CKR_DATA_INVALID, "it is no backup of a token: %s", fmt.Sprintf(why, args...)), "name a file that p11fs backup wrote")
}

// ReadBackup reads a backup to its end, and gives each of its files, with the time of its
// last change, to put. It checks that they are those of a token, and not too large.
func ReadBackup(r io.Reader, put func(name string, b []byte, changed time.Time) error) error {
	whole := false
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return readError(err)
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		_, name, _ := strings.Cut(h.Name, "/")
		limit := sizeLimit(name)
		if h.Typeflag != tar.TypeReg || limit == 0 {
			return errNoBackup("it holds %.80q", h.Name)
		}
		if h.Size > limit {
			return errNoBackup("%s has %d bytes, more than %d", name, h.Size, limit)
		}
		raw := make([]byte, h.Size)
		if _, err = io.ReadFull(t, raw); err != nil {
			return readError(err)
		}
		err = put(name, raw, h.ModTime)
		secret.Wipe(raw)
		if err != nil {
			return err
		}
		whole = whole || name == dataFile
	}
	// What comes after the archive is read too: the encryption's own end is there.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return readError(err)
	}
	if !whole {
		return errNoBackup("it has no %s", dataFile)
	}
	return nil
}

// readError is the error of an archive that ends too early, or is none.
func readError(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the backup is cut off: %w", err)
	case errors.Is(err, tar.ErrHeader):
		return errNoBackup("it is no tar archive")
	}
	return fmt.Errorf("the backup is damaged or cut off: %w", err)
}

// sizeLimit bounds a file of a token's directory; it is 0 of what is none.
func sizeLimit(name string) int64 {
	switch name {
	case dataFile:
		return maxDataFile
	case soKeyFile, userKeyFile:
		return maxKeyFile
	case nameKeyFile:
		return nameKeySize
	case objectsDir + "/" + indexFile:
		return maxIndexFile
	}
	if object, ok := strings.CutPrefix(name, objectsDir+"/"); ok {
		if _, ok := format.ParseName(object); ok {
			return format.MaxObjectFile
		}
	}
	return 0
}
