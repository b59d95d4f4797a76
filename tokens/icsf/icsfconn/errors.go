package icsfconn

import (
	"p11fs/p11"
	"p11fs/tokens/icsf/icsfwire"
)

// resultError is the error of the result of an extended operation.
func resultError(r icsfwire.Result) error {
	switch r.Code {
	case icsfwire.Success:
		return nil
	case icsfwire.InsufficientAccess:
		return p11.Errorf(p11.CKR_FUNCTION_REJECTED, "the server lets the user of BINDDN not use ICSF: %s", r.Text)
	case icsfwire.ProtocolError, icsfwire.UnavailableExtension:
		return p11.Errorf(p11.CKR_FUNCTION_NOT_SUPPORTED, "the server has not the services of ICSF: %s", r.Text)
	case icsfwire.Busy, icsfwire.Unavailable:
		return errBusy
	}
	return p11.Errorf(p11.CKR_DEVICE_ERROR, "the server refused with the result %d %s", r.Code, r.Text)
}

// errBusy is that of a server that may do it later.
var errBusy = p11.Errorf(p11.CKR_DEVICE_ERROR, "the server is busy, and was so when it was asked again")

// The return codes of ICSF.
const (
	returnSuccess = 0
	returnPartial = 4
	returnError   = 8
)

// serviceError is the error of a service's return code and reason code.
func serviceError(s icsfwire.Service, ret, reason int) error {
	if ret == returnSuccess {
		return nil
	}
	rv := p11.CKR_FUNCTION_FAILED
	switch ret {
	case returnPartial:
		if reason == 8000 || reason == 11000 {
			rv = p11.CKR_SIGNATURE_INVALID
		}
	case returnError:
		if known, ok := reasons()[reason]; ok {
			rv = known
		}
		if notKey := s == icsfwire.GAV || s == icsfwire.SAV || s == icsfwire.TRC || s == icsfwire.TRD; reason == 3043 && notKey {
			rv = p11.CKR_OBJECT_HANDLE_INVALID
		}
	default:
		rv = p11.CKR_DEVICE_ERROR
	}
	err := p11.Errorf(rv, "ICSF's service %s gives the return code %d and the reason code %d", s, ret, reason)
	switch rv {
	case p11.CKR_TOKEN_NOT_PRESENT:
		return p11.Advise(err, "the server has no such token: p11fs init icsf --list shows those that it has, and TOKEN_NAME in the configuration is this one")
	case p11.CKR_FUNCTION_REJECTED:
		return p11.Advise(err, "the security manager of the server lets the user not do this: have its administrator permit the profiles of the classes CRYPTOZ and CSFSERV")
	}
	return err
}

// reasons are the CK_RV of the reason codes that come with returnError.
func reasons() map[int]p11.RV {
	return map[int]p11.RV{
		72: p11.CKR_DATA_LEN_RANGE, 11000: p11.CKR_DATA_LEN_RANGE,
		2028: p11.CKR_WRAPPED_KEY_INVALID,
		2154: p11.CKR_KEY_TYPE_INCONSISTENT, 3039: p11.CKR_KEY_TYPE_INCONSISTENT,
		3003: p11.CKR_BUFFER_TOO_SMALL,
		3019: p11.CKR_TOKEN_NOT_PRESENT, 3027: p11.CKR_TOKEN_NOT_PRESENT, // the token is gone
		3029: p11.CKR_ATTRIBUTE_TYPE_INVALID, 3030: p11.CKR_ATTRIBUTE_VALUE_INVALID,
		3033: p11.CKR_TEMPLATE_INCOMPLETE,
		3034: p11.CKR_ATTRIBUTE_READ_ONLY, 3035: p11.CKR_ATTRIBUTE_READ_ONLY,
		3038: p11.CKR_KEY_FUNCTION_NOT_PERMITTED,
		3041: p11.CKR_KEY_NOT_WRAPPABLE,
		3043: p11.CKR_KEY_HANDLE_INVALID,
		3045: p11.CKR_KEY_UNEXTRACTABLE,
		3063: p11.CKR_FUNCTION_REJECTED, 16000: p11.CKR_FUNCTION_REJECTED, // the security manager
		11028: p11.CKR_SIGNATURE_INVALID,
	}
}
