// Package grants says who may use which private key without a login of his own: the lines
// of p11fs-grants(5). It knows no files; package mountd/config reads them, and engine asks it
// where an object is looked at and where each use of a key begins.
//
// A nil *Set grants nothing.
package grants

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"p11fs/p11"
)

// A Caller is who uses a key, as the kernel says.
type Caller struct {
	UID, GID uint32
	Groups   []uint32 // the supplementary ones
	Unit     string   // the systemd unit; empty where there is none, or it is not known
}

// A Key is what a grant asks of a key.
type Key struct {
	Class              p11.ObjectClass
	Label, ID          []byte
	AlwaysAuthenticate bool
}

// KeyOf returns what there is of attrs, in memory of its own.
func KeyOf(attrs p11.Attributes) Key {
	var k Key
	k.Class, _ = attrs.Class()
	label, _ := attrs.Get(p11.CKA_LABEL)
	id, _ := attrs.Get(p11.CKA_ID)
	k.Label, k.ID, k.AlwaysAuthenticate = bytes.Clone(label), bytes.Clone(id), attrs.Bool(p11.CKA_ALWAYS_AUTHENTICATE)
	return k
}

// A Grant is one line.
type Grant struct {
	At   string // file and line
	Text string // the line as it was written

	// Who: all that is set must fit.
	UID, GID *uint32
	Unit     string

	// Which key: the token by its name, the key by what is not nil of label and id.
	Token     string
	Label, ID []byte

	// For what.
	Functions  p11.Flags           // CKF_SIGN and so on
	Mechanisms []p11.MechanismType // nil for all
	// AlwaysAuthenticate: the grant is also for keys that want the PIN for each use, and
	// stands for that PIN.
	AlwaysAuthenticate bool
}

// For says whether the grant is the caller's.
func (g *Grant) For(c Caller) bool {
	switch {
	case g.UID == nil && g.GID == nil && g.Unit == "":
		return false
	case g.UID != nil && *g.UID != c.UID:
		return false
	case g.GID != nil && *g.GID != c.GID && !slices.Contains(c.Groups, *g.GID):
		return false
	}
	return g.Unit == "" || g.Unit == c.Unit
}

// Covers says whether the grant is about the key.
func (g *Grant) Covers(k Key) bool {
	switch k.Class {
	case p11.CKO_PRIVATE_KEY, p11.CKO_SECRET_KEY, p11.CKO_PUBLIC_KEY:
	default:
		return false
	}
	switch {
	case g.Label == nil && g.ID == nil:
		return false
	case g.Label != nil && !bytes.Equal(g.Label, k.Label), g.ID != nil && !bytes.Equal(g.ID, k.ID):
		return false
	}
	return g.AlwaysAuthenticate || !k.AlwaysAuthenticate
}

// Allows says whether the grant allows a use, a CKF_ flag, with the mechanism.
func (g *Grant) Allows(use p11.Flags, m p11.MechanismType) bool {
	return g.Functions&use != 0 && (g.Mechanisms == nil || slices.Contains(g.Mechanisms, m))
}

// A Set is all the grants of a daemon.
type Set struct{ List []*Grant }

// Of returns the caller's grants for keys of a token.
func (s *Set) Of(c Caller, token string) []*Grant {
	if s == nil {
		return nil
	}
	var list []*Grant
	for _, g := range s.List {
		if g.Token == token && g.For(c) {
			list = append(list, g)
		}
	}
	return list
}

// For returns everybody's grants for keys of a token.
func (s *Set) For(token string) []*Grant {
	if s == nil {
		return nil
	}
	var list []*Grant
	for _, g := range s.List {
		if g.Token == token {
			list = append(list, g)
		}
	}
	return list
}

// function is a use of a key by its name in a grant.
type function struct {
	name string
	flag p11.Flags
}

func functions() []function {
	return []function{
		{"sign", p11.CKF_SIGN}, {"sign-recover", p11.CKF_SIGN_RECOVER},
		{"verify", p11.CKF_VERIFY}, {"verify-recover", p11.CKF_VERIFY_RECOVER},
		{"encrypt", p11.CKF_ENCRYPT}, {"decrypt", p11.CKF_DECRYPT},
		{"wrap", p11.CKF_WRAP}, {"unwrap", p11.CKF_UNWRAP}, {"derive", p11.CKF_DERIVE},
		{"encapsulate", p11.CKF_ENCAPSULATE}, {"decapsulate", p11.CKF_DECAPSULATE},
	}
}

// FunctionNames are the names of the grant's functions.
func (g *Grant) FunctionNames() []string {
	var names []string
	for _, f := range functions() {
		if g.Functions&f.flag != 0 {
			names = append(names, f.name)
		}
	}
	return names
}

// FunctionNames are the names of all functions that can be granted.
func FunctionNames() []string {
	var names []string
	for _, f := range functions() {
		names = append(names, f.name)
	}
	return names
}

// Line is the grant of one use of a key, or of several, that would be enough for the caller.
func Line(c Caller, token string, k Key, use p11.Flags, m p11.MechanismType) string {
	var b strings.Builder
	fmt.Fprintf(&b, "user=%d", c.UID)
	fmt.Fprintf(&b, " token=%s", token)
	if len(k.Label) > 0 {
		fmt.Fprintf(&b, " %v", p11.Attributes{{Type: p11.CKA_LABEL, Value: k.Label}})
	}
	if len(k.ID) > 0 {
		fmt.Fprintf(&b, " id=0x%x", k.ID)
	}
	fmt.Fprintf(&b, " functions=%s", strings.Join((&Grant{Functions: use}).FunctionNames(), ","))
	fmt.Fprintf(&b, " mechanisms=%s", m.Short())
	if k.AlwaysAuthenticate {
		b.WriteString(" always-authenticate=granted")
	}
	return b.String()
}
