// Package fleet keeps tokens that many machines have at the same time, in etcd: a storage
// whose directory is a prefix of etcd's keys. What goes there is sealed before (package
// seal), so that etcd and who reads it learn names and sizes.
//
// # Keys
//
// Below the prefix, which ends in a slash:
//
//	token     the record: the token's data, its master key under both PINs, PINs that are
//	          being tried, and what says whether all objects are there
//	o/ID/NAME an object: its times, and the object's file of format 3.12 (package format),
//	          in which a private object is under the master key. ID is the token's, another
//	          one after each C_InitToken and restore: so a backup is put there whole, however
//	          large it is, before the record says that it is the token.
//
// # Changes
//
// Every change is one transaction of etcd, which happens if the record is still at the
// revision that this Store has, and which writes the record anew beside what else it puts
// and removes. So all changes of all machines stand in one order, none is ever half made,
// and C_InitToken is one step. Who comes too late begins again with what others did.
//
// The record counts the changes and has a sum over the names and versions of all objects.
// Whoever writes etcd without the fleet's key can thus remove objects and put back old
// ones, and every machine sees that something is wrong; what it has put back whole, record
// and all, only those see that have seen a later count.
//
// A transaction whose answer is lost is sent again as it was: its condition lets it happen
// once. The record names the last change of each writer, by which one that had happened is
// told from one that lost against another's.
//
// # PINs
//
// A PIN is written down as being tried, by a transaction, before anybody looks at it: of a
// role no more are tried at once, on all machines, than wrong ones are left. What a machine
// that died was trying counts as wrong once others have waited for it (times.trial).
//
// # Locks
//
// Store.changing is held by who makes a change, Store.trying by who tries a PIN, which
// comes before it. Store.mu guards memory and comes last; it is not held over I/O.
package fleet
