package securekey

import (
	"context"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
)

// Adopt is tokens.Adopter's for secret and private keys: those that have a blob, which the
// card has made, are completed, and those that have values go into the card: bring gets
// them complete, keeps nothing of them, and returns the blob. complete is the Adopt of a
// token whose keys have values. No secret value is left; attrs are wiped where it fails.
func Adopt(ctx context.Context, attrs p11.Attributes, complete tokens.Adopter, bring func(context.Context, p11.Attributes) ([]byte, error)) (p11.Attributes, error) {
	if !Secured(attrs) {
		var err error
		if attrs, err = complete.Adopt(ctx, attrs); err != nil {
			return nil, err
		}
		blob, err := bring(ctx, attrs)
		if err == nil && (len(blob) == 0 || len(blob) > MaxBlob) {
			err = p11.Errorf(p11.CKR_DEVICE_ERROR, "the card made a key of %d bytes", len(blob))
		}
		if err != nil {
			attrs.Wipe()
			return nil, err
		}
		attrs.Set(p11.CKA_IBM_OPAQUE, blob)
	}
	attrs = Read(attrs)
	if err := completePublic(ctx, &attrs, complete); err != nil {
		attrs.Wipe()
		return nil, err
	}
	return attrs, nil
}

// completePublic gives a private key what is known of its public half.
func completePublic(ctx context.Context, attrs *p11.Attributes, complete tokens.Adopter) error {
	if class, _ := attrs.Class(); class != p11.CKO_PRIVATE_KEY || attrs.Has(p11.CKA_PUBLIC_KEY_INFO) || !attrs.Has(p11.CKA_MODULUS) && !attrs.Has(p11.CKA_EC_POINT) {
		return nil
	}
	public := attrs.Clone()
	public.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_PUBLIC_KEY))
	public, err := complete.Adopt(ctx, public)
	if err != nil {
		return err
	}
	defer public.Wipe()
	if info, ok := public.Get(p11.CKA_PUBLIC_KEY_INFO); ok {
		attrs.Set(p11.CKA_PUBLIC_KEY_INFO, append([]byte{}, info...))
	}
	return nil
}

// SPKI is the DER of a public key's SubjectPublicKeyInfo, of a key that was completed or of
// its numbers.
func SPKI(a p11.Attributes) ([]byte, error) {
	if info, ok := a.Get(p11.CKA_PUBLIC_KEY_INFO); ok && len(info) > 0 {
		return info, nil
	}
	public := a.Clone()
	defer public.Wipe()
	public.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_PUBLIC_KEY))
	if err := pkix.Complete(&public); err != nil {
		return nil, err
	}
	info, ok := public.Get(p11.CKA_PUBLIC_KEY_INFO)
	if !ok {
		return nil, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "the key is no public key that the card knows")
	}
	return append([]byte{}, info...), nil
}

// PublicHalf adds to template what the object of a private key says of its public half: no card
// is asked, as none tells that of a blob. CKA_PUBLIC_KEY_INFO, which a program may have changed,
// is believed only where the numbers are nowhere else.
func PublicHalf(private, template p11.Attributes) (p11.Attributes, error) {
	if class, _ := private.Class(); class != p11.CKO_PRIVATE_KEY {
		return nil, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "only a private key has a public half")
	}
	numbers := private.Clone()
	numbers.Delete(p11.CKA_PUBLIC_KEY_INFO)
	info, err := SPKI(numbers)
	if err != nil {
		info, _ = private.Get(p11.CKA_PUBLIC_KEY_INFO)
	}
	public, err := pkix.PublicAttributes(info)
	kt, _ := private.KeyType()
	if got, _ := public.KeyType(); err != nil || got != kt {
		return nil, p11.Advise(p11.Errorf(p11.CKR_PUBLIC_KEY_INVALID, "the object of the private key does not say what its public half is"),
			"import the public key from where it was kept, such as its certificate")
	}
	return template.Merge(public), nil
}

// Visibility is tokens.Hider's: the blob of a key is to be seen, as stock shows it, and no
// value, of which there is none.
func Visibility(a p11.Attributes, t p11.AttributeType) tokens.Visibility {
	switch {
	case !Secured(a):
		return tokens.Readable
	case value(t):
		return tokens.Withheld
	case p11.SecretValue(t):
		return tokens.Shown
	}
	return tokens.Readable
}
