package fs

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"p11fs/p11"
)

// errnos is what each CK_RV is to a person who reads and writes files.
func errnos() map[syscall.Errno]string {
	return map[syscall.Errno]string{
		0:              "OK",
		syscall.EINTR:  "CANCEL FUNCTION_CANCELED",
		syscall.EACCES: "USER_NOT_LOGGED_IN USER_PIN_NOT_INITIALIZED TOKEN_NOT_INITIALIZED OPERATION_NOT_VALIDATED",
		syscall.EPERM: "ATTRIBUTE_READ_ONLY ATTRIBUTE_SENSITIVE ACTION_PROHIBITED KEY_FUNCTION_NOT_PERMITTED KEY_INDIGESTIBLE KEY_NOT_WRAPPABLE " +
			"KEY_UNEXTRACTABLE KEY_EXHAUSTED INFORMATION_SENSITIVE FUNCTION_REJECTED POLICY_VIOLATION",
		syscall.EKEYREJECTED: "PIN_INCORRECT PIN_EXPIRED PIN_LOCKED",
		syscall.EUSERS:       "SESSION_COUNT",
		syscall.EBUSY: "OPERATION_ACTIVE OPERATION_CANCEL_FAILED PENDING SESSION_EXISTS SESSION_READ_ONLY_EXISTS SESSION_READ_WRITE_SO_EXISTS " +
			"USER_ALREADY_LOGGED_IN USER_ANOTHER_ALREADY_LOGGED_IN USER_TOO_MANY_TYPES CRYPTOKI_ALREADY_INITIALIZED",
		syscall.ENODATA: "OPERATION_NOT_INITIALIZED NO_EVENT",
		syscall.EFBIG:   "DATA_LEN_RANGE BUFFER_TOO_SMALL",
		syscall.EINVAL: "ARGUMENTS_BAD ATTRIBUTE_TYPE_INVALID ATTRIBUTE_VALUE_INVALID CURVE_NOT_SUPPORTED DATA_INVALID DOMAIN_PARAMS_INVALID " +
			"ENCRYPTED_DATA_LEN_RANGE KEY_CHANGED KEY_NEEDED KEY_NOT_NEEDED KEY_SIZE_RANGE KEY_TYPE_INCONSISTENT MECHANISM_PARAM_INVALID " +
			"PARAMETER_SET_NOT_SUPPORTED PIN_INVALID PIN_LEN_RANGE PIN_TOO_WEAK PUBLIC_KEY_INVALID SAVED_STATE_INVALID TEMPLATE_INCOMPLETE " +
			"TEMPLATE_INCONSISTENT UNWRAPPING_KEY_SIZE_RANGE UNWRAPPING_KEY_TYPE_INCONSISTENT USER_TYPE_INVALID WRAPPED_KEY_LEN_RANGE " +
			"WRAPPING_KEY_SIZE_RANGE WRAPPING_KEY_TYPE_INCONSISTENT",
		syscall.EBADMSG: "SIGNATURE_INVALID SIGNATURE_LEN_RANGE ENCRYPTED_DATA_INVALID AEAD_DECRYPT_FAILED WRAPPED_KEY_INVALID",
		syscall.EOPNOTSUPP: "FUNCTION_NOT_PARALLEL FUNCTION_NOT_SUPPORTED MECHANISM_INVALID NEED_TO_CREATE_THREADS CANT_LOCK NEW_PIN_MODE NEXT_OTP " +
			"RANDOM_NO_RNG RANDOM_SEED_NOT_SUPPORTED SEED_RANDOM_REQUIRED SESSION_ASYNC_NOT_SUPPORTED SESSION_PARALLEL_NOT_SUPPORTED STATE_UNSAVEABLE",
		syscall.ENODEV:          "DEVICE_REMOVED SLOT_ID_INVALID TOKEN_NOT_PRESENT TOKEN_NOT_RECOGNIZED CRYPTOKI_NOT_INITIALIZED",
		syscall.EDQUOT:          "DEVICE_MEMORY HOST_MEMORY TOKEN_RESOURCE_EXCEEDED",
		syscall.EROFS:           "SESSION_READ_ONLY TOKEN_WRITE_PROTECTED",
		syscall.ENOTRECOVERABLE: "FIPS_SELF_TEST_FAILED",
		syscall.ENOENT: "KEY_HANDLE_INVALID OBJECT_HANDLE_INVALID SESSION_CLOSED SESSION_HANDLE_INVALID UNWRAPPING_KEY_HANDLE_INVALID " +
			"WRAPPING_KEY_HANDLE_INVALID",
		syscall.EIO: "DEVICE_ERROR EXCEEDED_MAX_ITERATIONS FUNCTION_FAILED GENERAL_ERROR LIBRARY_LOAD_FAILED MUTEX_BAD MUTEX_NOT_LOCKED VENDOR_DEFINED",
	}
}

// TestErrnoOfEveryRV walks every value that has a name.
func TestErrnoOfEveryRV(t *testing.T) {
	want := make(map[string]syscall.Errno)
	for errno, names := range errnos() {
		for _, name := range strings.Fields(names) {
			if _, twice := want["CKR_"+name]; twice {
				t.Errorf("%s stands twice in the table of the test", name)
			}
			want["CKR_"+name] = errno
		}
	}
	walked := 0
	walk := func(rv p11.RV) {
		name := rv.String()
		if !strings.HasPrefix(name, "CKR_") {
			if got := errnoOf(rv); got != syscall.EIO {
				t.Errorf("%#x, which has no name, is %v, want EIO", uint64(rv), got)
			}
			return
		}
		walked++
		w, ok := want[name]
		if !ok {
			t.Errorf("nothing is said of %s", name)
		} else if got := errnoOf(rv); got != w {
			t.Errorf("%s is %v, want %v", name, got, w)
		}
		if rv != p11.CKR_OK {
			if got := errnoFor(fmt.Errorf("more: %w", p11.Errorf(rv, "why"))); got != w {
				t.Errorf("a wrapped %s is %v, want %v", name, got, w)
			}
		}
	}
	for rv := p11.RV(0); rv < 0x1000; rv++ {
		walk(rv)
	}
	for rv := p11.RV(0x80000000); rv < 0x80000100; rv++ {
		walk(rv)
	}
	if walked != len(want) {
		t.Errorf("%d values have a name, and %d stand in the table of the test", walked, len(want))
	}
}

func TestErrnoFor(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want syscall.Errno
	}{
		{"nil", nil, 0},
		{"cancelled", context.Canceled, syscall.EINTR},
		{"late", fmt.Errorf("x: %w", context.DeadlineExceeded), syscall.EINTR},
		{"no CK_RV", fmt.Errorf("something"), syscall.EIO},
		{"nobody", errNobody, syscall.EOPNOTSUPP},
		{"nothing", fmt.Errorf("x: %w", errNothing), syscall.ENODATA},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := errnoFor(c.err); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}
