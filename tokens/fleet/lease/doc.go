// Package lease keeps a machine in contact with the others of its fleet, so that each may use
// what it has in memory without asking etcd, and yet nobody uses a key that was taken away.
//
// # The promise
//
// A machine may use keys while Alive says so: it holds a lease of etcd, and has in memory all
// that was changed before it took that lease. Whoever takes something away makes the change and
// calls Settle, which returns when each machine with a lease has acknowledged the change, or has
// lost its lease.
//
// # Keys
//
// Below the fleet's prefix, each sealed (package seal) with a revision of etcd as its version:
//
//	hosts/ID   one a lease, which it ends with: what the machine has in memory
//	wanted     what somebody waits for: machines write hosts/ID only then
//
// A machine that takes a lease writes hosts/ID first and reads what is in etcd after, so that
// whoever changes something later finds it there, and what was changed before it will read.
//
// # Time
//
// A lease ends on the machine before it does in etcd: the machine counts from before it asked,
// and stops an eighth early, for a clock that goes slower than etcd's. It counts by a clock that
// nobody sets and that goes on while the machine sleeps; what the time of day is does not matter.
// What stops a virtual machine with all its clocks is not seen by it.
//
// Nobody ends the lease of another: the record that is gone is of a machine that has stopped. A
// machine renews its lease only when etcd has answered on the very stream that brings it the
// changes, so one that hears nothing stops by itself, however well it can send.
//
// An operation is as old as its beginning: who asks Alive when it begins, and is answered, may
// give its result later.
package lease
