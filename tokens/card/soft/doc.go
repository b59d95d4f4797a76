// Package soft has software cards: what answers the calls of cards, with keys that are
// files. Programs for IBM Z can be made and tried with them on any machine. They are no
// security modules: root, and whoever reads the directory, has all keys.
//
// A Set is a directory of cards of one kind:
//
//	card.json           kind, APQNs, serial number, control points
//	wk/current          the wrapping key, 32 bytes; next, next.committed (which is empty) and
//	                    old beside it
//	NN.DDDD/wk/…        those of an APQN that has keys of its own
//	offline/NN.DDDD     empty: that APQN does not answer
//	sessions/NN.DDDD/ID empty: a login at that APQN, by the session's identifier
//	sessions/key        the key that authenticates their identifiers
//
// All is read at each call, so that a change by another process counts at once. A kind with
// more than one master key has a directory for each.
//
// EP11 is the kind of cards in EP11 mode. Its keys, as blobs, have the layout of a real
// card's (ep11.Blob), and what is encrypted in them is this package's own: a real card opens
// none of ours, and we none of its. Encrypted are the attributes of which swtok makes a key
// (p11.EncodeTemplate), by AES-256 in counter mode, under a key that HKDF-SHA-256 makes of
// the wrapping key and the blob's IV, and HMAC-SHA-256 is over all before it. The state of
// an operation is
//
//	16  WKID
//	12  nonce
//	    AES-256-GCM of the record, which is filled up to one length from Init on: mechanism,
//	    key, state of a hash, chaining value, held data
//
// and nothing of it is kept here. The primitives are swtok.Crypto's: an opened blob becomes
// an object for the time of the call. What swtok cannot carry from one process to another,
// since no library can, is made of its parts: a hash goes on in Go's encoding of its state,
// an HMAC as its two hashes (RFC 2104), a chained cipher block by block.
package soft
