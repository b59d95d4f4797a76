package ep11tok

import (
	"encoding/hex"
	"errors"

	"p11fs/p11"
	"p11fs/tokens/card/ep11"
)

// failed makes of a card's return value one that programs know, as openCryptoki 3.27 does,
// but that a card which is gone is CKR_DEVICE_REMOVED. The text, which has the card's, says
// what to do. blob is the key that was used, or nil.
func failed(err error, blob []byte) error {
	if err == nil {
		return nil
	}
	rv := p11.RVOf(err)
	if rv < p11.CKR_VENDOR_DEFINED && rv != p11.CKR_SESSION_CLOSED && rv != p11.CKR_PIN_INCORRECT {
		return err
	}
	known := func(rv p11.RV, advice string) error {
		return p11.Advise(p11.Errorf(rv, "%v", err), advice)
	}
	switch rv {
	case ep11.TransportError:
		return known(p11.CKR_DEVICE_REMOVED, "see that the card is online, and its driver or its socket there")
	case ep11.WKIDMismatch:
		if id := ep11.Blob(blob).WKID(); id != nil {
			err = p11.Errorf(rv, "%v: %s", err, hex.EncodeToString(id))
		}
		return known(p11.CKR_DEVICE_ERROR, "set that wrapping key in the card's domain again, or, if its next one is to stay, run p11fs card reencipher before it is activated")
	case p11.CKR_SESSION_CLOSED, p11.CKR_PIN_INCORRECT: // of the card's: programs would take them for their own
		return known(p11.CKR_DEVICE_ERROR, "log out and in again; a key of a login that has ended is made anew")
	case ep11.WKNotInitialised:
		return known(p11.CKR_DEVICE_ERROR, "have the card's administrator set a wrapping key")
	case ep11.StaticPolicy:
		return known(p11.CKR_KEY_SIZE_RANGE, "take a stronger key or mechanism, or have the card's administrator switch the control point on")
	case ep11.BlobError, ep11.BlobKeyConflict:
		return known(p11.CKR_ENCRYPTED_DATA_INVALID, "import the key anew: it was made by another kind of card, or its object was changed")
	case ep11.ReadOnly, ep11.ModeConflict, ep11.NonCRTKeySize:
		return known(p11.CKR_ARGUMENTS_BAD, "make the key anew with other attributes")
	case ep11.Timeout:
		return known(p11.CKR_FUNCTION_FAILED, "try again")
	case ep11.TransportLimit:
		return known(p11.CKR_FUNCTION_FAILED, "give the data in smaller parts")
	case ep11.TargetInvalid:
		return known(p11.CKR_FUNCTION_FAILED, "mend the adapters and domains in ep11tok.conf")
	}
	return known(p11.CKR_FUNCTION_FAILED, "the card's log says more")
}

// gone says whether an error is that of a card that does not answer.
func gone(err error) bool {
	return errors.Is(err, p11.CKR_DEVICE_REMOVED) || p11.RVOf(err) == ep11.TransportError
}
