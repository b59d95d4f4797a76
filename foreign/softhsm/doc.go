// Package softhsm reads the token directories of SoftHSM2 without its library.
//
// A token is a directory with the objects in files (the file back end) or in one SQLite
// database. In the file back end token.object describes the token, and each other file
// NAME.object is an object. Numbers have 8 bytes, the highest first:
//
//	generation                                   counts the changes
//	type, kind, value; type, kind, value; …      to the end of the file
//
// The kinds are
//
//	1  boolean      1 byte, 0 or 255
//	2  number       8 bytes
//	3  bytes        length in bytes, value
//	4  template     length in bytes, attributes of this form
//	5  mechanisms   count, 8 bytes each
//
// The database sqlite3.db has a table object with the numbers of objects, of which 1 is
// the token, and for each kind a table (value, type, object_id): attribute_boolean,
// attribute_integer, attribute_binary, attribute_array. Templates and mechanisms are
// blobs of numbers in the machine's byte order; in such a template the number of the
// kind has 4 bytes, a boolean is 1, and mechanisms have their length in bytes before.
//
// The token's attributes 0x8000534c and 0x8000534d hold the key of the token under the
// PIN of the SO and of the user:
//
//	salt (8), IV (16), AES-256-CBC with padding of "RJR" and the key (32)
//
// The key of that is SHA-256 of the salt and the PIN, hashed again and again: in all as
// many times as 1500 and the last byte of the salt. In a private object each value of
// kind bytes that is not empty is an IV (16) and AES-256-CBC with padding under the key
// of the token. Nothing authenticates them.
package softhsm
