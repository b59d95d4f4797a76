package ep11

import (
	"context"
	"encoding/binary"

	"p11fs/p11"
	"p11fs/tokens/card"
)

// What GetXcpInfo can be asked.
const (
	QueryHost         = 0xff000001 // u32: the library's version
	QueryModule       = 1
	QueryDomain       = 3
	QueryExtended     = 5 // u32: how many extended capabilities there are
	QueryExtendedList = 6
	QueryPQC          = 14
)

// A ModuleInfo says what a card is (CK_IBM_XCP_INFO).
type ModuleInfo struct {
	API, Firmware     uint64
	FirmwareVersion   [2]byte
	CSPVersion        [2]byte
	FirmwareHash      [32]byte
	CSPHash           [32]byte
	CombinedHash      [32]byte
	Serial            [16]byte
	Time              [16]byte // UTC, YYYYMMDDhhmmsscc
	OpMode2, OpMode1  uint64
	Flags, ExtFlags   uint64
	Domains           uint64
	SymmetricState    uint64 // sizes, in bytes
	DigestState       uint64
	PINBlob           uint64
	SymmetricKey      uint64
	SPKI, PrivateKey  uint64
	MaxPayload        uint64
	ControlPointBytes uint64
	ControlPoints     uint64
}

// A DomainInfo says which wrapping keys a domain has (CK_IBM_DOMAIN_INFO).
type DomainInfo struct {
	Domain   uint64
	WK, Next [32]byte // verification patterns; WKIDLen bytes of it are the WKID
	Flags    uint64
	Mode     [8]byte
}

// The flags of a domain.
const (
	DomainAdministrators = 1 << iota
	DomainWK             // there is a wrapping key
	DomainNext           // and a next one
	DomainNextCommitted  // which may become the current one
	DomainImprinted
	DomainProtectedKeys
)

// Module asks a card what it is.
func Module(ctx context.Context, via card.Transport, target card.Target) (m ModuleInfo, err error) {
	return m, query(ctx, via, target, QueryModule, &m)
}

// Domain asks a domain for its wrapping keys.
func Domain(ctx context.Context, via card.Transport, target card.Target) (d DomainInfo, err error) {
	return d, query(ctx, via, target, QueryDomain, &d)
}

func query(ctx context.Context, via card.Transport, target card.Target, what uint64, v any) error {
	b, err := GetXcpInfo(ctx, via, target, what, 0)
	if err != nil {
		return err
	}
	return unpack(b, card.NativeOrder(), v)
}

// unpack reads a C structure of which only the numbers are longer than a byte.
func unpack(b []byte, order binary.ByteOrder, v any) error {
	want := len(Pack(order, v))
	if len(b) < want {
		return p11.Errorf(Internal, "the card tells %d bytes of itself, not %d", len(b), want)
	}
	n, err := binary.Decode(unpad(b, v), order, v)
	if err != nil || n == 0 {
		return p11.Errorf(Internal, "what the card tells of itself: %w", err)
	}
	return nil
}

// The padding of a ModuleInfo: the versions and hashes take 100 bytes, and the number
// behind them stands at a multiple of 8.
const modulePad, modulePadAt = 4, 2*8 + 2 + 2 + 3*32 + 16 + 16

func padding(v any) int {
	if _, ok := v.(*ModuleInfo); ok {
		return modulePad
	}
	return 0
}

func unpad(b []byte, v any) []byte {
	if n := padding(v); n > 0 {
		return append(append([]byte{}, b[:modulePadAt]...), b[modulePadAt+n:]...)
	}
	return b
}

// Pack writes a *ModuleInfo or *DomainInfo as the C structure of a machine of that order.
func Pack(order binary.ByteOrder, v any) []byte {
	b, err := binary.Append(nil, order, v)
	if err != nil {
		panic("ep11: " + err.Error())
	}
	if n := padding(v); n > 0 {
		b = append(append(append([]byte{}, b[:modulePadAt]...), make([]byte, n)...), b[modulePadAt:]...)
	}
	return b
}
