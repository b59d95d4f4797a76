package tpm20

import (
	"context"
	"errors"

	"github.com/google/go-tpm/tpm2"

	"p11fs/p11"
)

// Errors that callers tell apart.
var (
	// ErrOther says that the storage key is another one: the token was made with another
	// TPM, or the TPM was cleared.
	ErrOther = p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED, "made with another TPM, or the TPM was cleared since: what is under its keys is lost")
	// ErrWrongAuth says that a PIN is wrong.
	ErrWrongAuth = p11.Errorf(p11.CKR_PIN_INCORRECT, "the TPM does not accept the PIN")
	// ErrLocked says that the TPM, or an index, looks at no PIN any more.
	ErrLocked = p11.Errorf(p11.CKR_PIN_LOCKED, "the TPM looks at no PIN now")
	// ErrVersion says that a TPM is a 1.2.
	ErrVersion = p11.Errorf(p11.CKR_FUNCTION_NOT_SUPPORTED, "the TPM is of version 1.2, not 2.0")
)

// code returns the response code of a TPM, without the number of the parameter, handle or
// session that it names (TPM 2.0 Library, Part 2, §6.6).
func code(err error) (rc tpm2.TPMRC, ok bool) {
	if !errors.As(err, &rc) {
		return 0, false
	}
	if rc&rcFormat1 != 0 {
		rc &= rcFormat1 | 0x3f
	}
	return rc, true
}

// The codes that mean something here.
const (
	rcFormat1 tpm2.TPMRC = 0x080

	rcInitialize  tpm2.TPMRC = 0x100
	rcFailure     tpm2.TPMRC = 0x101
	rcDisabled    tpm2.TPMRC = 0x120
	rcUnavailable tpm2.TPMRC = 0x12f
	rcCommand     tpm2.TPMRC = 0x143
	rcAttributes  tpm2.TPMRC = 0x082
	rcHash        tpm2.TPMRC = 0x083
	rcValue       tpm2.TPMRC = 0x084
	rcKeySize     tpm2.TPMRC = 0x087
	rcHandle      tpm2.TPMRC = 0x08b
	rcAuthFail    tpm2.TPMRC = 0x08e
	rcRange       tpm2.TPMRC = 0x08d
	rcScheme      tpm2.TPMRC = 0x092
	rcSize        tpm2.TPMRC = 0x095
	rcSymmetric   tpm2.TPMRC = 0x096
	rcIntegrity   tpm2.TPMRC = 0x09f
	rcBadAuth     tpm2.TPMRC = 0x0a2
	rcCurve       tpm2.TPMRC = 0x0a6
	rcPoint       tpm2.TPMRC = 0x0a7
	rcKey         tpm2.TPMRC = 0x09c
	rcBinding     tpm2.TPMRC = 0x0a5

	rcObjectMemory   tpm2.TPMRC = 0x902
	rcSessionMemory  tpm2.TPMRC = 0x903
	rcMemory         tpm2.TPMRC = 0x904
	rcSessionHandles tpm2.TPMRC = 0x905
	rcObjectHandles  tpm2.TPMRC = 0x906
	rcYielded        tpm2.TPMRC = 0x908
	rcTesting        tpm2.TPMRC = 0x90a
	rcReferenceH0    tpm2.TPMRC = 0x910
	rcReferenceS6    tpm2.TPMRC = 0x91e
	rcNVRate         tpm2.TPMRC = 0x920
	rcLockout        tpm2.TPMRC = 0x921
	rcRetry          tpm2.TPMRC = 0x922
	rcNVUnavailable  tpm2.TPMRC = 0x923
	rcNVSpace        tpm2.TPMRC = 0x14b
)

// again says whether the same command is to be sent again in a moment.
func again(rc tpm2.TPMRC) bool {
	return rc == rcRetry || rc == rcYielded || rc == rcTesting || rc == rcNVRate || rc == rcNVUnavailable
}

// outOfRoom says whether the TPM has no room for another object or session.
func outOfRoom(rc tpm2.TPMRC) bool {
	return rc == rcObjectMemory || rc == rcObjectHandles || rc == rcSessionMemory || rc == rcSessionHandles || rc == rcMemory
}

// forgotten says whether a handle is that of nothing: others flushed it, or the TPM has
// started again.
func forgotten(rc tpm2.TPMRC) bool {
	return rc >= rcReferenceH0 && rc <= rcReferenceS6 || rc == rcHandle
}

// translate gives the error of a TPM the return value of PKCS#11 that it means where
// nothing more is known of what was asked. What has one keeps it.
func translate(err error) error {
	var rv p11.RV
	if err == nil || errors.As(err, &rv) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	rc, ok := code(err)
	if !ok {
		// What go-tpm cannot read, or whose HMAC is wrong.
		return p11.Errorf(p11.CKR_DEVICE_ERROR, "the TPM's answer makes no sense: %v", err)
	}
	if rv, ok = meanings()[rc]; !ok {
		rv = p11.CKR_DEVICE_ERROR
	}
	return p11.Errorf(rv, "the TPM says %w", err)
}

// meanings are the return values of response codes; the others mean CKR_DEVICE_ERROR.
func meanings() map[tpm2.TPMRC]p11.RV {
	return map[tpm2.TPMRC]p11.RV{
		rcAuthFail: p11.CKR_FUNCTION_FAILED, rcBadAuth: p11.CKR_FUNCTION_FAILED,
		rcLockout: p11.CKR_PIN_LOCKED, rcUnavailable: p11.CKR_PIN_LOCKED,
		rcObjectMemory: p11.CKR_DEVICE_MEMORY, rcSessionMemory: p11.CKR_DEVICE_MEMORY, rcMemory: p11.CKR_DEVICE_MEMORY,
		rcSessionHandles: p11.CKR_DEVICE_MEMORY, rcObjectHandles: p11.CKR_DEVICE_MEMORY, rcNVSpace: p11.CKR_DEVICE_MEMORY,
		rcScheme: p11.CKR_MECHANISM_INVALID, rcHash: p11.CKR_MECHANISM_INVALID,
		rcCurve: p11.CKR_CURVE_NOT_SUPPORTED, rcPoint: p11.CKR_MECHANISM_PARAM_INVALID,
		rcKeySize: p11.CKR_KEY_SIZE_RANGE, rcDisabled: p11.CKR_FUNCTION_NOT_SUPPORTED, rcCommand: p11.CKR_FUNCTION_NOT_SUPPORTED,
	}
}

// meaning is translate for a call in which some codes mean something else.
func meaning(err error, here map[tpm2.TPMRC]error) error {
	if rc, ok := code(err); ok {
		if other := here[rc]; other != nil {
			return other
		}
	}
	return translate(err)
}
