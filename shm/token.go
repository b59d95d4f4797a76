package shm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A token's segment: sizes in bytes and table lengths.
const (
	// TokenSize is the size of a token's segment.
	TokenSize = tokenHeader + tokenPayload
	// TokenDataSize is the size of the token data, and of NVTOK.DAT.
	TokenDataSize = 232
	// MaxObjects is the length of each of the two lists. Stock damages
	// private entry 0 when it deletes from a full public list, so a peer
	// stops one short: see Limit.
	MaxObjects = 2048
	// Limit is how many objects of a kind a peer makes.
	Limit = MaxObjects - 1
	// NameSize is the length of an object's name.
	NameSize = 8

	tokenHeader  = 264
	tokenPayload = 82164

	offReferences    = 0
	offName          = 4
	nameSize         = 256
	offLength        = 260
	offData          = 264
	offPrivateCount  = 496
	offPublicCount   = 500
	offPrivateLoaded = 504
	offPublicLoaded  = 505
	offPublic        = 508
	offPrivate       = offPublic + MaxObjects*entrySize

	entrySize  = 20
	entryName  = 1
	entryLow   = 12
	entryHigh  = 16
	maxShmName = 255
)

// Mode is the mode of the segments that p11fs makes. Stock 3.8.1 makes them
// 0666, which lets anyone on the machine change a token's PIN hashes.
const Mode = 0o660

// TokenName is the name of the segment of the token in dir, such as
// "/var.lib.opencryptoki.swtok" for /var/lib/opencryptoki/swtok.
func TokenName(dir string) (string, error) {
	name := "/" + strings.ReplaceAll(strings.TrimPrefix(filepath.Clean(dir), "/"), "/", ".")
	if len(name) > maxShmName {
		return "", fmt.Errorf("the shared memory of token directory %s has a name of %d bytes, more than %d: give the slot a shorter tokname", dir, len(name), maxShmName)
	}
	return name, nil
}

// A List is one of the two lists of token objects.
type List int

// The two lists of a token's segment.
const (
	Public List = iota
	Private
)

func (l List) count() int   { return [...]int{Public: offPublicCount, Private: offPrivateCount}[l] }
func (l List) loaded() int  { return [...]int{Public: offPublicLoaded, Private: offPrivateLoaded}[l] }
func (l List) entries() int { return [...]int{Public: offPublic, Private: offPrivate}[l] }

// An Entry is one object of a list.
type Entry struct {
	Name [NameSize]byte
	// Low and High count changes. Stock processes hold small numbers with
	// High 0; a peer writes High ≥ 1, which none of them can hold.
	Low, High uint32
}

// A TokenSegment is the mapped POSIX segment of one token. The caller holds the
// token's lock around every method.
type TokenSegment struct {
	path string
	fd   int // of the file that is mapped, to know when it is removed by
	mem  []byte
	cut  atomic.Bool // a page of mem is gone: see guard
}

// OpenToken maps the segment called name, with its leading "/", in dir, which is
// /dev/shm but for tests; it makes and zeroes it if there is none, with mode
// 0660 and group gid (-1 leaves the creator's). fresh says that it was made.
// repaired says that a segment with another mode or group, such as stock's
// 0666, was found and put right. A segment of another size is refused and left
// as it is.
func OpenToken(dir, name string, gid int) (s *TokenSegment, fresh, repaired bool, err error) {
	if len(name) < 2 || len(name) > maxShmName || name[0] != '/' || strings.ContainsAny(name[1:], "/\x00") {
		return nil, false, false, fmt.Errorf("shared memory name %q is not usable", name)
	}
	path := filepath.Join(dir, name)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, Mode)
	if err == nil {
		s = &TokenSegment{path: path, fd: fd}
		if fresh, repaired, err = s.open(name, gid); err != nil {
			_ = unix.Close(fd)
		}
	}
	if err != nil {
		return nil, false, false, fmt.Errorf("shared memory %s: %w", path, err)
	}
	return s, fresh, repaired, nil
}

// open checks and maps the segment's file.
func (s *TokenSegment) open(name string, gid int) (fresh, repaired bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(s.fd, &st); err != nil {
		return false, false, err
	}
	fresh = st.Size == 0
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return false, false, errors.New("no regular file")
	case !fresh && st.Size != TokenSize:
		return false, false, fmt.Errorf("it has %d bytes, not the %d of openCryptoki 3.8", st.Size, TokenSize)
	}
	if repaired, err = repair(s.fd, &st, gid); err != nil {
		return false, false, err
	}
	if fresh {
		if err := unix.Ftruncate(s.fd, TokenSize); err != nil {
			return false, false, err
		}
		// Pages that are reserved now cannot raise SIGBUS in the middle of
		// an update when /dev/shm is full.
		if err := unix.Fallocate(s.fd, 0, 0, TokenSize); err != nil {
			return false, false, errors.Join(err, unix.Ftruncate(s.fd, 0))
		}
	}
	if s.mem, err = unix.Mmap(s.fd, 0, TokenSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return false, false, err
	}
	given := s.mem[offName : offName+nameSize]
	misnamed := string(bytes.TrimRight(given, "\x00")) != name
	if misnamed {
		clear(given)
		copy(given, name)
	}
	if fresh {
		putU32(s.mem, offLength, tokenPayload)
		return true, false, nil
	}
	return false, repaired || misnamed, nil
}

// repair gives the segment its mode and group. Who does not own it cannot, and
// then works with it as it is: so do stock processes of other users.
func repair(fd int, st *unix.Stat_t, gid int) (changed bool, err error) {
	if euid := os.Geteuid(); euid != 0 && uint32(euid) != st.Uid {
		return false, nil
	}
	if gid >= 0 && st.Gid != uint32(gid) {
		if err := unix.Fchown(fd, -1, gid); err != nil {
			return false, err
		}
		changed = st.Size != 0
	}
	if st.Mode&0o777 != Mode {
		if err := unix.Fchmod(fd, Mode); err != nil {
			return false, err
		}
		changed = changed || st.Size != 0
	}
	return changed, nil
}

// holds reports whether an address lies in the mapping.
func (s *TokenSegment) holds(addr uintptr) bool {
	from := uintptr(unsafe.Pointer(unsafe.SliceData(s.mem)))
	return addr >= from && addr-from < uintptr(len(s.mem))
}

// Path is the segment's file.
func (s *TokenSegment) Path() string { return s.path }

// Removed reports whether the file that is mapped has no name any more: processes that
// open Path share nothing with this one.
func (s *TokenSegment) Removed() bool {
	var st unix.Stat_t
	return s.mem != nil && unix.Fstat(s.fd, &st) == nil && st.Nlink == 0
}

// Close unmaps the segment, which lives on.
func (s *TokenSegment) Close() error {
	if s.mem == nil {
		return nil
	}
	err := errors.Join(unix.Munmap(s.mem), unix.Close(s.fd))
	s.mem = nil
	return err
}

// References is the number of processes that attached and did not detach. It
// only informs: crashes leave it too high.
func (s *TokenSegment) References() (n int32) {
	defer s.guard()()
	return int32(u32(s.mem, offReferences))
}

// Attach adds a reference. A count below 0, which would keep stock processes
// from attaching, is mended.
func (s *TokenSegment) Attach() {
	defer s.guard()()
	putU32(s.mem, offReferences, uint32(max(s.References(), 0)+1))
}

// Detach takes a reference away, but never below 0.
func (s *TokenSegment) Detach() {
	defer s.guard()()
	putU32(s.mem, offReferences, uint32(max(s.References()-1, 0)))
}

// Data returns a copy of the token data, TokenDataSize bytes.
func (s *TokenSegment) Data() (d []byte) {
	d = make([]byte, TokenDataSize)
	defer s.guard()()
	copy(d, s.mem[offData:])
	return d
}

// SetData stores the token data, of which there are no more than TokenDataSize
// bytes.
func (s *TokenSegment) SetData(d []byte) {
	defer s.guard()()
	copy(s.mem[offData:offData+TokenDataSize], d)
}

// Loaded reports whether some process has loaded the list from the directory.
// While it is, the list and not the directory says which objects exist.
func (s *TokenSegment) Loaded(l List) (on bool) {
	defer s.guard()()
	return s.mem[l.loaded()] != 0
}

// SetLoaded stores that.
func (s *TokenSegment) SetLoaded(l List, on bool) {
	defer s.guard()()
	s.mem[l.loaded()] = 0
	if on {
		s.mem[l.loaded()] = 1
	}
}

// Count is the number of entries of l, at most MaxObjects whatever the segment
// claims.
func (s *TokenSegment) Count(l List) (n int) {
	defer s.guard()()
	return int(min(u32(s.mem, l.count()), MaxObjects))
}

// Entries returns a copy of the entries of l in order.
func (s *TokenSegment) Entries(l List) (es []Entry) {
	defer s.guard()()
	es = make([]Entry, s.Count(l))
	for i := range es {
		b := s.entry(l, i)
		copy(es[i].Name[:], b[entryName:])
		es[i].Low, es[i].High = u32(b, entryLow), u32(b, entryHigh)
	}
	return es
}

// SetEntries makes es the list, and zeroes all behind it: residue there can
// make a stock process take a deleted object for a live one.
func (s *TokenSegment) SetEntries(l List, es []Entry) (err error) {
	defer s.guard()()
	if len(es) > MaxObjects {
		return fmt.Errorf("a list of %d objects does not fit the segment's %d", len(es), MaxObjects)
	}
	// The count is lowered before the entries move and raised after, so that a
	// crash in the middle leaves no entry that never was.
	if len(es) < s.Count(l) {
		putU32(s.mem, l.count(), uint32(len(es)))
	}
	for i, e := range es {
		s.put(l, i, e)
	}
	putU32(s.mem, l.count(), uint32(len(es)))
	s.ZeroTail(l)
	return nil
}

// Append adds e at the end of l.
func (s *TokenSegment) Append(l List, e Entry) (err error) {
	defer s.guard()()
	n := s.Count(l)
	if n >= MaxObjects {
		return fmt.Errorf("the segment's list of %d objects is full", MaxObjects)
	}
	s.put(l, n, e)
	putU32(s.mem, l.count(), uint32(n+1))
	return nil
}

// Remove takes the entries called name out of l, and reports whether there was
// one.
func (s *TokenSegment) Remove(l List, name [NameSize]byte) bool {
	kept := slices.DeleteFunc(s.Entries(l), func(e Entry) bool { return e.Name == name })
	if len(kept) == s.Count(l) {
		return false
	}
	// A shorter list always fits.
	if err := s.SetEntries(l, kept); err != nil {
		panic(err)
	}
	return true
}

// Touch stores that the object called name has changed, with a counter that no
// stock process can hold, and returns the new entry.
func (s *TokenSegment) Touch(l List, name [NameSize]byte) (_ Entry, ok bool) {
	defer s.guard()()
	for i, e := range s.Entries(l) {
		if e.Name != name {
			continue
		}
		e.Low++
		e.High = max(e.High, 1)
		s.put(l, i, e)
		return e, true
	}
	return Entry{}, false
}

// ZeroTail zeroes what lies behind the entries of l.
func (s *TokenSegment) ZeroTail(l List) {
	defer s.guard()()
	at := l.entries()
	clear(s.mem[at+s.Count(l)*entrySize : at+MaxObjects*entrySize])
}

func (s *TokenSegment) entry(l List, i int) []byte {
	at := l.entries() + i*entrySize
	return s.mem[at : at+entrySize]
}

func (s *TokenSegment) put(l List, i int, e Entry) {
	b := s.entry(l, i)
	clear(b)
	copy(b[entryName:], e.Name[:])
	putU32(b, entryLow, e.Low)
	putU32(b, entryHigh, e.High)
}
