package tokens

import (
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"time"

	"p11fs/p11"
	"p11fs/secret"
)

// An Object is one version of an object. Its attributes never change: a
// modification makes a new version under the same handle, and the old one
// serves the operations that hold it until they end.
type Object struct {
	// Handle names the object, in every version, for the life of the process.
	// Handles are unpredictable, so that they tell nothing of other objects.
	Handle p11.ObjectHandle
	// Name is the stable name of a token object, which only its storage understands;
	// empty for a session object. It shows, and tells nothing of other objects.
	Name string
	// Stored is what the storage calls the object, if that is not its Name. It does not
	// show.
	Stored string
	// Private says that CKA_PRIVATE is true.
	Private bool
	// Changed is when this version was made, and Dated the time of its content, which is
	// the same unless somebody has set it (Dater). Its storage may know both better than
	// NewObject: until it puts the version into the index.
	Changed, Dated time.Time

	mu      sync.Mutex     // guards all below; nothing is locked under it
	attrs   p11.Attributes // nil while packed has them alone
	packed  p11.Packed     // see Pack
	users   int            // holders
	dropped bool           // wiped when users is 0
	memo    any            // parsed key, made by the token that uses it
	forget  func(p11.Attributes)
}

// NewObject returns an object that owns attrs, and was changed now.
func NewObject(h p11.ObjectHandle, name string, attrs p11.Attributes) *Object {
	now := time.Now()
	return &Object{Handle: h, Name: name, Private: attrs.Bool(p11.CKA_PRIVATE), Changed: now, Dated: now, attrs: attrs}
}

// NewSessionObject returns a session object that owns attrs. forget, if not nil, is
// called before they are wiped.
func NewSessionObject(h p11.ObjectHandle, attrs p11.Attributes, forget func(p11.Attributes)) *Object {
	o := NewObject(h, "", attrs)
	o.forget = forget
	return o
}

// Pack has the object take less memory while nobody holds it, and parsed nothing of it: a
// store of very many calls it for each, before anybody else has it.
func (o *Object) Pack() *Object {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.packed = o.attrs.Pack()
	o.attrs.Wipe()
	o.attrs = nil
	return o
}

// What an object takes beside the values of its attributes, and what each of them takes, in
// bytes: more rather than less.
const (
	objectSize    = 512
	attributeSize = 64
)

// SizeOf is what an object with these attributes takes of memory, in bytes.
func SizeOf(attrs p11.Attributes) int { return sizeOf(slices.Values(attrs)) }

func sizeOf(attrs iter.Seq[p11.Attribute]) int {
	n := objectSize
	for a := range attrs {
		n += attributeSize + len(a.Value)
	}
	return n
}

// String names the object by its handle. Its attributes never print.
func (o *Object) String() string { return fmt.Sprintf("object %#x", uint64(o.Handle)) }

// Format prints String for every verb: fmt would print the attributes in the
// unexported field as they are.
func (o *Object) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, o.String()) }

// LogValue gives slog what String returns.
func (o *Object) LogValue() slog.Value { return slog.StringValue(o.String()) }

// Acquire keeps the object's memory from being wiped until Release, and returns
// its attributes, which the caller does not change. Who holds the object may
// acquire it again, dropped or not, and so may pass it on to others who do. It
// returns CKR_OBJECT_HANDLE_INVALID when the object is gone already.
func (o *Object) Acquire() (p11.Attributes, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.dropped && o.users == 0 {
		return nil, p11.CKR_OBJECT_HANDLE_INVALID
	}
	if o.users++; o.attrs == nil {
		o.attrs = o.packed.Unpack()
	}
	return o.attrs, nil
}

// Release ends one Acquire.
func (o *Object) Release() {
	o.mu.Lock()
	if o.users--; o.users < 0 {
		o.mu.Unlock()
		panic("tokens: Object.Release without Acquire")
	}
	o.unlock()
}

// Drop says that the owner has let go of this version: its memory is wiped once
// nobody holds it. It may be called again.
func (o *Object) Drop() {
	o.mu.Lock()
	o.dropped = true
	o.unlock()
}

// matches says whether the object's attributes match a template (Attributes.Match). One that
// is gone matches none.
func (o *Object) matches(template p11.Attributes) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.dropped && o.users == 0:
		return false
	case o.attrs != nil:
		return o.attrs.Match(template)
	}
	return o.packed.Match(template)
}

// Look calls f with the object's attributes, and unpacks nothing for that; false if the
// object is gone. f keeps none of their values, and calls no method of the object.
func (o *Object) Look(f func(iter.Seq[p11.Attribute])) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.dropped && o.users == 0:
		return false
	case o.attrs != nil:
		f(slices.Values(o.attrs))
	default:
		f(o.packed.All())
	}
	return true
}

// unlock gives mu back, and wipes what nobody holds any more.
func (o *Object) unlock() {
	var memo any
	var attrs p11.Attributes
	var packed p11.Packed
	switch {
	case o.users > 0:
	case o.dropped:
		memo, attrs, packed = o.memo, o.attrs, o.packed
		o.memo, o.attrs, o.packed = nil, nil, nil
	case o.packed != nil && o.memo == nil:
		o.attrs = nil
	}
	forget := o.forget
	o.mu.Unlock()
	if attrs == nil && packed == nil {
		return
	}
	if c, ok := memo.(interface{ Close() }); ok {
		c.Close()
	}
	if forget != nil {
		forget(attrs)
	}
	attrs.Wipe()
	secret.Wipe(packed)
}

// Memo returns what parse made of the attributes, parsing at the first call
// only. The caller holds the object (Acquire). A value with a method Close is
// closed when the object is wiped.
func (o *Object) Memo(parse func(p11.Attributes) (any, error)) (any, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.memo == nil {
		v, err := parse(o.attrs)
		if err != nil {
			return nil, err
		}
		o.memo = v
	}
	return o.memo, nil
}
