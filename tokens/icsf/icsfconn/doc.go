// Package icsfconn calls the services of ICSF over one connection to a directory server, which
// it makes when it is needed and again when it was lost.
//
// Many calls may be under way at once; each waits for its own answer. A call that changes
// nothing is repeated on a new connection, twice at most; of any other one nobody knows whether it
// was done. What lives as long as a connection, the objects of a session and the running
// states of calls in parts, is used through a Link.
package icsfconn
