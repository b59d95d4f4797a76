// Package mountd is the daemon: it finds the tokens, joins them with the engine
// and the file tree, mounts, and takes everything down again in order.
//
// # Start
//
// Configuration and paths are checked first, then the locks are taken, a stale
// mount is cleaned, the tokens are opened and test themselves, and the tree is
// mounted. Only then does the daemon say that it is ready, to systemd and
// through Config.Ready. A start that fails leaves nothing behind.
//
// # Locks
//
// A guard file beside the tokens' lock files is locked for the daemon's life, so
// that two daemons never serve one store; and so is the directory under the
// mount point, so that two never mount on one another. Both go with the
// process, however it ends.
//
// # End
//
// When the context ends, or the tree is unmounted by another, nothing new is
// opened, what runs is finished within a time limit, the tree is unmounted, and
// then applications, tokens and their keys are closed, in this order, the locks
// last.
//
// A token that cannot be opened, or that fails its self-test, leaves its slot
// empty, and status says why; the others are served.
package mountd
