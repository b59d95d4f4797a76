package fleet

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

// A stranger reads and writes etcd, and has no key of the fleet.
type stranger struct {
	t *testing.T
	c *clientv3.Client
}

func (s stranger) get(key string) string {
	s.t.Helper()
	resp, err := s.c.Get(s.t.Context(), key)
	noError(s.t, err)
	if len(resp.Kvs) != 1 {
		s.t.Fatalf("%d values of %s", len(resp.Kvs), key)
	}
	return string(resp.Kvs[0].Value)
}

func (s stranger) put(key, value string) {
	s.t.Helper()
	_, err := s.c.Put(s.t.Context(), key, value)
	noError(s.t, err)
}

// keyOf is the key of an object.
func keyOf(s *Store, o *tokens.Object) string { return s.objectsOf(s.newest().ID) + o.Stored }

// damaged waits until a store says that something is wrong with a file, or with none.
func damaged(t *testing.T, s *Store, files ...string) {
	t.Helper()
	eventually(t, "damage of "+strings.Join(files, " "), func() bool {
		var got []string
		for _, d := range s.Damaged() {
			got = append(got, d.File)
		}
		return strings.Join(got, " ") == strings.Join(files, " ")
	})
}

// What a stranger removes, puts back, exchanges and makes is seen by the machines that are
// there, and by those that come.
func TestStrangerIsSeen(t *testing.T) {
	h := newHosts(t, 1)
	for name, c := range map[string]struct {
		do    func(s stranger, one, two string)
		files []string // with damage
		shows []string
	}{
		"removes":   {func(s stranger, one, _ string) { _, err := s.c.Delete(s.t.Context(), one); noError(s.t, err) }, []string{"token"}, []string{"two"}},
		"spoils":    {func(s stranger, one, _ string) { s.put(one, "nonsense") }, []string{"o/ONE", "token"}, []string{"two"}},
		"empties":   {func(s stranger, one, _ string) { s.put(one, "") }, []string{"o/ONE", "token"}, []string{"two"}},
		"exchanges": {func(s stranger, one, two string) { s.put(one, s.get(two)) }, []string{"o/ONE", "token"}, []string{"two"}},
		"makes":     {func(s stranger, one, _ string) { s.put(one[:len(one)-8]+"ZZZZZZZZ", s.get(one)) }, []string{"o/ZZZZZZZZ"}, []string{"one", "two"}},
	} {
		t.Run(name, func(t *testing.T) {
			prefix := "/" + name + "/"
			s := h.open(t, prefix)
			one, two := create(t, s, "one", false), create(t, s, "two", false)
			c.do(stranger{t, h.cluster.Client(t)}, keyOf(s, one), keyOf(s, two))
			var files []string
			for _, f := range c.files {
				files = append(files, strings.ReplaceAll(f, "ONE", one.Stored))
			}
			damaged(t, s, files...)
			want(t, s, c.shows...)
			later := h.open(t, prefix)
			damaged(t, later, files...)
			want(t, later, c.shows...)
			create(t, later, "goes on", false)
			want(t, s, append(c.shows, "goes on")...)
		})
	}
}

// A stranger who puts back what an object was is seen: by a machine that was there, which
// does not use it, and by one that comes later.
func TestPutBackObject(t *testing.T) {
	h := newHosts(t, 1)
	s := h.open(t, "/t/")
	str := stranger{t, h.cluster.Client(t)}
	o := create(t, s, "changed", false)
	old := str.get(keyOf(s, o))
	_, err := s.Update(t.Context(), o.Handle, func(a p11.Attributes) (p11.Attributes, error) {
		return a.With(p11.CKA_LABEL, []byte("newest")), nil
	})
	noError(t, err)
	str.put(keyOf(s, o), old)
	damaged(t, s, "o/"+o.Stored, "token")
	want(t, s)
	damaged(t, h.open(t, "/t/"), "token")

	two := create(t, s, "two", false)
	was := str.get(keyOf(s, two))
	noError(t, s.Destroy(t.Context(), two.Handle, func(p11.Attributes) error { return nil }))
	str.put(keyOf(s, two), was)
	damaged(t, s, "o/"+o.Stored, "o/"+two.Stored, "token")
	want(t, s)
	damaged(t, h.open(t, "/t/"), "token")
}

// A stranger who puts back the whole token, count of wrong PINs and all, is seen by a machine
// that was there: it uses the token no more, until that is mended.
func TestPutBackToken(t *testing.T) {
	h := newHosts(t, 1)
	s := h.open(t, "/t/")
	ready(t, s)
	str := stranger{t, h.cluster.Client(t)}
	old := str.get(s.recordKey())
	_, err := s.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, "wrong-pin"))
	if p11.RVOf(err) != p11.CKR_PIN_INCORRECT {
		t.Fatal(err)
	}
	now := str.get(s.recordKey())
	str.put(s.recordKey(), old)
	eventually(t, "an error of every call", func() bool { return p11.RVOf(s.Refresh(t.Context())) == p11.CKR_DEVICE_ERROR })
	_, err = s.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN))
	if p11.RVOf(err) != p11.CKR_DEVICE_ERROR {
		t.Errorf("a login on a token that was put back: %v", err)
	}
	str.put(s.recordKey(), now)
	eventually(t, "a token that is mended", func() bool { return s.Refresh(t.Context()) == nil })
	must[tokens.Login](t)(s.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN)))

	_, err = str.c.Delete(t.Context(), "/t/", clientv3.WithPrefix())
	noError(t, err)
	eventually(t, "a token that is gone", func() bool { return p11.RVOf(s.Refresh(t.Context())) == p11.CKR_TOKEN_NOT_RECOGNIZED })
}

// Another key of the fleet opens nothing, and makes nothing in the place of what is there.
func TestOtherKey(t *testing.T) {
	h := newHosts(t, 1)
	s := h.open(t, "/t/")
	create(t, s, "one", false)
	other := newHostsOn(t, h.cluster, "o")
	cfg := other.config(t, h.cluster.Client(t), "/t/")
	if _, err := Open(t.Context(), cfg); p11.RVOf(err) != p11.CKR_TOKEN_NOT_RECOGNIZED {
		t.Errorf("with another key: %v", err)
	}
	want(t, h.open(t, "/t/"), "one")
}

// What is in etcd's files has no secret: neither what objects hold nor a PIN.
func TestNothingIsReadable(t *testing.T) {
	h := newHosts(t, 1)
	s := h.open(t, "/t/")
	ready(t, s)
	must[tokens.Login](t)(s.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN)))
	create(t, s, "a public secret", false)
	create(t, s, "a private secret", true)
	key := keyOf(s, create(t, s, "sealed", false))
	h.cluster.Kill(0)
	found := false
	err := filepath.WalkDir(h.cluster.Dir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		for _, secret := range []string{"a public secret", "a private secret", userPIN, soPIN, "IBM"} {
			if bytes.Contains(b, []byte(secret)) {
				t.Errorf("%s holds %q", path, secret)
			}
		}
		found = found || bytes.Contains(b, []byte(key))
		return err
	})
	noError(t, err)
	if !found {
		t.Error("the names of keys were not found either: nothing was looked at")
	}
}
