// Package fs is the file tree: it shows the slots, sessions and objects of an
// [engine.Engine] as a FUSE file system, in which reading and writing files are
// PKCS#11 operations. It is the only package that knows FUSE, and it decides no
// PKCS#11 rule: those are the engine's.
//
// # Callers
//
// PKCS#11's application is here a uid and a POSIX session. The session is that
// of the calling thread (getsid); a pidfd on its leader, opened when the
// application is made, says for every request whether the leader still lives,
// so that a session number that the kernel has given out again is never taken
// for the old one. That does what the leader's start time would do, and
// without a race. When the leader ends, the application ends.
//
// A caller from another PID namespace (pid 0), and one whose session leader has
// exited, is nobody: it sees public objects, and gets EOPNOTSUPP where state
// would be needed.
//
// # Nodes
//
// A node knows its place in the tree (slot, session reference, stored name of
// the object) and nothing of who looks: each operation resolves the caller's
// application, so one inode serves several callers. Inode numbers are a keyed
// hash of the place, with a random key a daemon: they are stable and tell
// nothing. Objects are named in it by their stored name rather than by their
// handle, since handles of private objects change with the login.
//
// Entries that depend on the caller are never cached by the kernel. Modes and
// owners do not depend on it (what is below sessions/ belongs to the uid that
// the inode number is made of), so attributes are cached except for the sizes of
// texts that differ from caller to caller.
//
// # Handles
//
// What an open file may do is decided when it is opened and frozen in the
// handle, with the caller's session: FLUSH and RELEASE come from nobody. A
// [streamHandle] is a file transaction, a [commandHandle] a command. What is
// read through another open meets what was written in the caller's session, as
// an [exchange].
//
// # Order of locks
//
// A handle's gate comes first; then [callers].mu, [application].mu,
// [session].mu. Nothing below is called with one of the three mutexes held
// except the engine's quick questions (handles, generations), and no reply is
// written under any of them.
package fs
