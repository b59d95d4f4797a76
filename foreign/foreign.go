// Package foreign is what other PKCS#11 tokens hold: objects on their way out of the
// stores and modules that the packages below read. Nothing of it runs in the daemon.
package foreign

import (
	"cmp"
	"fmt"

	"p11fs/p11"
)

// What is read of one token, which may be anybody's.
const (
	// MaxObjects is how many objects are read.
	MaxObjects = 100_000
	// MaxObject is how many bytes one object has in its store.
	MaxObject = 4 << 20
	// MaxTotal is how many bytes all objects have together.
	MaxTotal = 512 << 20
)

// An Object is one object of another token.
type Object struct {
	// Attrs are its attributes, with the value in the clear unless Err says why not.
	// They are the reader's to wipe.
	Attrs p11.Attributes
	// Place is where it is: a file's name, or a number.
	Place string
	// Err is why it cannot come: then Attrs are those that could be read, perhaps none.
	Err error
}

// Name says in words which object it is.
func (o Object) Name() string {
	class, ok := o.Attrs.Class()
	if !ok {
		return "object " + o.Place
	}
	id, _ := o.Attrs.Get(p11.CKA_ID)
	name := class.Short()
	switch label := o.Attrs.Label(); {
	case label != "":
		name += fmt.Sprintf(" %q", label)
	case len(id) > 0:
		name += fmt.Sprintf(" 0x%x", id)
	default:
		name += " " + cmp.Or(o.Place, "without a name")
	}
	return name
}

// WipeAll wipes what was read.
func WipeAll(list []Object) {
	for _, o := range list {
		o.Attrs.Wipe()
	}
}
