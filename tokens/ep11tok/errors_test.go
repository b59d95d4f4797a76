package ep11tok

import (
	"errors"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/card/ep11"
)

// TestFailed has every return value of a card be one that programs know, with the card's in
// the text, and what to do.
func TestFailed(t *testing.T) {
	want := map[p11.RV]p11.RV{
		ep11.WKIDMismatch: p11.CKR_DEVICE_ERROR, ep11.Internal: p11.CKR_FUNCTION_FAILED, ep11.TransportError: p11.CKR_DEVICE_REMOVED,
		ep11.BlobError: p11.CKR_ENCRYPTED_DATA_INVALID, ep11.BlobKeyConflict: p11.CKR_ENCRYPTED_DATA_INVALID,
		ep11.ModeConflict: p11.CKR_ARGUMENTS_BAD, ep11.NonCRTKeySize: p11.CKR_ARGUMENTS_BAD, ep11.ReadOnly: p11.CKR_ARGUMENTS_BAD,
		ep11.WKNotInitialised: p11.CKR_DEVICE_ERROR, ep11.StaticPolicy: p11.CKR_KEY_SIZE_RANGE,
		ep11.OutboundAuthority: p11.CKR_FUNCTION_FAILED, ep11.Timeout: p11.CKR_FUNCTION_FAILED, ep11.TransportLimit: p11.CKR_FUNCTION_FAILED,
		ep11.TargetInvalid: p11.CKR_FUNCTION_FAILED, ep11.ErrorState: p11.CKR_FUNCTION_FAILED, 0x8001ffff: p11.CKR_FUNCTION_FAILED,
	}
	for rv, known := range want {
		err := failed(p11.Errorf(rv, "m_Sign: said %v", rv), nil)
		if p11.RVOf(err) != known || !strings.Contains(err.Error(), rv.Error()) || p11.AdviceOf(err) == "" || p11.AdviceOf(err) == known.Advice() {
			t.Errorf("%v is %v: %v (%s)", rv, p11.RVOf(err), err, p11.AdviceOf(err))
		}
	}
	for _, rv := range []p11.RV{p11.CKR_SIGNATURE_INVALID, p11.CKR_KEY_SIZE_RANGE, p11.CKR_DEVICE_REMOVED} {
		one := p11.Errorf(rv, "said")
		if err := failed(one, nil); !errors.Is(err, one) {
			t.Errorf("%v is %v", rv, err)
		}
	}
	blob := make([]byte, 256)
	copy(blob[32:], unhex("5c0a65c5024e0506e89874f554b719de"))
	if err := failed(p11.Errorf(ep11.WKIDMismatch, "m_Sign"), blob); !strings.Contains(err.Error(), "5c0a65c5024e0506e89874f554b719de") {
		t.Errorf("%v does not name the wrapping key", err)
	}
	if failed(nil, blob) != nil {
		t.Error("nothing failed")
	}
}
