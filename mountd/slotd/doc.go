// Package slotd is the slot daemon of openCryptoki 3.8 for its stock library:
// the socket that hands out the table of slots, the System V segment with its
// registered processes and session counters, the collection of dead processes,
// and the pid file. A client finds what pkcsslotd would have given it, byte for
// byte.
//
// # The reply
//
// A client sends nothing and gets 925 792 bytes: the number of slots mod 256
// (1 byte, 7 bytes padding), what C_GetInfo returns (88 bytes), and 1024 slots
// of 904 bytes each:
//
//	  0  u64  slot number
//	  8  u8   present
//	 16  64   description, NUL padded
//	 80  32   manufacturer, NUL padded
//	112  u64  flags, 1 for a token that is present
//	120  2    hardware version
//	122  2    firmware version
//	128  256  library, a C string
//	384  256  configuration of the token
//	640  256  name of the token directory, empty for the library's own
//
// # What differs from pkcsslotd
//
// A client that connects and goes away harms nothing; a segment with live
// processes is kept when the daemon starts, and when it stops; its own
// processes' counters go down as well as up; it does not start beside a
// pkcsslotd that runs; and one that starts beside it is refused where the kernel
// lets it, and noticed where not.
package slotd
