// Package card carries calls to cards that keep keys: the Crypto Express cards of IBM Z in
// EP11 and in CCA mode, and the software cards beside them (tokens/card/soft).
//
// A card is reached through a vendor's library, whose functions take numbers, bytes,
// mechanisms and templates, and give bytes. A Call is one such call, a Transport whatever
// brings it to a card and its answer back:
//
//   - a software card is one itself,
//   - hostlib.Load makes one of a vendor's library,
//   - Dial is one to a socket at which a Server answers for another, in this process or on
//     a machine of another byte order under qemu.
//
// So who uses a card knows none of them. The functions of an ABI stand in table.txt, one
// line each; of these are made the tables here, and in a package for each ABI (ep11) a Go
// function for each, and the interface of who answers.
//
// # Another ABI
//
// A second ABI is a section of table.txt: a line "abi NAME NUMBER PREFIX", and a line for
// each function. Then a folder NAME with a doc.go, "go generate" here, and NAME.Calls
// functions and a NAME.Card are there; a software card implements NAME.Card and answers
// calls by NAME.Answer; Server and Dial take it by its number, card.NAME in capitals. A
// function whose arguments are none of the kinds that there are is given one in gen, in
// Kind and in the two functions of frame.go that read and write it.
//
// # Frames
//
// All numbers are big-endian, since a program may be one of another machine's under qemu.
// Each frame is a u32 length of what follows, at most MaxFrame bytes.
//
// The first frame of a connection is the program's:
//
//	8  magic, "p11fscrd"
//	2  version, 2
//	1  ABI
//	1  the program's byte order: 0 big-endian, 1 little-endian
//	4  process
//
// and the answer to it one without outputs, whose return value is not 0 if the server has
// no such card. Then come requests and answers in turn:
//
//	request   u32 function · target · arguments
//	target    u32 count, each u16 adapter and u16 domain; none is any
//	answer    u64 return value · outputs, which a call that failed may be without
//
// The arguments, and the outputs of those that have one:
//
//	number      u64
//	counter     u64                                  → u64
//	bytes       u32 length, 0xffffffff for NULL; data
//	output      u64 room, u8 whether it is wanted    → u64 length, bytes
//	inout       bytes, u64 room                      → u64 length, bytes
//	numbers     u64 room, u8 whether it is wanted    → u64 length, u32 count, u64 each
//	mechanism   as libp11fs.so sends it: u32 type, u8 presence (0 no parameter, 1 one, 2
//	            NULL), u8 layout and the fields of the parameter (docs/rpc.md)
//	attributes  u32 count, each u64 type, bytes; a CK_ULONG as 8 bytes, big-endian
//	wanted      u32 count, each u64 type, u64 room, u8 whether it is wanted
//	                                                 → each u64 length, bytes
//
// What a card itself makes of bytes (keys, states, what it tells of itself) has the numbers
// in it in the program's order, as a card of the same machine would.
package card

//go:generate go run ./gen
