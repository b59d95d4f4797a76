// Package tokens says what a token is: the interface that every kind of token
// (swtok, lite, tpm, …) implements and that the engine uses, and the objects
// and the index that they share.
//
// A token keeps objects, checks PINs and does cryptography. It knows no
// applications, sessions or object rules: those are the engine's.
package tokens

import (
	"context"
	"time"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
)

// A Token is one token: a name and a kind, a Storage and a Crypto. All methods
// may be called by several goroutines at once. Errors carry a p11.RV (errors.As).
//
// What only some tokens can do is an interface of its own, which whoever wants it
// finds by assertion on the Token: KeyGenerator, KeyWrapper, KeyDeriver,
// Encapsulator, RandomSeeder, BatchCreator, Dater, Counter, Adopter, Changer, Forgetter, Hider, SelfTester, Watcher, Teller,
// Offliner, Rester, Describer, Carded, Sharer, Inspector, Reencipherer, SessionPINSetter, Fellow. Resumer, Sizer, Keeper, Duplicator and KeyDigester are found on an
// Operation.
type Token interface {
	// Name is the name of the token directory, such as "swtok".
	Name() string
	// Kind is the kind of token, such as "swtok" or "tpm".
	Kind() string

	Storage
	Crypto
}

// Storage keeps a token's data, PINs and objects.
type Storage interface {
	// Info returns the token's data as it stands now. The session counts are
	// the engine's to fill in.
	Info(ctx context.Context) (p11.TokenInfo, error)
	// Refresh brings in what other processes changed since the last call. The
	// engine calls it before a search and before an object is used.
	Refresh(ctx context.Context) error
	// Close gives back everything; logins end.
	Close() error

	Admin
	Objects
}

// Admin is login and administration. The PINs stay the caller's to close.
type Admin interface {
	// InitToken is C_InitToken (PKCS#11 v3.1 §5.5.7): all objects go, the label
	// is set, pin becomes the SO PIN of a token that had none, and must be
	// the SO PIN otherwise. All Logins end.
	InitToken(ctx context.Context, pin *secret.Bytes, label string) error
	// Login checks the PIN, counts failures, and for CKU_USER makes the private
	// objects readable until the last Login for the user is closed.
	Login(ctx context.Context, user p11.UserType, pin *secret.Bytes) (Login, error)
	// InitPIN sets the user's PIN; so must be a valid Login of CKU_SO.
	InitPIN(ctx context.Context, so Login, pin *secret.Bytes) error
	// SetPIN changes the PIN of user from old to pin.
	SetPIN(ctx context.Context, user p11.UserType, old, pin *secret.Bytes) error
}

// A Login is one successful login: a share in the token's opened master key.
type Login interface {
	// User says who logged in.
	User() p11.UserType
	// Valid returns nil while the login holds, and CKR_USER_NOT_LOGGED_IN once
	// the token was initialised anew or closed, or the role's PIN was locked.
	Valid() error
	// Close ends this login; the last one of CKU_USER drops and wipes the
	// private objects and the master key. It may be called again.
	Close() error
}

// Objects is the token's object store. Private objects are known only while a
// Login of CKU_USER is open.
type Objects interface {
	// Find returns the objects that match every attribute of template, in
	// the order in which they were made. private says whether private
	// objects are wanted besides the public ones.
	Find(ctx context.Context, template p11.Attributes, private bool) ([]*Object, error)
	// ByHandle returns the newest version of the object, or
	// CKR_OBJECT_HANDLE_INVALID. It is cheap and does no I/O.
	ByHandle(h p11.ObjectHandle) (*Object, error)
	// ByName returns the object with that stored name, likewise.
	ByName(name string) (*Object, error)
	// Counts returns how many public and private objects are known.
	Counts() (public, private int)
	// PublicSize is what all public objects take together, in bytes (SizeOf).
	PublicSize() int
	// Create stores a new object durably. attrs is complete (defaults filled
	// in) and becomes the token's, which wipes it also when it fails.
	Create(ctx context.Context, attrs p11.Attributes) (*Object, error)
	// Update stores a new version of an object durably. change is called with the
	// newest attributes, which it neither changes nor keeps, and returns the full
	// new set, which shares no memory with them, or an error that ends the update
	// with nothing changed. It has no effect of its own, since it is called again
	// when somebody else changed the object meanwhile. CKA_PRIVATE and CKA_TOKEN
	// stay as they are.
	Update(ctx context.Context, h p11.ObjectHandle, change func(p11.Attributes) (p11.Attributes, error)) (*Object, error)
	// Destroy removes the object durably. check is called with the newest
	// attributes and may refuse; like change, it may be called again.
	Destroy(ctx context.Context, h p11.ObjectHandle, check func(p11.Attributes) error) error
}

// Crypto does a token's cryptography. The engine has checked that the token's list
// has the mechanism for the use, that its parameter is valid (p11.Mechanism.Validate)
// and that the key's type fits it, and usage attributes, login and allowed
// mechanisms. What else is wrong with a parameter gives
// CKR_MECHANISM_PARAM_INVALID.
type Crypto interface {
	// Mechanisms returns the mechanism list in a fixed order; the caller does
	// not change it.
	Mechanisms() []p11.MechanismInfo
	// Begin starts an operation. use is one of CKF_DIGEST, CKF_SIGN, CKF_VERIFY,
	// CKF_SIGN_RECOVER, CKF_VERIFY_RECOVER, CKF_ENCRYPT and CKF_DECRYPT. A digest
	// has no key; any other operation holds its key (Object.Acquire) until Close.
	Begin(ctx context.Context, use p11.Flags, m p11.Mechanism, key *Object) (Operation, error)
	// GenerateRandom fills b.
	GenerateRandom(ctx context.Context, b []byte) error
}

// An Operation is a use of a mechanism in progress. Its calls come one after the
// other. What Update and Final return is the caller's.
type Operation interface {
	// Update takes the next part of the data, and returns what an encryption or
	// decryption can give of its result. An authenticated decryption gives
	// nothing that is not checked, before Final has checked the tag (PKCS#11 v3.1
	// §5.10) or where there is one on the way (CKM_P11FS_STREAM). An error
	// ends the operation, but for that of a ctx that was done before anything
	// happened.
	Update(ctx context.Context, part []byte) ([]byte, error)
	// Final ends the message and returns the digest, the signature, the rest of
	// the output, or what a signature recovers. A verification compares with
	// signature, which is nil in any other operation, and returns nothing:
	// CKR_SIGNATURE_INVALID or CKR_SIGNATURE_LEN_RANGE for one that does not fit.
	Final(ctx context.Context, signature []byte) ([]byte, error)
	// Size is the longest digest or signature in bytes, 0 for other operations.
	Size() int
	// Close gives up the key and wipes what the operation holds. It may be
	// called again.
	Close()
}

// A Resumer is an Operation whose message may go on after its result. Two tags of
// one authenticated encryption tell its authentication key: whoever asks for two
// results lets out one of them.
type Resumer interface {
	// Result is what Final would be, and leaves the operation as it was, also
	// when it gives an error: Update may go on with the message.
	Result(ctx context.Context, signature []byte) ([]byte, error)
}

// A Sizer is an Operation that knows how many bytes Update gives for a part of n
// bytes, before it has the part. Whether an output fits is then known without
// computing it.
type Sizer interface {
	UpdateSize(n int) int
}

// A Placer is an Operation whose output can go where the caller wants it.
type Placer interface {
	// UpdateInto is Update. The output is in the memory of into, from its beginning to its
	// capacity, if that is long enough; it may be, where it is not. part is elsewhere.
	UpdateInto(ctx context.Context, into, part []byte) ([]byte, error)
	// FinalInto is Final, likewise. What it fails to give is wiped in that memory, too.
	FinalInto(ctx context.Context, into, signature []byte) ([]byte, error)
	// FinalSize is how many bytes Final will give, -1 where that is not known before.
	FinalSize() int
	// WholeInto is UpdateInto and FinalInto of a message that did not come in parts.
	WholeInto(ctx context.Context, into, message, signature []byte) ([]byte, error)
}

// A Keeper is an Operation that may keep data of its message until it has its result.
type Keeper interface {
	// Kept is how many bytes it keeps now, -1 where it never keeps any.
	Kept() int
}

// A Duplicator is an Operation that there may be two of, which go their own ways
// (C_GetOperationState).
type Duplicator interface {
	// MayDuplicate says whether this one can be.
	MayDuplicate() bool
	// Duplicate makes another one in the same state, which holds its key too.
	Duplicate() (Operation, error)
}

// A KeyDigester is a digest that takes the value of a secret key as its next part
// (C_DigestKey).
type KeyDigester interface {
	DigestKey(ctx context.Context, key *Object) error
}

// A KeyGenerator makes keys. The templates are complete but for what the mechanism
// adds (CKA_VALUE, …), and become the token's.
type KeyGenerator interface {
	GenerateKey(ctx context.Context, m p11.Mechanism, template p11.Attributes) (p11.Attributes, error)
	GenerateKeyPair(ctx context.Context, m p11.Mechanism, public, private p11.Attributes) (p11.Attributes, p11.Attributes, error)
}

// A KeyWrapper wraps and unwraps keys.
type KeyWrapper interface {
	// WrapKey returns key, wrapped under wrapping.
	WrapKey(ctx context.Context, m p11.Mechanism, wrapping, key *Object) ([]byte, error)
	// UnwrapKey returns template with the key attributes that wrapped holds.
	UnwrapKey(ctx context.Context, m p11.Mechanism, unwrapping *Object, wrapped []byte, template p11.Attributes) (p11.Attributes, error)
}

// A KeyDeriver derives keys.
type KeyDeriver interface {
	// DeriveKey returns template with the derived key attributes.
	DeriveKey(ctx context.Context, m p11.Mechanism, base *Object, template p11.Attributes) (p11.Attributes, error)
}

// A KeyJoiner is a KeyDeriver with mechanisms whose parameter names more keys, or that
// make more than one (p11.KeyMaker).
type KeyJoiner interface {
	// JoinKeys is DeriveKey with the base key, and behind it those that m.Keys gives,
	// which are secret keys, or nil where it gives 0. It returns each of templates with
	// its key attributes, nil for nil, and what the mechanism gives beside keys.
	JoinKeys(ctx context.Context, m p11.Mechanism, keys []*Object, templates []p11.Attributes) ([]p11.Attributes, []byte, error)
}

// An Encapsulator has key encapsulation (PKCS#11 v3.2 §5.18.8, §5.18.9).
type Encapsulator interface {
	// EncapsulateKey returns the ciphertext for the owner of public, and template
	// with the attributes of the shared secret key.
	EncapsulateKey(ctx context.Context, m p11.Mechanism, public *Object, template p11.Attributes) ([]byte, p11.Attributes, error)
	// DecapsulateKey returns template with the attributes of the key in ciphertext.
	DecapsulateKey(ctx context.Context, m p11.Mechanism, private *Object, ciphertext []byte, template p11.Attributes) (p11.Attributes, error)
}

// A RandomSeeder mixes a seed into its random numbers (C_SeedRandom).
type RandomSeeder interface {
	SeedRandom(ctx context.Context, seed []byte) error
}

// An Adopter sees the attributes of each new object, token or session, before it
// is stored: whatever is generated, created, unwrapped or derived, but not a copy.
// It checks and completes what the key type asks for, turns secret values into the
// token's own form (the blob of a card, the handle of a remote object), or refuses.
// attrs become the token's, which wipes them when it refuses.
type Adopter interface {
	Adopt(ctx context.Context, attrs p11.Attributes) (p11.Attributes, error)
}

// A Changer keeps what a key may do in a form of its own beside its attributes, as a card
// does in the key's blob. It is asked before the attributes of a key change, in an object of
// the token or of a session, and before a copy is made that differs.
type Changer interface {
	// Change returns what an object is to have in the place of was that somebody wants to be
	// now: a new set, which shares no memory with either, or nil where nothing of the change
	// is the token's. Nothing has changed when it fails.
	Change(ctx context.Context, was, now p11.Attributes) (p11.Attributes, error)
}

// A Calculator has the arithmetic of the curves on which its keys may be, by which a file
// with a private key alone is read.
type Calculator interface {
	Arithmetic() pkix.Arithmetic
}

// A BatchCreator stores several objects at once: after a crash all of them are
// there or none. Without it the engine stores one after the other.
type BatchCreator interface {
	// CreateAll is Create for each of list, and makes all of them or none.
	CreateAll(ctx context.Context, list []p11.Attributes) ([]*Object, error)
}

// A Dater keeps a time of each object that is not that of its last change, as touch(1)
// sets one.
type Dater interface {
	// Date makes a version of the object that has this time (Object.Dated), and else is
	// the one before. The next change ends it.
	Date(ctx context.Context, h p11.ObjectHandle, at time.Time) error
}

// A PINStamper knows when a PIN was changed, whoever did it.
type PINStamper interface {
	// PINStamp differs after each change of the user's or the SO's PIN from what it was
	// before. It does not wait.
	PINStamp(user p11.UserType) string
}

// A Counter is a token with a monotonic counter (PKCS#11 v3.1 §4.3.3), which nothing sets
// back, C_InitToken neither.
type Counter interface {
	// NextCount returns a number that is greater than any that it has returned, whichever
	// process asked, and whatever became of that.
	NextCount(ctx context.Context) (uint64, error)
}

// CountFrom is the least that a counter may begin with at a time, such as one of which it is
// not known how far it went: no counter goes on by more than one in a nanosecond.
func CountFrom(now time.Time) uint64 { return uint64(max(now.UnixNano(), 0)) }

// A Forgetter keeps something of keys elsewhere. Forget is called once when the last
// holder of a session object is gone, and for an object that was to be made and is
// not: attrs are then those that the token made or adopted, or a template of which it
// has nothing. A session object that was copied into the token is never forgotten: its
// copy shares what it has. Forget does not wait for anything; attrs are wiped when it
// returns.
type Forgetter interface {
	Forget(attrs p11.Attributes)
}

// A Visibility says how an attribute answers to C_GetAttributeValue.
type Visibility int

// The visibilities.
const (
	Readable Visibility = iota
	Withheld            // CKR_ATTRIBUTE_SENSITIVE: it is there and may not be read
	Hidden              // CKR_ATTRIBUTE_TYPE_INVALID: as if it were not there
	Shown               // it is there for all to read, also of a sensitive key
)

// A Hider has attributes that are nobody's to read, besides those of sensitive
// keys, which the engine knows; or of these some that say nothing of the key.
type Hider interface {
	Visibility(attrs p11.Attributes, t p11.AttributeType) Visibility
}

// A SelfTester checks itself before it is served. A token whose test fails is not.
type SelfTester interface {
	SelfTest(ctx context.Context) error
}

// A Watcher is a token that comes and goes, or whose mechanism list changes.
type Watcher interface {
	// Watch has changed called after each such change, until stop.
	Watch(changed func()) (stop func())
}

// A Teller tells what becomes of its objects, whoever changes them.
type Teller interface {
	// Tell has heard called after each change that this process learns of, until stop: old is
	// the version that is no more, nil of a new object, and now the newest one, nil of one that
	// is gone. So private objects come with the user's first login and go with the last. heard
	// only takes note, and calls nothing of the token.
	Tell(heard func(old, now *Object)) (stop func())
}

// An Offliner is a token that is there although what does its work may not be: a
// card taken out, a server that does not answer. Its objects can be listed.
type Offliner interface {
	// Offline returns nil, or why keys cannot be used now. It does not wait.
	Offline() error
}

// A Rester is an Offliner that leaves what did not answer alone for a while: Offline is nil as
// soon as it is to be tried again, which the next use does.
type Rester interface {
	// Away returns nil, or why nothing answered when it was tried last, and when that began.
	// It stays so until something answers.
	Away() (since time.Time, why error)
}

// Away returns nil, or why a token is offline, and, of one that knows it, since when.
func Away(t Token) (since time.Time, why error) {
	if r, ok := t.(Rester); ok {
		return r.Away()
	}
	if o, ok := t.(Offliner); ok {
		why = o.Offline()
	}
	return since, why
}

// A Describer is a token whose keys a device has.
type Describer interface {
	// Describe asks the device, and returns a few lines for people: what it is, and how it
	// guards the PINs. Everybody may know them. Of what the device does not say there is none.
	Describe(ctx context.Context) []string
}

// A Carded is a token whose keys cards have, which its administrators look after.
type Carded interface {
	// Cards asks the cards, and returns a line for each domain: whether it is online, what
	// the card is, and the verification patterns of its master keys. Everybody may know
	// them. It waits for cards that do not answer, ten seconds at most.
	Cards(ctx context.Context) []string
}

// A Reencipherer is a token whose keys are under a master key of a card, which its
// administrators change: they make a next one, and then activate it. Keys go on to be used
// meanwhile, also by other processes. All three want a Login of CKU_USER, see to one object
// after the other, and go on where they were cut off; progress, which may be nil, is told
// how many of how many objects were seen to. They return how many keys they changed.
type Reencipherer interface {
	// Reencipher puts beside each key what it is under the next master key.
	Reencipher(ctx context.Context, progress func(done, total int)) (int, error)
	// FinalizeReencipher has that take the key's place, once the master key is activated.
	FinalizeReencipher(ctx context.Context, progress func(done, total int)) (int, error)
	// CancelReencipher removes it.
	CancelReencipher(ctx context.Context, progress func(done, total int)) (int, error)
}

// A SessionPINSetter is a token that may bind its keys to logins at its cards, which have a PIN
// of their own.
type SessionPINSetter interface {
	// SetSessionPIN sets it, for logins of the user that begin when there is no other. It
	// wants a Login of CKU_USER. Keys that were made under another PIN are of use again when
	// that is set.
	SetSessionPIN(ctx context.Context, pin *secret.Bytes) error
}

// A Damage is a file of a token that cannot be used.
type Damage struct {
	File string // below the token directory
	Why  string // one line, which may hold what others wrote into the file
}

// ManyAdvice is what the Why of a Damage ends with if it is none: there are more objects than a
// token shows. RoomAdvice is where that is because they have no room in memory.
const (
	ManyAdvice = "remove what nobody wants"
	RoomAdvice = ManyAdvice + ", or start p11fs mount with a larger --token-size"
)

// An Inspector is a token that knows which of its files are damaged.
type Inspector interface {
	// Damaged returns what is known now, in the order of the files. It does not wait.
	Damaged() []Damage
}

// A Fellow is a token that other machines have at the same time.
type Fellow interface {
	// Fleet asks what keeps the token how it is, for as long as ctx lets it.
	Fleet(ctx context.Context) Fleet
}

// A Fleet is how what keeps a token on many machines is.
type Fleet struct {
	Contact  error         // nil, or why this machine uses no keys
	Lease    time.Duration // how long it would go on without contact
	Revision int64         // of the store, up to which this machine has the token
	Lag      int64         // how many revisions it is behind, -1 if that is not known
	Changes  uint64        // of the token
	Members  []FleetMember // of the store
	Hosts    []FleetHost   // machines that have the token now, nil if they are not known
}

// A FleetMember is one of those that keep the store.
type FleetMember struct {
	Address     string
	State       string // for people
	Wrong, Mend string // what is wrong with it, and what to do; empty for nothing
}

// A FleetHost is a machine that has the token.
type FleetHost struct {
	ID, Name string
	Since    time.Time // by its own clock
	Revision int64     // that it has last said it has, 0 until somebody has asked
	Here     bool      // it is this one
	Earlier  bool      // one that came later has its name: it was killed, unless two have one name
}

// A Sharer is a token that other processes use at the same time, through shared
// memory.
type Sharer interface {
	// References is how many processes have the memory mapped. shared is false if
	// there is none.
	References() (n int, shared bool)
}
