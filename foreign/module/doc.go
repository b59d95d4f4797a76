// Package module reads the objects of a token through a PKCS#11 module of somebody else,
// which it loads into the process: a command's, never the daemon's.
//
// What of an object can be read is read. A key that is sensitive but extractable is
// wrapped under an AES key that exists for as long as the session, and opened here.
package module
