package fs

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"p11fs/engine"
	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// names returns at most n of the names that an open directory gives next, and where it is then.
func (p person) names(l *listing, n int) (names []string, off uint64) {
	p.w.t.Helper()
	for ; n > 0; n-- {
		e, errno := l.Readdirent(p.ctx())
		if errno != 0 {
			p.w.t.Fatal(errno)
		}
		if e == nil {
			break
		}
		names, off = append(names, e.Name), e.Off
	}
	return names, off
}

func (p person) opendir(path string) *listing {
	p.w.t.Helper()
	node, _, errno := p.walk(path)
	p.must(errno)
	h, _, errno := node.OpendirHandle(p.ctx(), 0)
	p.must(errno)
	l, ok := h.(*listing)
	if !ok {
		p.w.t.Fatalf("a directory opens as %T", h)
	}
	p.w.t.Cleanup(func() { l.Releasedir(p.ctx(), 0) })
	return l
}

// fill makes n public data objects, whose labels are their numbers.
func (p person) fill(n int) {
	p.w.t.Helper()
	slot, err := p.w.engine.SlotNamed("tok")
	if err != nil {
		p.w.t.Fatal(err)
	}
	a := p.w.engine.NewApplication(engine.Owner{UID: p.uid, Door: "rpc"}, engine.ForPrograms)
	defer a.Close()
	s, err := a.OpenSession(p.ctx(), slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		p.w.t.Fatal(err)
	}
	for i := range n {
		template, err := p11.ParseTemplate(fmt.Sprintf("class=data token=true private=false label=%05d", i))
		if err == nil {
			_, err = s.CreateObject(p.ctx(), template)
		}
		if err != nil {
			p.w.t.Fatal(err)
		}
	}
}

// TestLongListing reads a directory in pieces, while what is in it changes: what has gone is
// left out, what was renamed is there under a name that leads to it, and nothing is there
// twice. It goes on from each place that it gave out.
func TestLongListing(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	p := w.person(1000, 100)
	const all = 2*pieceLen + 100
	p.fill(all)
	p.must(p.echo(userPIN, "tok/login"))
	l := p.opendir("tok/objects")
	first, off := p.names(l, 10)
	if want := "00000.dat 00009.dat"; len(first) != 10 || first[0]+" "+first[9] != want {
		t.Fatalf("%q, want them from %s on", first, want)
	}
	gone, renamed, second := fmt.Sprintf("%05d", pieceLen+5), fmt.Sprintf("%05d", pieceLen+7), fmt.Sprintf("%05d", pieceLen+9)
	p.must(p.rmdir("tok/objects/" + gone + ".dat"))
	p.must(p.rename("tok/objects/"+renamed+".dat", "tok/objects/other.dat"))
	p.must(p.rename("tok/objects/"+second+".dat", "tok/objects/"+gone+".dat"))
	rest, end := p.names(l, 2*all)
	if len(first)+len(rest) != all-1 || end != all {
		t.Errorf("%d names up to %d, want %d up to %d", len(first)+len(rest), end, all-1, all)
	}
	if slices.Contains(rest, gone+".dat") || slices.Contains(rest, renamed+".dat") {
		t.Errorf("there is an object that has gone, or an old name")
	}
	for _, prefix := range []string{"other.dat", gone + "~"} { // the latter's plain name is another's in this list
		i := slices.IndexFunc(rest, func(name string) bool { return strings.HasPrefix(name, prefix) })
		if i < 0 {
			t.Fatalf("an object that was renamed is not there as %s: %q", prefix, rest)
		}
		if _, _, errno := p.walk("tok/objects/" + rest[i]); errno != 0 {
			t.Errorf("%s leads nowhere: %v", rest[i], errno)
		}
	}
	for _, at := range []uint64{off, all - 3, all} {
		if errno := l.Seekdir(p.ctx(), at); errno != 0 {
			t.Fatal(errno)
		}
		again, _ := p.names(l, 2*all)
		if want := rest[max(0, len(rest)-int(all-at)):]; at > off && !slices.Equal(again, want) || at == off && !slices.Equal(again, rest) {
			t.Errorf("%d names from %d on, want %d", len(again), at, len(want))
		}
	}
	if errno := l.Seekdir(p.ctx(), all+1); errno != syscall.EINVAL {
		t.Errorf("a place that there is not: %v", errno)
	}
	if errno := l.Seekdir(p.ctx(), 0); errno != 0 {
		t.Fatal(errno)
	}
	if fresh, _ := p.names(l, 2*all); !slices.Contains(fresh, "other.dat") || !slices.Contains(fresh, gone+".dat") || len(fresh) != all-1 {
		t.Errorf("%d names after rewinding, want %d with other.dat and %s.dat", len(fresh), all-1, gone)
	}
}

// TestLongListingAfterLogout: the pieces after a logout have no private objects, whoever
// has logged in again.
func TestLongListingAfterLogout(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	p := w.person(1000, 100)
	p.fill(pieceLen)
	p.must(p.echo(userPIN, "tok/login"))
	p.must(p.echo("aes:256 label=hidden", "tok/generate"))
	p.must(p.echo("", "tok/logout"))
	for _, dir := range []string{"objects", "by-uid"} {
		for _, again := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, again %v", dir, again), func(t *testing.T) {
				p.must(p.echo(userPIN, "tok/login"))
				whole, l := p.ls("tok/"+dir), p.opendir("tok/"+dir)
				names, _ := p.names(l, 1)
				p.must(p.echo("", "tok/logout"))
				if again {
					p.must(p.echo(userPIN, "tok/login"))
					defer func() { p.must(p.echo("", "tok/logout")) }()
				}
				rest, _ := p.names(l, 2*pieceLen)
				names = append(names, rest...)
				if len(names) != len(whole)-1 || !slices.Equal(names, whole[:len(whole)-1]) {
					t.Errorf("%d names, want the %d public ones", len(names), len(whole)-1)
				}
			})
		}
	}
}

// TestLongListingsCount: who opens very many long directories holds memory, which is counted.
func TestLongListingsCount(t *testing.T) {
	w := newWorldOf(t, hooks.New("tok", hooks.Options{}))
	p := w.person(1000, 100)
	p.fill(placesFree + 100)
	account := w.engine.Account(p.uid)
	before := account.Held()
	l := p.opendir("tok/objects")
	p.names(l, 1)
	if got := account.Held() - before; got != 100*placeSize {
		t.Errorf("%d bytes are counted, want %d", got, 100*placeSize)
	}
	if errno := l.Seekdir(p.ctx(), 0); errno != 0 || account.Held() != before {
		t.Errorf("%v, %d bytes after rewinding, want %d", errno, account.Held(), before)
	}
	p.names(l, 1)
	l.Releasedir(p.ctx(), 0)
	if account.Held() != before {
		t.Errorf("%d bytes after closing, want %d", account.Held(), before)
	}
	// With all memory taken there is no room for one more.
	taken := 0
	for n := 1 << 40; n > 0; n /= 2 {
		if account.Take(n) == nil {
			taken += n
		}
	}
	defer account.Give(taken)
	if e, errno := l.Readdirent(p.ctx()); errno != syscall.EDQUOT {
		t.Errorf("%v, %v, want EDQUOT", e, errno)
	}
}

// TestOpenDirectoriesCount: what very many open directories hold counts, also where each has few
// names, and is given back; some can be opened by who has no room left.
func TestOpenDirectoriesCount(t *testing.T) {
	w := newWorldOf(t, hooks.New("tok", hooks.Options{}))
	p := w.person(1000, 100)
	p.fill(100)
	account := w.engine.Account(p.uid)
	before := account.Held()
	var all []*listing
	for range freeDirs + 100 {
		l := p.opendir("tok/objects")
		if names, _ := p.names(l, 1); len(names) != 1 {
			t.Fatalf("%q, want one name", names)
		}
		all = append(all, l)
	}
	if got, want := account.Held()-before, int64(100*(openSize+100*(placeSize+nameSize))); got != want {
		t.Errorf("%d bytes are counted, want %d", got, want)
	}
	taken := 0
	for n := 1 << 40; n > 0; n /= 2 {
		if account.Take(n) == nil {
			taken += n
		}
	}
	node, _, errno := p.walk("tok/objects")
	p.must(errno)
	if _, _, errno := node.OpendirHandle(p.ctx(), 0); errno != syscall.EDQUOT {
		t.Errorf("one more opens with %v, want EDQUOT", errno)
	}
	for _, l := range all {
		l.Releasedir(p.ctx(), 0)
	}
	room := account.Take(100 * openSize)
	if room == nil {
		account.Give(100 * openSize)
	} else {
		t.Errorf("nothing was given back: %v", room)
	}
	account.Give(taken)
	if account.Held() != before {
		t.Errorf("%d bytes after closing, want %d", account.Held(), before)
	}
}

// TestOpenDirectoriesWithoutRoom: who has no room left lists a directory all the same.
func TestOpenDirectoriesWithoutRoom(t *testing.T) {
	w := newWorldOf(t, hooks.New("tok", hooks.Options{}))
	p := w.person(1000, 100)
	p.fill(3)
	account := w.engine.Account(p.uid)
	taken := 0
	for n := 1 << 40; n > 0; n /= 2 {
		if account.Take(n) == nil {
			taken += n
		}
	}
	defer account.Give(taken)
	if names, _ := p.names(p.opendir("tok/objects"), 10); len(names) != 3 {
		t.Errorf("%q, want 3 names", names)
	}
}
