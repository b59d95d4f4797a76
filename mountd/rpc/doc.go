// Package rpc is the door for PKCS#11 programs: a server on a Unix socket that
// speaks p11-kit's RPC protocol in its versions 0, 1 and 2, and the protocol of
// our own module libp11fs.so.
//
// A connection is an application in the sense of PKCS#11: sessions, logins and
// session objects are its own, and end with C_Finalize or when it closes. The
// rights are those of the uid that the kernel gives for the peer. The server
// never closes a connection first, since a program that writes to a closed
// socket dies of SIGPIPE: what a client does wrong is answered with an error.
//
// Order of locks: server.mu, then conn.write. Neither is held while the engine
// is called.
package rpc
