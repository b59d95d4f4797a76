package engine

import (
	"context"

	"p11fs/engine/p11"
	"p11fs/secret"
)

// Signatures still to be moved to their own files.

type activeKind int

const activeKinds = 1

type active struct{ operation *operation }

func (a *active) wipe() {}

func (s *Session) authenticateActive(ctx context.Context, pin *secret.Bytes) error {
	return p11.CKR_FUNCTION_NOT_SUPPORTED
}

type AttributeResult struct {
	Type  p11.AttributeType
	Value []byte
	Err   error
}

func (s *Session) CreateObject(ctx context.Context, template p11.Attributes) (p11.ObjectHandle, error) {
	return 0, p11.CKR_FUNCTION_NOT_SUPPORTED
}
func (s *Session) CopyObject(ctx context.Context, h p11.ObjectHandle, template p11.Attributes) (p11.ObjectHandle, error) {
	return 0, p11.CKR_FUNCTION_NOT_SUPPORTED
}
func (s *Session) DestroyObject(ctx context.Context, h p11.ObjectHandle) error {
	return p11.CKR_FUNCTION_NOT_SUPPORTED
}
func (s *Session) ObjectSize(ctx context.Context, h p11.ObjectHandle) (uint64, error) {
	return 0, p11.CKR_FUNCTION_NOT_SUPPORTED
}
func (s *Session) GetAttributeValue(ctx context.Context, h p11.ObjectHandle, types ...p11.AttributeType) ([]AttributeResult, error) {
	return nil, p11.CKR_FUNCTION_NOT_SUPPORTED
}
func (s *Session) SetAttributeValue(ctx context.Context, h p11.ObjectHandle, template p11.Attributes) error {
	return p11.CKR_FUNCTION_NOT_SUPPORTED
}
func (s *Session) GenerateKey(ctx context.Context, m p11.Mechanism, template p11.Attributes) (p11.ObjectHandle, error) {
	return 0, p11.CKR_FUNCTION_NOT_SUPPORTED
}
func (s *Session) GenerateKeyPair(ctx context.Context, m p11.Mechanism, public, private p11.Attributes) (p11.ObjectHandle, p11.ObjectHandle, error) {
	return 0, 0, p11.CKR_FUNCTION_NOT_SUPPORTED
}
func (s *Session) WrapKey(ctx context.Context, m p11.Mechanism, wrapping, key p11.ObjectHandle) ([]byte, error) {
	return nil, p11.CKR_FUNCTION_NOT_SUPPORTED
}
func (s *Session) UnwrapKey(ctx context.Context, m p11.Mechanism, unwrapping p11.ObjectHandle, wrapped []byte, template p11.Attributes) (p11.ObjectHandle, error) {
	return 0, p11.CKR_FUNCTION_NOT_SUPPORTED
}
func (s *Session) DeriveKey(ctx context.Context, m p11.Mechanism, base p11.ObjectHandle, template p11.Attributes) (p11.ObjectHandle, error) {
	return 0, p11.CKR_FUNCTION_NOT_SUPPORTED
}
func (s *Session) GenerateRandom(ctx context.Context, n int) ([]byte, error) {
	return nil, p11.CKR_FUNCTION_NOT_SUPPORTED
}
func (s *Session) SeedRandom(ctx context.Context, seed []byte) error {
	return p11.CKR_FUNCTION_NOT_SUPPORTED
}
