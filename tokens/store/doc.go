// Package store keeps a token directory of openCryptoki: the token's data
// (NVTOK.DAT), its master key under both PINs (MK_SO, MK_USER), and one file an
// object with an index (TOK_OBJ/). What their bytes mean is for package format to
// know. The store works on a directory at the same time as stock processes do.
//
// # Locks
//
// All that changes the directory runs in a section under the token's lock
// (begin), which keeps out other processes and the other goroutines of this one,
// and which first reads what others changed. Store.mu comes after it and guards
// memory; it is never held over I/O. Readers (Find, ByHandle, …) take neither:
// the index has its own lock. A PIN is looked at before a section, one at a time,
// and what comes of it counts if the directory still holds the same of it.
//
// # What a crash leaves
//
// A file is replaced by writing a temporary one, syncing it, renaming it and
// syncing the directory. A new object's name is first passed in NVTOK.DAT, so
// that it is never given out again; then comes its line in OBJ.IDX, and the file
// makes it an object. The line of a destroyed object is first marked (format.Index),
// then its file goes. A file without a line is no object, nor is a line without a
// file. After a crash there is thus the old object or the new one, and no file of
// an object that is none: a marked line says which one is still to be removed.
// Several objects at once have marked lines until all their files are there.
// Lines are appended and marked in place rather than the whole rewritten, because
// a token may have 100,000 of them; what was cut off names no object. What is created or
// destroyed at once, by several callers, is written together (crew).
//
// A change of PIN replaces a master key file and NVTOK.DAT. Cut off between the
// two, the new PIN opens the master key but NVTOK.DAT does not know it yet: Login
// recognises that and completes the change.
//
// # The segment
//
// With Config.Shared the token is shared live with stock processes, through a
// segment of shared memory (package shm). Its token data is then the truth and
// NVTOK.DAT a copy; its two lists say which objects exist, and OBJ.IDX which will
// after a restart of the machine. Every section takes over what is new in the
// segment, and leaves its own changes there. In the order of what a crash leaves:
// an object's entry comes last when it is made, and goes after the line and before
// the file when it is destroyed; token data is in the file first. mend brings
// segment, index and directory together again. A stock process that starts copies
// NVTOK.DAT over the segment, and stock processes that write it at once may leave
// the older data there: the next name goes back in neither.
//
// # Others
//
// What others change is heard of through inotify before their system call
// returns. Refresh reads it; so does every section under the lock. A stock
// process may hold NVTOK.DAT empty for a moment, or an object file half written:
// what was read before serves until they are whole again.
package store
