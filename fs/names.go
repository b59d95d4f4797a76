package fs

import (
	"strings"
	"sync"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"

	"p11fs/p11"
)

// The kernel keeps each name of a file that it was told, and its inode, until it is
// short of memory, although it asks for it again each time; and so the daemon keeps
// its node. Of names like import:…,label=N there is no end. recentNames are those that
// may stay: when there is a new one, the kernel is told that the oldest has gone.
//
// Not so directories: programs are in them.
type recentNames struct {
	mu    sync.Mutex // guards all below
	known map[recentName]struct{}
	ring  []recentName // the oldest is at next
	next  int

	gone chan recentName
}

type recentName struct {
	dir  *gofs.Inode
	name string
}

const (
	maxRecentNames = 4096
	maxGoneNames   = 8192 // that the kernel is still to be told of
)

func newRecentNames() *recentNames {
	return &recentNames{known: make(map[recentName]struct{}), gone: make(chan recentName, maxGoneNames)}
}

// add notes a name that the kernel is told. It fails for one that is not listed, when
// the kernel does not get rid of others: whoever holds the lock of a directory can do
// that.
func (r *recentNames) add(dir *gofs.Inode, name string) error {
	n := recentName{dir, name}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.known[n]; ok {
		return nil
	}
	if len(r.ring) < maxRecentNames {
		r.ring = append(r.ring, n)
		r.known[n] = struct{}{}
		return nil
	}
	select {
	case r.gone <- r.ring[r.next]:
	default:
		if strings.Contains(name, ":") {
			return errNames
		}
		return nil
	}
	delete(r.known, r.ring[r.next])
	r.known[n] = struct{}{}
	r.ring[r.next] = n
	r.next = (r.next + 1) % maxRecentNames
	return nil
}

var errNames = refuse(syscall.EDQUOT, p11.CKR_HOST_MEMORY, "the kernel keeps too many names of files with a colon: try again")

// drop tells the kernel of what has gone, until the end. In a request it would wait for
// itself.
func (r *recentNames) drop(end <-chan struct{}) {
	for {
		select {
		case n := <-r.gone:
			_ = n.dir.NotifyEntry(n.name) // ENOENT where it was gone already
		case <-end:
			return
		}
	}
}
