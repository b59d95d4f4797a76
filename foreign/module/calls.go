package module

import (
	"p11fs/p11"
	"p11fs/secret"
)

// calls are the functions of a module that are called. Values of attributes are as the
// machine has them.
type calls interface {
	initialize(parameters string) error
	finalize() error
	slots() ([]p11.SlotID, error)
	token(p11.SlotID) (p11.TokenInfo, error)
	mechanisms(p11.SlotID) ([]p11.MechanismType, error)
	open(p11.SlotID) (p11.SessionHandle, error)
	close(p11.SessionHandle) error
	// login without a PIN leaves asking to the token.
	login(p11.SessionHandle, *secret.Bytes) error
	// find returns the objects that the token stores, at most so many.
	find(s p11.SessionHandle, most int) ([]p11.ObjectHandle, error)
	// get returns a value of at most so many bytes.
	get(s p11.SessionHandle, o p11.ObjectHandle, t p11.AttributeType, most int) ([]byte, error)
	// bring makes an AES key of that value that wraps, for the session.
	bring(s p11.SessionHandle, value []byte) (p11.ObjectHandle, error)
	// generate has the token make one of so many bytes, whose value can be read.
	generate(s p11.SessionHandle, n int) (p11.ObjectHandle, error)
	destroy(p11.SessionHandle, p11.ObjectHandle) error
	wrap(s p11.SessionHandle, m p11.MechanismType, iv []byte, by, key p11.ObjectHandle, most int) ([]byte, error)
}
