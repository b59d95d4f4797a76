package store

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"p11fs/p11"
	"p11fs/shm"
)

// TestCreateAll makes several objects, and none of them where one cannot be made.
// That a crash leaves all or none is in package cuts.
func TestCreateAll(t *testing.T) {
	cfg := freshConfig(t)
	s := initialised(t, cfg)
	value := []byte("a clear key")
	key := dataObject("key", "", true)
	key.Set(p11.CKA_VALUE, value)
	_, err := s.CreateAll(t.Context(), []p11.Attributes{dataObject("cert", "1", false), key})
	wantRV(t, "a private one without a login", err, p11.CKR_USER_NOT_LOGGED_IN)
	if !bytes.Equal(value, make([]byte, len(value))) {
		t.Errorf("the value of what was not made is still %q", value)
	}
	if got := contents(t, s); len(got) != 0 {
		t.Errorf("made all the same: %v", got)
	}
	login(t, s, p11.CKU_USER, testUser)
	made, err := s.CreateAll(t.Context(), []p11.Attributes{dataObject("cert", "1", false), dataObject("key", "2", true), dataObject("ca", "3", false)})
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range made {
		if want := nth(i).String(); o.Stored != want || o.Private != (i == 1) {
			t.Errorf("object %d is %s, private %v; want the name %s", i, o.Stored, o.Private, want)
		}
	}
	want := []string{"cert=1", "key=2", "ca=3"}
	if d := cmp.Diff(want, contents(t, s)); d != "" {
		t.Error(d)
	}
	index, err := os.ReadFile(filepath.Join(cfg.Dir, objectsDir, indexFile))
	if err != nil || string(index) != "00000000\n10000000\n20000000\n" {
		t.Errorf("the index is %q, %v", index, err)
	}
	if none, err := s.CreateAll(t.Context(), nil); err != nil || len(none) != 0 {
		t.Errorf("no objects: %v, %v", none, err)
	}
}

// TestCreateAllNoRoom: a list in shared memory takes all of them, or none.
func TestCreateAllNoRoom(t *testing.T) {
	cfg := freshConfig(t)
	cfg.Shared = &Shared{Dir: t.TempDir(), Name: "/segment"}
	s := openStore(t, cfg)
	several := func(n int) (list []p11.Attributes) {
		for range n {
			list = append(list, dataObject("x", "", false))
		}
		return list
	}
	_, err := s.CreateAll(t.Context(), several(shm.Limit+1))
	wantRV(t, "one too many", err, p11.CKR_HOST_MEMORY)
	if public, _ := s.Counts(); public != 0 {
		t.Errorf("%d objects were made", public)
	}
}
