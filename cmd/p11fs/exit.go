package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"p11fs/mountd"
	"p11fs/mountd/slotd"
	"p11fs/p11"
)

// The exit codes. They are part of the command line's contract.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitNotMounted  = 3
	exitAuth        = 4
	exitBusy        = 5
	exitInterrupted = 130
)

var (
	// errSilent fails a command that has printed all there is to say.
	errSilent = errors.New("failed: the lines above say why")
	// errNotMounted is why a command finds no tree.
	errNotMounted = errors.New("p11fs is not mounted")
)

// A usageError is a command line that cannot be understood.
type usageError struct {
	err   error
	usage string // how it should look, or empty
}

func (u *usageError) Error() string { return u.err.Error() }
func (u *usageError) Unwrap() error { return u.err }

// An endedError is a program that was started and has ended with a status of its own, which
// is then that of the command. It has said itself what there is to say.
type endedError struct{ status int }

func (e *endedError) Error() string { return fmt.Sprintf("exit status %d", e.status) }
func (e *endedError) Unwrap() error { return errSilent }

// exitCode is the one place where errors become exit codes.
func exitCode(err error) int {
	var usage *usageError
	var tree *treeError
	var ended *endedError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &ended):
		return ended.status
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, errNotMounted):
		return exitNotMounted
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, errPhrase), wrongPIN(err):
		return exitAuth
	case errors.As(err, &tree) && (errors.Is(err, syscall.EKEYREJECTED) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EKEYEXPIRED)):
		return exitAuth
	case errors.Is(err, mountd.ErrBusy), errors.Is(err, slotd.ErrRunning), errors.Is(err, syscall.EBUSY), errors.Is(err, p11.CKR_SESSION_EXISTS):
		return exitBusy
	}
	return exitFailure
}

// wrongPIN reports whether a PIN was not taken by a token's directory.
func wrongPIN(err error) bool {
	switch p11.RVOf(err) {
	case p11.CKR_PIN_INCORRECT, p11.CKR_PIN_LOCKED, p11.CKR_PIN_EXPIRED, p11.CKR_USER_PIN_NOT_INITIALIZED:
		return true
	}
	return false
}
