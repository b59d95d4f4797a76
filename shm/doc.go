// Package shm holds typed views of the memory that openCryptoki 3.8 processes
// share: one System V segment between the slot daemon and every process that
// loads the library, and one POSIX segment per token.
//
// Both segments are file formats: the offsets below are pinned by a test
// against dumps of the stock programs. All integers have the machine's own byte
// order. The other side may be hostile, or may have died half-way: every number
// is copied out once and checked before it is used, and no count reaches beyond
// the mapping.
//
// The package locks nothing. Callers hold the API lock around each use of a
// SlotManager and the token's lock around each use of a TokenSegment; package
// locks says in which order.
//
// # The slot manager's segment
//
// Key ftok("/usr/sbin/pkcsslotd", 'b'), 4 124 096 bytes, mode 0660, root:pkcs11.
//
//	   0  1024 × u32   open sessions per slot, over all processes
//	4096  1000 × 4120  process table
//
// A process:
//
//	   0  u8   in use, 0 or 1
//	   4  i32  process id
//	   8  u32  slot event map, 0
//	  12  u8   blocking, 0
//	  13  u8   error, 0
//	  16  1024 × u32  sessions of this process per slot
//	4112  i64  time of registration, Unix seconds
//
// # A token's segment
//
// /dev/shm/var.lib.opencryptoki.swtok and its like, 82 428 bytes.
//
//	    0  i32   reference count
//	    4  256   name with its leading "/", NUL padded
//	  260  i32   length of what follows the header, 82 164
//	  264  232   token data, the bytes of NVTOK.DAT
//	  496  u32   number of private token objects
//	  500  u32   number of public token objects
//	  504  u8    private list loaded
//	  505  u8    public list loaded
//	  508  2048 × 20  public entries
//	41468  2048 × 20  private entries
//
// An entry:
//
//	 0  u8   deleted, always 0
//	 1  8    object name
//	 9  3    padding
//	12  u32  change counter, low word
//	16  u32  change counter, high word
//
// openCryptoki 3.12 and later have another segment under the same name, which Lists312 reads
// to tell what their programs see: 592 bytes of token data, and with them the counts at 856
// and the entries from 868 on. Entries of 3.27 have no padding, and no byte in front.
package shm
