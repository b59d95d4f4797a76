package engine

import "context"

// The dual-function operations (PKCS#11 v3.1 §5.17) drive two active operations
// with one part. An error ends the operation that gave it.

// DigestEncryptUpdate is C_DigestEncryptUpdate.
func (s *Session) DigestEncryptUpdate(ctx context.Context, part []byte, room int) ([]byte, error) {
	d, digest, err := s.digest(callUpdate)
	if err != nil {
		return nil, err
	}
	a, o, err := s.cipher(activeEncrypt, callDual)
	if err != nil {
		return nil, err
	}
	return s.deliver(activeEncrypt, a, callDual, part, room, false, func() ([]byte, error) {
		defer s.settle(activeDigest, d)
		if err := digest.Update(ctx, part); err != nil {
			return nil, err
		}
		return o.Update(ctx, part)
	})
}

// SignEncryptUpdate is C_SignEncryptUpdate.
func (s *Session) SignEncryptUpdate(ctx context.Context, part []byte, room int) ([]byte, error) {
	g, signature, err := s.signature(callUpdate)
	if err != nil {
		return nil, err
	}
	a, o, err := s.cipher(activeEncrypt, callDual)
	if err != nil {
		return nil, err
	}
	return s.deliver(activeEncrypt, a, callDual, part, room, false, func() ([]byte, error) {
		defer s.settle(activeSign, g)
		if err := signature.Update(ctx, part); err != nil {
			return nil, err
		}
		return o.Update(ctx, part)
	})
}

// DecryptDigestUpdate is C_DecryptDigestUpdate: what is decrypted is digested.
func (s *Session) DecryptDigestUpdate(ctx context.Context, part []byte, room int) ([]byte, error) {
	d, digest, err := s.digest(callUpdate)
	if err != nil {
		return nil, err
	}
	a, o, err := s.cipher(activeDecrypt, callDual)
	if err != nil {
		return nil, err
	}
	return s.deliver(activeDecrypt, a, callDual, part, room, false, func() ([]byte, error) {
		defer s.settle(activeDigest, d)
		out, err := o.Update(ctx, part)
		if err != nil {
			return nil, err
		}
		return out, digest.Update(ctx, out)
	})
}

// DecryptVerifyUpdate is C_DecryptVerifyUpdate: what is decrypted is verified.
func (s *Session) DecryptVerifyUpdate(ctx context.Context, part []byte, room int) ([]byte, error) {
	v, verification, err := s.verification(callUpdate)
	if err != nil {
		return nil, err
	}
	a, o, err := s.cipher(activeDecrypt, callDual)
	if err != nil {
		return nil, err
	}
	return s.deliver(activeDecrypt, a, callDual, part, room, false, func() ([]byte, error) {
		defer s.settle(activeVerify, v)
		out, err := o.Update(ctx, part)
		if err != nil {
			return nil, err
		}
		return out, verification.Update(ctx, out)
	})
}
