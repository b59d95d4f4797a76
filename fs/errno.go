package fs

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"p11fs/engine"
	"p11fs/p11"
)

// errnoOf is the one table from CK_RV to errno; docs/tree.md says what each errno
// means. A value that is not listed, a vendor's or a later standard's, is EIO.
func errnoOf(rv p11.RV) syscall.Errno {
	switch rv {
	case p11.CKR_OK:
		return 0
	case p11.CKR_CANCEL, p11.CKR_FUNCTION_CANCELED:
		return syscall.EINTR
	case p11.CKR_USER_NOT_LOGGED_IN, p11.CKR_USER_PIN_NOT_INITIALIZED, p11.CKR_TOKEN_NOT_INITIALIZED,
		p11.CKR_OPERATION_NOT_VALIDATED:
		return syscall.EACCES
	case p11.CKR_ATTRIBUTE_READ_ONLY, p11.CKR_ATTRIBUTE_SENSITIVE, p11.CKR_ACTION_PROHIBITED,
		p11.CKR_KEY_FUNCTION_NOT_PERMITTED, p11.CKR_KEY_INDIGESTIBLE, p11.CKR_KEY_NOT_WRAPPABLE,
		p11.CKR_KEY_UNEXTRACTABLE, p11.CKR_KEY_EXHAUSTED, p11.CKR_INFORMATION_SENSITIVE, p11.CKR_FUNCTION_REJECTED,
		p11.CKR_POLICY_VIOLATION:
		return syscall.EPERM
	case p11.CKR_PIN_INCORRECT, p11.CKR_PIN_EXPIRED, p11.CKR_PIN_LOCKED:
		return syscall.EKEYREJECTED
	case p11.CKR_SESSION_COUNT:
		return syscall.EUSERS
	case p11.CKR_OPERATION_ACTIVE, p11.CKR_OPERATION_CANCEL_FAILED, p11.CKR_PENDING, p11.CKR_SESSION_EXISTS,
		p11.CKR_SESSION_READ_ONLY_EXISTS, p11.CKR_SESSION_READ_WRITE_SO_EXISTS, p11.CKR_USER_ALREADY_LOGGED_IN,
		p11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN, p11.CKR_USER_TOO_MANY_TYPES, p11.CKR_CRYPTOKI_ALREADY_INITIALIZED:
		return syscall.EBUSY
	case p11.CKR_OPERATION_NOT_INITIALIZED, p11.CKR_NO_EVENT:
		return syscall.ENODATA
	case p11.CKR_DATA_LEN_RANGE, p11.CKR_BUFFER_TOO_SMALL:
		return syscall.EFBIG
	case p11.CKR_ARGUMENTS_BAD, p11.CKR_ATTRIBUTE_TYPE_INVALID, p11.CKR_ATTRIBUTE_VALUE_INVALID,
		p11.CKR_CURVE_NOT_SUPPORTED, p11.CKR_DATA_INVALID, p11.CKR_DOMAIN_PARAMS_INVALID,
		p11.CKR_ENCRYPTED_DATA_LEN_RANGE, p11.CKR_KEY_CHANGED, p11.CKR_KEY_NEEDED, p11.CKR_KEY_NOT_NEEDED,
		p11.CKR_KEY_SIZE_RANGE, p11.CKR_KEY_TYPE_INCONSISTENT, p11.CKR_MECHANISM_PARAM_INVALID,
		p11.CKR_PARAMETER_SET_NOT_SUPPORTED, p11.CKR_PIN_INVALID, p11.CKR_PIN_LEN_RANGE, p11.CKR_PIN_TOO_WEAK,
		p11.CKR_PUBLIC_KEY_INVALID, p11.CKR_SAVED_STATE_INVALID, p11.CKR_TEMPLATE_INCOMPLETE,
		p11.CKR_TEMPLATE_INCONSISTENT, p11.CKR_UNWRAPPING_KEY_SIZE_RANGE, p11.CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT,
		p11.CKR_USER_TYPE_INVALID, p11.CKR_WRAPPED_KEY_LEN_RANGE, p11.CKR_WRAPPING_KEY_SIZE_RANGE,
		p11.CKR_WRAPPING_KEY_TYPE_INCONSISTENT:
		return syscall.EINVAL
	case p11.CKR_SIGNATURE_INVALID, p11.CKR_SIGNATURE_LEN_RANGE, p11.CKR_ENCRYPTED_DATA_INVALID,
		p11.CKR_AEAD_DECRYPT_FAILED, p11.CKR_WRAPPED_KEY_INVALID:
		return syscall.EBADMSG
	case p11.CKR_FUNCTION_NOT_PARALLEL, p11.CKR_FUNCTION_NOT_SUPPORTED, p11.CKR_MECHANISM_INVALID,
		p11.CKR_NEED_TO_CREATE_THREADS, p11.CKR_CANT_LOCK, p11.CKR_NEW_PIN_MODE, p11.CKR_NEXT_OTP,
		p11.CKR_RANDOM_NO_RNG, p11.CKR_RANDOM_SEED_NOT_SUPPORTED, p11.CKR_SEED_RANDOM_REQUIRED,
		p11.CKR_SESSION_ASYNC_NOT_SUPPORTED, p11.CKR_SESSION_PARALLEL_NOT_SUPPORTED, p11.CKR_STATE_UNSAVEABLE:
		return syscall.EOPNOTSUPP
	case p11.CKR_DEVICE_REMOVED, p11.CKR_SLOT_ID_INVALID, p11.CKR_TOKEN_NOT_PRESENT, p11.CKR_TOKEN_NOT_RECOGNIZED,
		p11.CKR_CRYPTOKI_NOT_INITIALIZED:
		return syscall.ENODEV
	case p11.CKR_DEVICE_MEMORY, p11.CKR_HOST_MEMORY, p11.CKR_TOKEN_RESOURCE_EXCEEDED:
		return syscall.EDQUOT
	case p11.CKR_SESSION_READ_ONLY, p11.CKR_TOKEN_WRITE_PROTECTED:
		return syscall.EROFS
	case p11.CKR_FIPS_SELF_TEST_FAILED:
		return syscall.ENOTRECOVERABLE
	case p11.CKR_KEY_HANDLE_INVALID, p11.CKR_OBJECT_HANDLE_INVALID, p11.CKR_SESSION_CLOSED,
		p11.CKR_SESSION_HANDLE_INVALID, p11.CKR_UNWRAPPING_KEY_HANDLE_INVALID, p11.CKR_WRAPPING_KEY_HANDLE_INVALID:
		return syscall.ENOENT
	}
	return syscall.EIO
}

// errnoFor is the errno of an error from below.
func errnoFor(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	var own *fileError
	var limit *engine.LimitError
	switch {
	case errors.As(err, &own):
		return own.errno
	case errors.As(err, &limit) && limit.What != "sessions":
		return syscall.EDQUOT
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return syscall.EINTR
	case errors.Is(err, syscall.ENOSPC): // the disk, or a list that stock processes share
		return syscall.ENOSPC
	}
	return errnoOf(p11.RVOf(err))
}

// A fileError is a refusal of the tree itself whose errno is not that of its
// CK_RV in the table: PKCS#11 has no files.
type fileError struct {
	errno syscall.Errno
	rv    p11.RV
	why   string
}

func (e *fileError) Error() string { return e.why }

// Unwrap returns the CK_RV.
func (e *fileError) Unwrap() error { return e.rv }

func refuse(errno syscall.Errno, rv p11.RV, why string) error {
	return &fileError{errno: errno, rv: rv, why: why}
}

// Refusals of the tree.
var (
	errNobody = refuse(syscall.EOPNOTSUPP, p11.CKR_FUNCTION_NOT_SUPPORTED,
		"the caller's session is unknown here (its process is in another PID namespace, or its session leader has exited): start a session of your own with setsid, where p11fs runs")
	errNothing        = refuse(syscall.ENODATA, p11.CKR_OPERATION_NOT_INITIALIZED, "nothing was written in this session, or its result was read already, or it waited for more than a minute: write first, then read once")
	errNotYet         = refuse(syscall.EAGAIN, p11.CKR_PENDING, "there is no output yet: write more, or end the message with fsync")
	errOrder          = refuse(syscall.EINVAL, p11.CKR_ARGUMENTS_BAD, "the data does not follow what was written before: write from the start to the end, without gaps and rewinds")
	errTruncate       = refuse(syscall.EINVAL, p11.CKR_ARGUMENTS_BAD, "the file can be cut to length 0 only, which starts a new message: write the whole anew")
	errOnce           = refuse(syscall.EINVAL, p11.CKR_ARGUMENTS_BAD, "one command an open: close the file, and open it again for the next")
	errNewerOpen      = refuse(syscall.EBUSY, p11.CKR_OPERATION_ACTIVE, "another open of the file for writing, in the same session, came in between: make a session directory for each script that runs in parallel")
	errHeld           = refuse(syscall.EFBIG, p11.CKR_DATA_LEN_RANGE, "more output than a session may hold: open the file for reading and writing at once, and have another process read what this one writes (exec 3<>FILE; cat IN >&3 & cat <&3 >OUT); AES-GCM takes no more in one message, so encrypt by encrypt:stream")
	errHeldUser       = refuse(syscall.EDQUOT, p11.CKR_HOST_MEMORY, "more output than a user may have waiting in all sessions: read it, or write cancel to ctl")
	errKilled         = refuse(syscall.EIO, p11.CKR_FUNCTION_FAILED, "who wrote the file was killed, and half of it is not stored: write the whole anew")
	errTooLong        = refuse(syscall.EFBIG, p11.CKR_DATA_LEN_RANGE, "more bytes than this file takes: write less; p11fs-tree(7) has the bound")
	errUnread         = refuse(syscall.EINVAL, p11.CKR_ARGUMENTS_BAD, "the result of the message before was read in part: read the rest of it, or cut the file to length 0, before the next message begins")
	errSameIV         = refuse(syscall.EINVAL, p11.CKR_MECHANISM_PARAM_INVALID, "the file's name has an IV that has served one message of this open: open the file again, by a name with another IV")
	errReadOnce       = refuse(syscall.EINVAL, p11.CKR_ARGUMENTS_BAD, "the result was read to its end, and is read once: write again for another")
	errOneResult      = refuse(syscall.EINVAL, p11.CKR_ARGUMENTS_BAD, "more data after the result was read, where a message gives one result only (AES-GCM, a stream, or a key that wants its PIN each time): open the file again for the whole message")
	errNoSession      = refuse(syscall.ENOENT, p11.CKR_SESSION_HANDLE_INVALID, "there is no such session, or it is another application's: ls sessions shows yours")
	errSessionClosed  = refuse(syscall.ENOENT, p11.CKR_SESSION_HANDLE_INVALID, "the session is closed: open another, or use the files of the token's own folder")
	errNoObject       = refuse(syscall.ENOENT, p11.CKR_OBJECT_HANDLE_INVALID, "there is no such object, or it may not be seen: ls objects shows those that may")
	errHalf           = refuse(syscall.ENOENT, p11.CKR_OBJECT_HANDLE_INVALID, "of this pair the private key is there alone: write its file public.pem to import, which makes the public one")
	errUnseen         = refuse(syscall.ENOENT, p11.CKR_OBJECT_HANDLE_INVALID, "there is no such object among those that everybody may see, and you are not logged in: log in with p11fs login, or by writing the PIN to the file login")
	errTemporaries    = refuse(syscall.EDQUOT, p11.CKR_HOST_MEMORY, fmt.Sprintf("a terminal may have %d temporary files: remove some of those with a leading dot or a ~ at the end", maxTemporaries))
	errTemporaryEnded = refuse(syscall.ESTALE, p11.CKR_OBJECT_HANDLE_INVALID, "the temporary file was renamed, removed or made under a login that has ended: open it anew")
	errNoEntry        = refuse(syscall.ENOENT, p11.CKR_ARGUMENTS_BAD, "there is no such file: ls shows the names, and p11fs-tree(7) those that are not listed")
	errExists         = refuse(syscall.EEXIST, p11.CKR_ARGUMENTS_BAD, "there is one of that name already: choose another name, or remove that one first")
	errReadOnly       = refuse(syscall.EACCES, p11.CKR_ATTRIBUTE_READ_ONLY, "the file is read only: ls -l shows those that can be written")
	errBelowSession   = refuse(syscall.EPERM, p11.CKR_ACTION_PROHIBITED, "token objects are not removed below a session directory, so that rm -r of a session removes none: use the token's own directory")
	errElsewhere      = refuse(syscall.EXDEV, p11.CKR_ARGUMENTS_BAD, "mv sets the label, in the same directory only: cp brings the content elsewhere")
	errRename         = refuse(syscall.EINVAL, p11.CKR_ARGUMENTS_BAD, "a name cannot be moved in this way, or is too long: mv gives one object another label")
	errLongName       = refuse(syscall.ENAMETOOLONG, p11.CKR_ARGUMENTS_BAD, fmt.Sprintf("a new name takes %d bytes, without the suffix: choose a shorter one", maxBase))
	errKept           = refuse(syscall.EPERM, p11.CKR_ATTRIBUTE_READ_ONLY, "mode and owner are fixed: leave them as they are")
	errFixed          = refuse(syscall.EPERM, p11.CKR_FUNCTION_REJECTED, "the names in this directory are fixed: ls shows them, and p11fs-tree(7) what they are for")
	errObjectFolder   = refuse(syscall.EPERM, p11.CKR_FUNCTION_REJECTED, "a folder here is an object, which cp and mkdir do not make: p11fs cp copies one, as does label=NAME written to the object's file copy; generate and import make new ones")
	errNoFolder       = refuse(syscall.EPERM, p11.CKR_FUNCTION_REJECTED, "there are no folders here: names are labels, so write a longer one")
	errDir            = refuse(syscall.EISDIR, p11.CKR_ARGUMENTS_BAD, "it is a directory: use rmdir, or rm -r")
	errNotDir         = refuse(syscall.ENOTDIR, p11.CKR_ARGUMENTS_BAD, "it is no directory: use rm")
	errNameMoved      = refuse(syscall.ESTALE, p11.CKR_OBJECT_HANDLE_INVALID, "another object has the name now: try again")
	errEmpty          = refuse(syscall.EINVAL, p11.CKR_ARGUMENTS_BAD, "an empty command: write what the manual page p11fs-tree(7) gives for this file")
)
