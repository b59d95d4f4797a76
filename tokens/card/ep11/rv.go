package ep11

import (
	"p11fs/p11"
	"p11fs/tokens/card"
)

// The return values that are the cards' own.
const (
	WKIDMismatch      p11.RV = 0x80010001 // the key is one of another wrapping key
	Internal          p11.RV = 0x80010002
	TransportError    p11.RV = 0x80010003 // no card answered
	BlobError         p11.RV = 0x80010004 // no key of this card, or a changed one
	BlobKeyConflict   p11.RV = 0x80010005
	ModeConflict      p11.RV = 0x80010006
	NonCRTKeySize     p11.RV = 0x80010008
	WKNotInitialised  p11.RV = 0x80010009
	OutboundAuthority p11.RV = 0x8001000a
	Timeout           p11.RV = 0x8001000b
	ReadOnly          p11.RV = 0x8001000c
	StaticPolicy      p11.RV = 0x8001000d // what a control point has switched off
	TransportLimit    p11.RV = 0x80010010 // more than the card takes at once
	FCVNotSet         p11.RV = 0x80010011
	PerformanceClass  p11.RV = 0x80010012
	APIMismatch       p11.RV = 0x80010013
	TargetInvalid     p11.RV = 0x80010030 // no such domain
	PQCParameters     p11.RV = 0x80010031
	ParameterError    p11.RV = 0x80010032
	SessionImmutable  p11.RV = 0x80010033
	ErrorState        p11.RV = 0x80010101
)

// words are what messages say of them.
func words(rv p11.RV) string {
	switch rv {
	case WKIDMismatch:
		return "the key belongs to another wrapping key"
	case Internal:
		return "the card has an internal error"
	case TransportError:
		return "no card answered"
	case BlobError:
		return "that is no key of the card"
	case BlobKeyConflict:
		return "the keys do not go together"
	case ModeConflict:
		return "the key is of another mode of the card"
	case NonCRTKeySize:
		return "the key is too long for its form"
	case WKNotInitialised:
		return "the domain has no wrapping key"
	case OutboundAuthority:
		return "the domain has no outbound authority"
	case Timeout:
		return "the card did not answer in time"
	case ReadOnly:
		return "the attribute cannot be changed"
	case StaticPolicy:
		return "a control point of the card forbids it"
	case TransportLimit:
		return "that is more than the card takes at once"
	case TargetInvalid:
		return "there is no such domain"
	case ParameterError:
		return "a parameter is wrong"
	case SessionImmutable:
		return "a key of a login session cannot be changed"
	case ErrorState:
		return "the card is in an error state"
	}
	return ""
}

// refused is the error of a function that returned rv.
func refused(f *card.Function, rv p11.RV) error {
	if w := words(rv); w != "" {
		return p11.Errorf(rv, "%s: %s (%v)", f.Name, w, rv)
	}
	return p11.Errorf(rv, "%s: %v", f.Name, rv)
}
