// Package fs is the file tree: it shows the slots, sessions and objects of an
// [engine.Engine] as a FUSE file system, in which reading and writing files are
// PKCS#11 operations. It is the only package that knows FUSE, and it decides no
// PKCS#11 rule: those are the engine's.
//
// # Callers
//
// PKCS#11's application is here a uid and a POSIX session. The session is that
// of the calling thread (getsid). A pidfd on its leader, opened when the application
// is made, says for every request whether the leader still lives, so that a session
// number that the kernel has given out again is never taken for the old one. That
// does what the leader's start time would do, and without a race. When the leader
// ends, the application ends.
//
// A caller from another PID namespace (pid 0), and one whose session leader has
// exited, sees public objects, and gets EOPNOTSUPP where state would be needed.
//
// # Nodes
//
// A [node] is an [entry] of a directory that the kernel knows. It knows its [place]
// (slot and session) and its path there, and nothing of who looks: each operation
// finds the caller's application, so one directory serves several callers. A file has
// a node, and so an inode, for each application, for what the kernel keeps with an
// inode is shared by all who open it: pages, the lock that a write holds, watches. Who
// comes to the node of another past its name, through /proc/PID/fd, gets ESTALE. An entry is
// one of three things. A [directory] is an interface, with one type for each kind of
// directory. A [file] is a value with functions, one value for each kind of file. A
// link is a function.
//
// Inode numbers are a keyed hash of place and path, and for files of the [owner], with a
// random key for each daemon: they are stable and tell nothing. Objects are named in the path by their
// stored names and not by their handles, since handles of private objects change with
// the login.
//
// Entries that depend on the caller, and so all files, are asked for each time; what the
// kernel keeps of them is one inode a name, of a bounded number of names ([recentNames]),
// and those that are open. Modes and
// owners do not depend on it (what is below sessions/ belongs to the uid that
// the inode number is made of), so attributes are cached, except for the
// times of objects and the sizes of texts, which differ from caller to caller.
//
// # Handles
//
// What an open file may do is decided when it is opened and kept in its [handle],
// with the caller's session: FLUSH and RELEASE come from nobody, or from who was given
// the descriptor. Which process a read, a write or a FLUSH comes from says the lock
// owner ([request]); a function that waits for another process lets go of the handle. Behind a handle
// there is a text, a command ([openCommand]), a file transaction ([message]), a
// result that another open of the session has left ([exchange]), or an ordinary file
// ([blob]).
//
// Each request goes through serve, of the node or of the handle: it goes on for a
// while after an interrupt, and its error gets its errno and goes to the file error.
//
// # Order of locks
//
// A handle's mutex comes first; then [callers].mu, [application].mu, [session].mu.
// Nothing below is called with one of the last three held except the engine's quick
// questions (handles, generations), and no reply is written under any of them.
package fs
