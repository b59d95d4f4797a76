// Package wire is the codec of the RPC socket: p11-kit's protocol in its
// versions 0, 1 and 2, and our own module's, which shares its frames.
//
// It knows bytes and the PKCS#11 vocabulary, no calls' meaning and no engine.
// All input is hostile: every length and count is checked against the bytes
// that are there before anything is allocated, and templates nest eight deep at
// most.
//
// A frame is a header of three big-endian u32 (call code, length of the
// options, length of the body), the options, and the body: call number u32,
// signature (u32 length and ASCII), then the values that the signature names.
package wire

import (
	"errors"
	"fmt"

	"p11fs/p11"
)

// A Protocol is the version byte that a client offers when it connects. It is
// the only hint of what the client is, and decides how mechanisms and
// templates are encoded.
type Protocol uint8

// The protocols.
const (
	V0  Protocol = 0    // p11-kit up to 0.24.1
	V1  Protocol = 1    // p11-kit 0.25.0 to 0.25.5
	V2  Protocol = 2    // p11-kit 0.25.6 and later
	Own Protocol = 0xC5 // libp11fs.so
)

// Answer is the version byte that the server sends back. No offer is refused:
// a client whose offer is would come again with another and still keep its own
// encoding.
func (p Protocol) Answer() byte {
	if p == Own {
		return byte(Own)
	}
	return min(byte(p), byte(V2))
}

// Handshake is what C_Initialize must carry.
const Handshake = "PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1"

// Limits on what a client may send, in bytes and levels.
const (
	MaxOptions = 4 << 10
	MaxBody    = 64<<20 + 4<<10 // a part of 64 MiB and what goes with it
	maxDepth   = 8
	null       = 0xffffffff // length of a NULL byte array
)

// ErrMalformed says that a body does not follow its signature.
var ErrMalformed = errors.New("malformed message")

// malformed wraps both ErrMalformed and the CK_RV that such a call is answered
// with.
func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrMalformed, p11.Errorf(p11.CKR_DEVICE_ERROR, format, args...))
}
