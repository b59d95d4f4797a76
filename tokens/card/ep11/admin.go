package ep11

import (
	"context"
	"encoding/binary"

	"p11fs/p11"
	"p11fs/tokens/card"
)

// The commands of Admin that are served; those above QueryBase ask.
const (
	CommandReencrypt     = 25 // payload a blob: the same key under the next wrapping key
	QueryBase            = 0x10000
	CommandControlPoints = QueryBase + 6 // 16 bytes of bits, point 0 the highest
)

// A command is a header of fixed length, all big-endian, and a payload:
//
//	u32 command · u32 domain · u32 instance · 16 module · 16 transaction counter
//
// and an answer is u32 command · u64 CK_RV · payload. Blocks are taken apart by none but who
// makes them: xcpa_cmdblock and xcpa_internal_rv of the same library.
const (
	commandHeader = 4 + 4 + 4 + 16 + 16
	answerHeader  = 4 + 8
)

// Command makes the block of a command.
func Command(command uint32, domain uint32, payload []byte) []byte {
	b := make([]byte, commandHeader, commandHeader+len(payload))
	binary.BigEndian.PutUint32(b, command)
	binary.BigEndian.PutUint32(b[4:], domain)
	return append(b, payload...)
}

// ReadCommand takes a block apart; the payload lies in it.
func ReadCommand(b []byte) (command uint32, payload []byte, err error) {
	if len(b) < commandHeader {
		return 0, nil, p11.CKR_ARGUMENTS_BAD
	}
	return binary.BigEndian.Uint32(b), b[commandHeader:], nil
}

// CommandDomain is the domain that a command is for, of a block that ReadCommand takes apart.
func CommandDomain(b []byte) uint32 { return binary.BigEndian.Uint32(b[4:]) }

// CommandAnswer makes the answer to a command.
func CommandAnswer(command uint32, rv p11.RV, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, command)
	return append(binary.BigEndian.AppendUint64(b, uint64(rv)), payload...)
}

// ReadCommandAnswer takes an answer apart; the payload lies in it.
func ReadCommandAnswer(command uint32, b []byte) (payload []byte, err error) {
	if len(b) < answerHeader || binary.BigEndian.Uint32(b) != command {
		return nil, p11.Errorf(Internal, "m_admin: no answer to command %#x", command)
	}
	if rv := p11.RV(binary.BigEndian.Uint64(b[4:])); rv != p11.CKR_OK {
		return nil, refused(card.FunctionOf(card.EP11, FnAdmin), rv)
	}
	return b[answerHeader:], nil
}

// run makes an administrator's command and returns the payload of its answer.
func run(ctx context.Context, via card.Transport, target card.Target, command uint32, payload []byte) ([]byte, error) {
	domain := uint32(0)
	if len(target) > 0 {
		domain = uint32(target[0].Domain)
	}
	answer, _, err := Admin(ctx, via, target, Command(command, domain, payload), nil)
	if err != nil {
		return nil, err
	}
	return ReadCommandAnswer(command, answer)
}

// Reencrypt returns blob under the domain's next wrapping key, which must be committed
// (DomainNextCommitted) and is not in use yet.
func Reencrypt(ctx context.Context, via card.Transport, target card.Target, blob Blob) (Blob, error) {
	return run(ctx, via, target, CommandReencrypt, blob)
}

// ControlPoints returns the control points of a domain: which kinds of use it allows.
func ControlPoints(ctx context.Context, via card.Transport, target card.Target) (points [ControlPointBytes]byte, err error) {
	b, err := run(ctx, via, target, CommandControlPoints, nil)
	if err == nil && len(b) != len(points) {
		err = p11.Errorf(Internal, "m_admin: %d bytes of control points, not %d", len(b), len(points))
	}
	copy(points[:], b)
	return points, err
}
