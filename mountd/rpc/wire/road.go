package wire

import "encoding/binary"

// A road is memory that the server shares with one connection of our own protocol: a page
// of words, then slots for a call each, short ones first. docs/rpc.md has it to the byte.
// All numbers in it are u32 in the order of bytes of the machine, 0 at first but for the mark.
const (
	RoadPending = 0   // offset of a bit for each slot that has a request nobody has taken up
	RoadLooking = 64  // offset of how many look there, or soon will; 0: a nudge is needed
	RoadOrder   = 128 // offset of RoadMark, in the server's order of bytes

	RoadHead      = 4 << 10 // offset of the first slot
	RoadShort     = 28      // number of short slots
	RoadShortSize = 2 << 10 // bytes
	RoadLong      = 4       // number of long ones behind them
	RoadLongSize  = 72 << 10
	RoadSlots     = RoadShort + RoadLong
	RoadSize      = RoadHead + RoadShort*RoadShortSize + RoadLong*RoadLongSize

	// Offsets in a slot.
	RoadState  = 0
	RoadLength = 4  // of the body, in bytes
	RoadBody   = 64 // of a frame without its header
)

// RoadMark is what the server writes before it gives the memory away. A client that reads
// something else there has another order of bytes, and leaves the road alone.
const RoadMark = 0x01020304

// States of a slot.
const (
	RoadFree     = 0
	RoadAsked    = 1 // the body is a request
	RoadAnswered = 2 // the body is the reply
	RoadBySocket = 3 // as RoadAsked, but the client no longer looks: the reply goes by the socket
)

// Codes of frames on the socket.
const (
	RoadNudge = 1       // from the client, without a body: look at RoadPending
	RoadCode  = 1 << 31 // and the number of the slot: the reply to the request there
)

// RoadSlot returns where slot i, of RoadSlots, begins and how many bytes of body it takes.
func RoadSlot(i int) (offset, body int) {
	if i < RoadShort {
		return RoadHead + i*RoadShortSize, RoadShortSize - RoadBody
	}
	return RoadHead + RoadShort*RoadShortSize + (i-RoadShort)*RoadLongSize, RoadLongSize - RoadBody
}

// FrameBody returns the body of a frame that EndFrame made.
func FrameBody(b []byte) []byte {
	return b[FrameHeader+binary.BigEndian.Uint32(b[4:]):]
}
