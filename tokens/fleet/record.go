package fleet

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
)

// maxWriters bounds how many writers the record remembers. One that is forgotten has had so many
// others write after it that no change of its own can still be under way.
const maxWriters = 64

// A record is what the fleet keeps of a token beside its objects.
type record struct {
	ID      [16]byte // of the token: another one after each C_InitToken
	Count   uint64   // of changes, which nothing sets back
	Sum     [32]byte // of the tags of all objects, one xor the other
	Objects uint64   // how many there are
	Data    format.TokenData
	Keys    [2][]byte // contents of MK_SO and MK_USER
	NameKey []byte    // see store.ShownName
	Trials  []trial   // that are not yet judged
	Writers []writer  // the last one first
	Counted uint64    // end of the last block of the monotonic counter
}

// A trial is a PIN of a role that is being tried.
type trial struct {
	Role p11.UserType
	By   [8]byte // a number of its own
}

// A writer is one open Store, and the number of its last change.
type writer struct {
	Who  [8]byte
	Last uint64
}

// written is a record as it is written.
type written struct {
	Version uint
	ID      [16]byte
	Count   uint64
	Sum     [32]byte
	Objects uint64
	Data    []byte
	Keys    [2][]byte
	NameKey []byte
	Trials  []trial
	Writers []writer
	Counted uint64
}

// recordVersion is that of what this program writes. It reads no other.
const recordVersion = 1

// Bounds of what a record holds, which only somebody with the fleet's key can exceed.
const (
	maxKeyFile = 1 << 12
	maxTrials  = 2 * maxWrong
	maxWrong   = 3 // tries that a PIN has
)

func (r *record) print(f format.Format) ([]byte, error) {
	w := written{recordVersion, r.ID, r.Count, r.Sum, r.Objects, f.PrintFile(r.Data), r.Keys, r.NameKey, r.Trials, r.Writers, r.Counted}
	return json.Marshal(w)
}

func parseRecord(f format.Format, b []byte) (*record, error) {
	var w written
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err := d.Decode(&w)
	switch {
	case err == nil && w.Version != recordVersion:
		err = fmt.Errorf("it has version %d, and this program reads %d", w.Version, recordVersion)
	case err == nil && (len(w.Keys[0]) > maxKeyFile || len(w.Keys[1]) > maxKeyFile || len(w.NameKey) > maxKeyFile || len(w.Trials) > maxTrials || len(w.Writers) > maxWriters):
		err = fmt.Errorf("it holds more than a record has")
	}
	if err != nil {
		return nil, p11.Advise(p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED, "the token's record in etcd is none that this program knows: %w", err),
			"have all machines of the fleet run the newest p11fs among them")
	}
	r := &record{ID: w.ID, Count: w.Count, Sum: w.Sum, Objects: w.Objects, Keys: w.Keys, NameKey: w.NameKey, Trials: w.Trials, Writers: w.Writers, Counted: w.Counted}
	r.Data, err = f.ParseFile(w.Data)
	return r, err
}

// clone is a record to change: what of it is changed in place is its own.
func (r *record) clone() *record {
	c := *r
	c.Trials, c.Writers = slices.Clone(r.Trials), slices.Clone(r.Writers)
	return &c
}

// wrote notes the number of a writer's change.
func (r *record) wrote(who [8]byte, number uint64) {
	r.Writers = slices.DeleteFunc(r.Writers, func(w writer) bool { return w.Who == who })
	r.Writers = slices.Insert(r.Writers, 0, writer{who, number})
	r.Writers = r.Writers[:min(len(r.Writers), maxWriters)]
}

// lastOf is the number of the last change of a writer.
func (r *record) lastOf(who [8]byte) uint64 {
	for _, w := range r.Writers {
		if w.Who == who {
			return w.Last
		}
	}
	return 0
}

// xor takes an object's tag into a sum, or out of it.
func xor(sum *[32]byte, tag [32]byte) {
	for i, b := range tag {
		sum[i] ^= b
	}
}

// side is where a role's part stands in Keys.
func side(u p11.UserType) int {
	if u == p11.CKU_SO {
		return 0
	}
	return 1
}

// kept is what a record holds of a role's PIN.
func (r *record) kept(f format.Format, u p11.UserType) format.Kept {
	return format.Kept{Record: f.PIN(r.Data, u), File: r.Keys[side(u)]}
}

func (r *record) hasPIN(f format.Format, u p11.UserType) bool {
	return u == p11.CKU_SO || f.UserPINSet(r.Data)
}

// wrongs is how many wrong PINs of a role the flags count.
func wrongs(r tokens.Role, flags p11.Flags) int {
	switch {
	case flags&r.Locked != 0:
		return maxWrong
	case flags&r.FinalTry != 0:
		return 2
	case flags&r.CountLow != 0:
		return 1
	}
	return 0
}

// underWay is how many PINs of a role are being tried.
func (r *record) underWay(u p11.UserType) (n int) {
	for _, t := range r.Trials {
		if t.Role == u {
			n++
		}
	}
	return n
}

// endTrial takes a trial out, and reports whether it was there.
func (r *record) endTrial(by [8]byte) bool {
	n := len(r.Trials)
	r.Trials = slices.DeleteFunc(r.Trials, func(t trial) bool { return t.By == by })
	return len(r.Trials) < n
}

func newNumber() (n [8]byte) {
	_, _ = rand.Read(n[:]) // never fails
	return n
}

func newID() (id [16]byte) {
	_, _ = rand.Read(id[:]) // never fails
	return id
}
