package tpm20

import (
	"testing"

	"github.com/google/go-tpm/tpm2"

	"p11fs/p11"
)

// TestBroughtParent: a key that may leave the TPM, and so may have come to it, is no storage
// key, whatever the token's file says of its name and handle.
func TestBroughtParent(t *testing.T) {
	t.Parallel()
	_, c, _ := fresh(t)
	const handle = 0x81000099
	name, err := do(t.Context(), c, func(w *worker) ([]byte, error) {
		public := P256.public()
		public.ObjectAttributes.FixedTPM, public.ObjectAttributes.FixedParent = false, false
		r, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(public)}.Execute(w)
		if err != nil {
			return nil, err
		}
		defer w.flushHandle(r.ObjectHandle)
		_, err = tpm2.EvictControl{
			Auth:         tpm2.TPMRHOwner,
			ObjectHandle: &tpm2.NamedHandle{Handle: r.ObjectHandle, Name: r.Name}, PersistentHandle: handle,
		}.Execute(w)
		return r.Name.Buffer, err
	})
	noError(t, err)
	wantRV(t, "a key that was brought", c.Knows(t.Context(), Parent{Template: P256, Handle: handle, Name: name}), p11.CKR_TOKEN_NOT_RECOGNIZED)
}
