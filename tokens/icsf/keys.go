package icsf

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"time"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/icsf/icsfwire"
)

// Adopt is tokens.Adopter: a key goes to the server, and its secrets go from here.
func (t *token) Adopt(ctx context.Context, attrs p11.Attributes) (p11.Attributes, error) {
	class, _ := attrs.Class()
	h, there := handleOf(attrs)
	if there && !t.isMade(h) {
		attrs.Wipe()
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_TYPE_INVALID, "the name of a key on the server is nobody's to set")
	}
	if class != p11.CKO_PRIVATE_KEY && class != p11.CKO_SECRET_KEY {
		return t.Crypto.Adopt(ctx, attrs)
	}
	if there {
		return attrs, nil
	}
	kept, err := t.bringIn(ctx, attrs)
	if err != nil {
		attrs.Wipe()
		return nil, err
	}
	return kept, nil
}

// bringIn imports a key. Its numbers go, and are wiped.
func (t *token) bringIn(ctx context.Context, attrs p11.Attributes) (p11.Attributes, error) {
	kt, _ := attrs.KeyType()
	class, _ := attrs.Class()
	value, _ := attrs.Get(p11.CKA_VALUE)
	if err := t.mayImport(); err != nil {
		return nil, err
	}
	switch {
	case class == p11.CKO_PRIVATE_KEY && slices.Contains([]p11.KeyType{p11.CKK_RSA, p11.CKK_EC, p11.CKK_DSA, p11.CKK_DH}, kt):
		// The library's check and completion want a copy, since they may wipe it.
		whole, err := t.Crypto.Adopt(ctx, attrs.Clone())
		if err != nil {
			return nil, err
		}
		defer whole.Wipe()
		attrs = attrs.Merge(whole)
	case class == p11.CKO_SECRET_KEY && slices.Contains([]p11.KeyType{p11.CKK_AES, p11.CKK_DES, p11.CKK_DES2, p11.CKK_DES3, p11.CKK_GENERIC_SECRET}, kt):
		if n := uint64(len(value)); n == 0 || n > maxGeneric || !p11.FitsKey(kt, n) {
			return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "there is no %s key of %d bytes", kt.Short(), n)
		}
	default:
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the token takes keys of RSA, EC, DSA, DH, AES and DES, and generic secrets, and none of type %s", kt.Short())
	}
	list := withPrivate(attrs)
	if class == p11.CKO_SECRET_KEY {
		list = list.Clone()
		defer list.Wipe()
		list.Delete(p11.CKA_VALUE_LEN) // which ICSF computes
	}
	h, err := t.objects.bringIn(ctx, list)
	if err != nil {
		return nil, err
	}
	if class == p11.CKO_SECRET_KEY && len(p11.KeyLengths(kt)) != 1 {
		attrs.SetUlong(p11.CKA_VALUE_LEN, uint64(len(value)))
	}
	left := attrs.WipeSecrets()
	left.Set(handleAttribute, []byte(h))
	return left, nil
}

// mayImport refuses to send a key over a network in the clear.
func (t *token) mayImport() error {
	u, err := url.Parse(t.uri)
	if err == nil && u.Scheme == "ldaps" {
		return nil
	}
	if err == nil && isHere(u.Hostname()) {
		return nil
	}
	return p11.Advise(p11.Errorf(p11.CKR_FUNCTION_REJECTED, "the key would go over the network in the clear"), "take a URI that begins with ldaps")
}

// Forget is tokens.Forgetter: the key goes from the server, in its own time.
func (t *token) Forget(attrs p11.Attributes) {
	if h, ok := handleOf(attrs); ok && t.isMade(h) {
		t.forget(h)
	}
}

// forgetTimeout is how long that may take.
const forgetTimeout = 30 * time.Second

func (t *token) forget(h icsfwire.Handle) {
	t.mu.Lock()
	delete(t.objects.made, h)
	t.mu.Unlock()
	t.forgetting.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), forgetTimeout)
		defer cancel()
		if err := t.destroy(ctx, h); err != nil && !errors.Is(err, p11.CKR_OBJECT_HANDLE_INVALID) {
			t.log.Debug("an object is left on the server", "err", err)
		}
	})
}

// Visibility is tokens.Hider.
func (t *token) Visibility(attrs p11.Attributes, at p11.AttributeType) tokens.Visibility {
	class, _ := attrs.Class()
	switch {
	case at == handleAttribute:
		return tokens.Hidden
	case (class == p11.CKO_PRIVATE_KEY || class == p11.CKO_SECRET_KEY) && p11.SecretValue(at):
		return tokens.Withheld
	}
	return tokens.Readable
}

// wrapRules are those of wrapping with a mechanism.
func wrapRules(t p11.MechanismType) []string {
	if t == p11.CKM_RSA_PKCS {
		return []string{"PKCS-1.2"}
	}
	r, _ := cipherOf(t)
	return []string{"PKCS-8", r.cipher}
}

// maxWrapped bounds a wrapped key.
const maxWrapped = 1 << 13

// WrapKey is tokens.KeyWrapper.
func (t *token) WrapKey(ctx context.Context, m p11.Mechanism, wrapping, key *tokens.Object) ([]byte, error) {
	if err := t.does(m.Type, p11.CKF_WRAP); err != nil {
		return nil, err
	}
	names := make([]icsfwire.Handle, 2)
	for i, o := range []*tokens.Object{wrapping, key} {
		a, err := o.Acquire()
		if err != nil {
			return nil, err
		}
		defer o.Release()
		h, ok := handleOf(a)
		if !ok {
			return nil, p11.Errorf(p11.CKR_KEY_HANDLE_INVALID, "the key is not on the server")
		}
		names[i] = h
	}
	var out icsfwire.Wrapped
	_, err := t.conn.Call(ctx, &icsfwire.Request{Handle: names[1], Rules: wrapRules(m.Type), Data: &icsfwire.Wrap{Key: names[0].Print(), Room: maxWrapped}}, &out)
	return out.Key, err
}

// UnwrapKey is tokens.KeyWrapper.
func (t *token) UnwrapKey(ctx context.Context, m p11.Mechanism, unwrapping *tokens.Object, wrapped []byte, template p11.Attributes) (p11.Attributes, error) {
	if err := t.does(m.Type, p11.CKF_UNWRAP); err != nil {
		return nil, err
	}
	a, err := unwrapping.Acquire()
	if err != nil {
		return nil, err
	}
	defer unwrapping.Release()
	with, ok := handleOf(a)
	if !ok {
		return nil, p11.Errorf(p11.CKR_KEY_HANDLE_INVALID, "the key is not on the server")
	}
	list, err := sent(withPrivate(template), template.Bool(p11.CKA_TOKEN))
	if err != nil {
		return nil, err
	}
	h, err := t.new(ctx, &icsfwire.Request{Handle: with, Rules: wrapRules(m.Type), Data: &icsfwire.Unwrap{Wrapped: wrapped, Attributes: list}})
	if err != nil {
		return nil, err
	}
	return t.made(ctx, h, template)
}

// password opens the server's password with a key of a role that is logged in.
func (t *token) password() (*secret.Bytes, error) {
	var key *secret.Bytes
	var err error
	for _, u := range []p11.UserType{p11.CKU_USER, p11.CKU_SO} {
		if key, err = t.admin.RoleKey(u); err == nil {
			break
		}
	}
	if err != nil {
		return nil, p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the server's password opens with a login")
	}
	defer key.Close()
	return readPassword(t.dir, key)
}
