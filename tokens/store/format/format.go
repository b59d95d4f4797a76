package format

import (
	"context"
	"errors"

	"p11fs/p11"
	"p11fs/secret"
)

// A Format is one format of token directories, for one kind of token.
type Format interface {
	Data
	Keeper
	// Recognize returns the format as the directory has it whose NVTOK.DAT holds
	// file, with its byte order; or ErrShort, or CKR_TOKEN_NOT_RECOGNIZED.
	Recognize(file []byte) (Format, error)
	// Foreign reports whether the directory has another byte order than the machine,
	// so that no stock program can use it here.
	Foreign() bool
	// Objects returns what reads and writes object files, private ones only with
	// the master key. It does not keep master.
	Objects(master *secret.Bytes) (Objects, error)
	// Place is the name's place in the order in which objects were made, as far as
	// it shows.
	Place(Name) uint64
}

// ErrShort is the error of an NVTOK.DAT that is shorter than it must be: stock
// truncates it before it writes, outside its lock, so that this is normal for a
// moment.
var ErrShort = errors.New("NVTOK.DAT is shorter than its format")

// Data reads and writes the token's data. It has one form in NVTOK.DAT and one in
// the memory that processes share, which is in the machine's byte order.
type Data interface {
	// ParseFile reads NVTOK.DAT; its errors are those of Recognize.
	ParseFile([]byte) (TokenData, error)
	PrintFile(TokenData) []byte
	// FileSize is the size of NVTOK.DAT.
	FileSize() int64
	ParseSegment([]byte) (TokenData, error)
	PrintSegment(TokenData) []byte

	// Initialized returns what C_InitToken makes of d, but for the label and the
	// SO's PIN, and whether the token gets a new master key.
	Initialized(d TokenData) (_ TokenData, newKey bool)
	// PIN returns what d holds of a role's PIN, and WithPIN d with that replaced.
	PIN(d TokenData, role p11.UserType) PINRecord
	WithPIN(d TokenData, role p11.UserType, r PINRecord) TokenData
	// UserPINSet reports whether the user has a PIN.
	UserPINSet(TokenData) bool

	// NewNames returns names for count new objects, or less of them, of which none
	// is taken. They may be used once the data that is returned has been stored;
	// it is d where nothing has to be.
	NewNames(d TokenData, count int, taken func(Name) (bool, error)) ([]Name, TokenData, error)
	// KeepNames returns d so changed that it gives out no name that old has passed.
	KeepNames(d, old TokenData) TokenData
}

// A PINRecord is what the token's data holds of one PIN: a hash, or salts and a
// derived key. Two are compared with ==.
type PINRecord string

// Kept is all that a directory holds of one role's PIN.
type Kept struct {
	Record PINRecord
	File   []byte // contents of MK_SO or MK_USER; nil if it is absent
}

// A Keeper keeps the master key under the PINs of the two roles. It may take its
// time over a PIN, or ask a chip: Open, Make and NewToken are called without the
// token's lock, on what the directory held a moment ago, and the store sees to it
// that it still does when it uses the result. A role's two parts cannot be replaced
// in one step. When the file of a Kept that Make returned is there and its record is
// not yet, Open must take the new PIN for right; the old one may be wrong by then.
type Keeper interface {
	// NewToken returns the data and the SO's key file of a new token.
	NewToken(ctx context.Context) (TokenData, []byte, error)
	// NewMasterKey makes a master key.
	NewMasterKey() (*secret.Bytes, error)
	// KeyFileSize is the size of MK_SO and of MK_USER.
	KeyFileSize() int
	// PINLimits are the lengths of the shortest and the longest PIN.
	PINLimits(TokenData) (shortest, longest int)
	// Open tries a PIN. The caller closes the key that it returns.
	Open(ctx context.Context, role p11.UserType, pin *secret.Bytes, k Kept) (Opened, error)
	// Make puts the master key under a PIN. old is what is there before.
	Make(ctx context.Context, role p11.UserType, pin, master *secret.Bytes, old Kept) (Kept, error)
}

// A Rekeyer is a Keeper whose key is another one with each PIN of a role.
type Rekeyer interface {
	// KeyOf is the key that Open returns with a PIN that is right, which the caller closes.
	KeyOf(pin *secret.Bytes) (*secret.Bytes, error)
}

// Opened is what became of trying a PIN.
type Opened struct {
	Right bool
	// Key is the master key; nil if the PIN is wrong, or the key file is missing or
	// damaged.
	Key *secret.Bytes
	// Mended is what the directory should hold instead; nil if all is well. Why
	// says what was wrong, and is to be logged, also without Mended.
	Mended *Kept
	Why    string
}

// Objects reads and writes object files.
type Objects interface {
	// Open reads the object file of n. attrs is nil of a private object without
	// the master key. Errors about the contents wrap ErrDamaged.
	Open(n Name, file []byte) (private bool, attrs p11.Attributes, err error)
	// Seal returns the object file of n. previous is the file that it replaces, nil
	// if there is none or it cannot be read.
	Seal(n Name, attrs p11.Attributes, previous []byte) ([]byte, error)
}

// ErrDamaged is wrapped by every error about the contents of an object file.
var ErrDamaged = errors.New("damaged object file")

// MaxObjectFile bounds what is read into memory for one object, and so what is
// written.
const MaxObjectFile = 16 << 20
