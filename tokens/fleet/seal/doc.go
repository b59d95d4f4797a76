// Package seal encrypts what a fleet keeps in etcd, under a key that only its machines have.
//
// # The sealed value
//
//	1 byte    the form: 1
//	8 bytes   the version, big-endian
//	32 bytes  salt, random
//	n bytes   the plain value under AES-256-GCM
//	16 bytes  its tag
//
// The key and the nonce of AES-GCM are the 44 bytes that HKDF-SHA-256 makes of the fleet's key,
// the salt and the text infoValue: every value has a key of its own, so that no count of values,
// on however many machines, comes near the bound of AES-GCM with random nonces. What is
// authenticated besides is the form, the version, the token's id, and the name of the etcd key.
//
// AES-GCM of the library, and not age: age has no associated data, so a name and a version would
// have to stand in the plain value, and each value would cost a header of 200 bytes.
//
// # What it holds against
//
// Whoever reads etcd learns names, versions, sizes (but for the 57 bytes), and when a value is
// written. Whoever writes it can make no value, change none, and move none to another name,
// token or version. A value that was sealed for this very place may be put back: Key.Tag is for
// that, of which a record that is itself sealed has the sum.
package seal
