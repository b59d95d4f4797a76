package icsf

import (
	"context"
	"errors"
	"net"
	"net/url"
	"time"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/icsf/icsfwire"
)

// expect is a copy of a template for the server, with the class and the type of key that is
// made, which stock puts at the end.
func expect(template p11.Attributes, class p11.ObjectClass, kt p11.KeyType) (p11.Attributes, error) {
	if got, ok := template.Class(); ok && got != class {
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the mechanism makes a %s, not a %s", class.Short(), got.Short())
	}
	if got, ok := template.KeyType(); ok && got != kt {
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the mechanism makes a key of type %s, not %s", kt.Short(), got.Short())
	}
	a := withPrivate(template).Clone()
	a.Delete(p11.CKA_CLASS)
	a.Delete(p11.CKA_KEY_TYPE)
	a.SetUlong(p11.CKA_CLASS, uint64(class))
	a.SetUlong(p11.CKA_KEY_TYPE, uint64(kt))
	return sent(a)
}

// made are the attributes of an object that a call has just made from a template: what the
// server knows of it, and what the template says besides. Where they cannot be read the object
// goes.
func (t *token) made(ctx context.Context, h icsfwire.Handle, template p11.Attributes) (p11.Attributes, error) {
	ctx = context.WithoutCancel(ctx)
	got, err := t.get(ctx, h)
	if err != nil {
		t.forget(h)
		return nil, err
	}
	return template.Merge(got), nil
}

// GenerateKey is tokens.KeyGenerator.
func (t *token) GenerateKey(ctx context.Context, m p11.Mechanism, template p11.Attributes) (p11.Attributes, error) {
	if err := t.does(m.Type, p11.CKF_GENERATE); err != nil {
		return nil, err
	}
	kt := p11.CKK_AES
	if m.Type == p11.CKM_GENERIC_SECRET_KEY_GEN {
		kt = p11.CKK_GENERIC_SECRET
	}
	if err := ctx.Err(); err != nil {
		return nil, interrupted(err)
	}
	if err := checkLength(template, kt); err != nil {
		return nil, err
	}
	list, err := expect(template, p11.CKO_SECRET_KEY, kt)
	if err != nil {
		return nil, err
	}
	h, err := t.new(ctx, &icsfwire.Request{Handle: t.self(), Rules: []string{"KEY"}, Data: &icsfwire.GenerateKey{Attributes: list}})
	if err != nil {
		return nil, err
	}
	return t.made(ctx, h, template)
}

// checkLength checks the length of a secret key that is to be made.
func checkLength(template p11.Attributes, kt p11.KeyType) error {
	n, ok := template.Ulong(p11.CKA_VALUE_LEN)
	switch {
	case !ok:
		return p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the template needs value-len, the length of the key in bytes")
	case !p11.FitsKey(kt, n) || n == 0 || n > maxGeneric:
		return p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "there is no %s key of %d bytes", kt.Short(), n)
	}
	return nil
}

// GenerateKeyPair is tokens.KeyGenerator.
func (t *token) GenerateKeyPair(ctx context.Context, m p11.Mechanism, public, private p11.Attributes) (p11.Attributes, p11.Attributes, error) {
	if err := t.does(m.Type, p11.CKF_GENERATE_KEY_PAIR); err != nil {
		return nil, nil, err
	}
	kt := p11.CKK_RSA
	if m.Type == p11.CKM_EC_KEY_PAIR_GEN {
		kt = p11.CKK_EC
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, interrupted(err)
	}
	if err := checkPair(public, kt); err != nil {
		return nil, nil, err
	}
	pub, err := expect(public, p11.CKO_PUBLIC_KEY, kt)
	if err != nil {
		return nil, nil, err
	}
	if kt == p11.CKK_RSA && !pub.Has(p11.CKA_PUBLIC_EXPONENT) {
		pub.Set(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})
	}
	priv, err := expect(private, p11.CKO_PRIVATE_KEY, kt)
	if err != nil {
		return nil, nil, err
	}
	end, err := tokens.Long(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer end()
	var out icsfwire.PrivateHandle
	first, err := t.conn.Call(ctx, &icsfwire.Request{Handle: t.self(), Data: &icsfwire.GeneratePair{Public: pub, Private: priv}}, &out)
	if err != nil {
		return nil, nil, err
	}
	second, err := icsfwire.ParseHandle(out.Handle)
	if err != nil || !first.IsObject() || !second.IsObject() {
		return nil, nil, p11.Errorf(p11.CKR_DEVICE_ERROR, "the server has made a pair without handles")
	}
	t.note(first)
	t.note(second)
	a, err := t.made(ctx, first, public)
	if err != nil {
		t.forget(second)
		return nil, nil, err
	}
	b, err := t.made(ctx, second, private)
	if err != nil {
		t.forget(first)
		return nil, nil, err
	}
	if kt == p11.CKK_EC { // ICSF does not keep the point beside the private key
		point, _ := a.Get(p11.CKA_EC_POINT)
		b.Set(p11.CKA_EC_POINT, append([]byte{}, point...))
	}
	return a, b, nil
}

func checkPair(public p11.Attributes, kt p11.KeyType) error {
	bits, ok := public.Ulong(p11.CKA_MODULUS_BITS)
	switch {
	case kt == p11.CKK_EC && !public.Has(p11.CKA_EC_PARAMS):
		return p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the public template needs ec-params, the curve")
	case kt == p11.CKK_EC:
		return nil
	case !ok:
		return p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the public template needs modulus-bits")
	case bits < minRSA || bits > maxRSA || bits%8 != 0:
		return p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "ICSF has RSA keys of %d to %d bits, not %d", minRSA, maxRSA, bits)
	}
	return nil
}

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
	case class == p11.CKO_PRIVATE_KEY && (kt == p11.CKK_RSA || kt == p11.CKK_EC):
		// The library's check and completion want a copy, since they may wipe it.
		whole, err := t.Crypto.Adopt(ctx, attrs.Clone())
		if err != nil {
			return nil, err
		}
		defer whole.Wipe()
		attrs = attrs.Merge(whole)
	case class == p11.CKO_SECRET_KEY && (kt == p11.CKK_AES || kt == p11.CKK_GENERIC_SECRET):
		if n := uint64(len(value)); n == 0 || n > maxGeneric || !p11.FitsKey(kt, n) {
			return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "there is no %s key of %d bytes", kt.Short(), n)
		}
	default:
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the token takes keys of RSA, EC, AES and generic secrets, and none of type %s", kt.Short())
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
	if class == p11.CKO_SECRET_KEY {
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
	if err == nil && (u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback()) {
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
	return []string{"PKCS-8", "AES"}
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
	list, err := sent(withPrivate(template))
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
