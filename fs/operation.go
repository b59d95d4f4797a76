package fs

import (
	"context"
	"strings"

	"p11fs/engine"
	"p11fs/p11"
	"p11fs/secret"
)

// An operation is one of the data files of a key.
type operation struct {
	name     string
	usage    p11.AttributeType // that allows it
	function p11.Flags         // that a mechanism has for it
	classes  []p11.ObjectClass
	// defaults are the mechanisms that the bare name stands for, by key type:
	// the first that the token has.
	defaults map[p11.KeyType][]p11.Mechanism
	// file makes the data file.
	file func(k *keyFile) file
	// template says that attributes may stand behind the mechanism.
	template bool
}

// A keyFile is what a data file of a key is made for.
type keyFile struct {
	objects *objectsDir
	ref     objectRef
	name    string
	id      string

	mechanism p11.Mechanism
	template  p11.Attributes
	keyType   p11.KeyType
	// bare says that the mechanism is the default, whose form is that of the
	// openssl command line: DER for ECDSA, the IV in front of AES-GCM.
	bare bool
}

// operations in the order of the listing.
func operations() []operation {
	public, private, symmetric := p11.ObjectClass(p11.CKO_PUBLIC_KEY), p11.ObjectClass(p11.CKO_PRIVATE_KEY), p11.ObjectClass(p11.CKO_SECRET_KEY)
	mech := func(types ...p11.MechanismType) (list []p11.Mechanism) {
		for _, t := range types {
			list = append(list, p11.Mechanism{Type: t})
		}
		return list
	}
	oaep := []p11.Mechanism{{Type: p11.CKM_RSA_PKCS_OAEP, Param: &p11.OAEPParams{Hash: p11.CKM_SHA256, MGF: p11.CKG_MGF1_SHA256}}}
	signing := map[p11.KeyType][]p11.Mechanism{
		p11.CKK_RSA:            mech(p11.CKM_SHA256_RSA_PKCS),
		p11.CKK_EC:             mech(p11.CKM_ECDSA_SHA256),
		p11.CKK_EC_EDWARDS:     mech(p11.CKM_EDDSA),
		p11.CKK_GENERIC_SECRET: mech(p11.CKM_SHA256_HMAC),
		p11.CKK_SHA256_HMAC:    mech(p11.CKM_SHA256_HMAC),
		p11.CKK_AES:            mech(p11.CKM_AES_CMAC),
	}
	ciphers := map[p11.KeyType][]p11.Mechanism{
		p11.CKK_RSA: oaep,
		p11.CKK_AES: mech(p11.CKM_AES_GCM),
	}
	wrapping := map[p11.KeyType][]p11.Mechanism{
		p11.CKK_RSA: oaep,
		p11.CKK_AES: mech(p11.CKM_AES_KEY_WRAP_KWP, p11.CKM_AES_KEY_WRAP_PAD, p11.CKM_AES_KEY_WRAP),
	}
	deriving := map[p11.KeyType][]p11.Mechanism{
		p11.CKK_EC: {{Type: p11.CKM_ECDH1_DERIVE, Param: &p11.ECDH1Params{KDF: p11.CKD_NULL}}},
	}
	return []operation{
		{name: "sign", usage: p11.CKA_SIGN, function: p11.CKF_SIGN, classes: []p11.ObjectClass{private, symmetric}, defaults: signing, file: signFile},
		{name: "verify", usage: p11.CKA_VERIFY, function: p11.CKF_VERIFY, classes: []p11.ObjectClass{public, symmetric}, defaults: signing, file: verifyFile},
		{name: "encrypt", usage: p11.CKA_ENCRYPT, function: p11.CKF_ENCRYPT, classes: []p11.ObjectClass{public, symmetric}, defaults: ciphers, file: encryptFile},
		{name: "decrypt", usage: p11.CKA_DECRYPT, function: p11.CKF_DECRYPT, classes: []p11.ObjectClass{private, symmetric}, defaults: ciphers, file: decryptFile},
		{name: "wrap", usage: p11.CKA_WRAP, function: p11.CKF_WRAP, classes: []p11.ObjectClass{public, symmetric}, defaults: wrapping, file: wrapFile},
		{name: "unwrap", usage: p11.CKA_UNWRAP, function: p11.CKF_UNWRAP, classes: []p11.ObjectClass{private, symmetric}, defaults: wrapping, file: unwrapFile, template: true},
		{name: "derive", usage: p11.CKA_DERIVE, function: p11.CKF_DERIVE, classes: []p11.ObjectClass{private, symmetric}, defaults: deriving, file: deriveFile, template: true},
	}
}

func (o operation) served(class p11.ObjectClass) bool { return contains(o.classes, class) }

// byDefault is the mechanism that the bare name stands for.
func (o operation) byDefault(slot *engine.Slot, i engine.ObjectInfo) (m p11.Mechanism, ok bool, err error) {
	for _, m := range o.defaults[i.KeyType] {
		if info, err := slot.Mechanism(m.Type); err == nil && info.Flags&o.function != 0 {
			return m, true, nil
		}
	}
	return p11.Mechanism{}, false, p11.Errorf(p11.CKR_MECHANISM_INVALID, "%s has no default for this key: write %s:MECHANISM", o.name, o.name)
}

// operation finds the data file of that name: sign, or sign:MECH,param=value…
func (d *objectDir) operation(i engine.ObjectInfo, name string) (*entry, error) {
	word, spec, exact := strings.Cut(name, ":")
	for _, o := range d.fs().ops {
		if o.name == word && isKey(i.Class) {
			return d.operationEntry(o, i, name, spec, exact)
		}
	}
	return nil, errNoView
}

func (d *objectDir) operationEntry(o operation, i engine.ObjectInfo, name, spec string, exact bool) (*entry, error) {
	if !o.served(i.Class) || !i.Attrs.Bool(o.usage) {
		// Not there unless someone asks for exactly this: then a reason.
		if !exact && !o.served(i.Class) {
			return nil, errNoView
		}
		return nil, p11.Errorf(p11.CKR_KEY_FUNCTION_NOT_PERMITTED, "the key has no %s=true", o.usage.Short())
	}
	k := &keyFile{objects: d.objects, ref: d.ref, name: name, id: d.id(name), keyType: i.KeyType, bare: !exact}
	var err error
	if exact {
		k.mechanism, k.template, err = parseOperation(o, spec)
	} else {
		k.mechanism, _, err = o.byDefault(d.objects.p.slot, i)
	}
	if err != nil {
		return nil, err
	}
	if m, err := d.objects.p.slot.Mechanism(k.mechanism.Type); err != nil {
		return nil, err
	} else if m.Flags&o.function == 0 {
		return nil, p11.Errorf(p11.CKR_MECHANISM_INVALID, "mechanism %s does not %s", k.mechanism.Type.Short(), o.name)
	}
	return &entry{id: k.id, place: d.objects.p, perm: 0o660, file: o.file(k)}, nil
}

// parseOperation reads what stands behind the colon. Without a mechanism,
// attributes alone go with the default (unwrap:,label=x is none: the bare name
// takes no attributes).
func parseOperation(o operation, spec string) (p11.Mechanism, p11.Attributes, error) {
	if o.template {
		return p11.ParseOperation(spec)
	}
	m, err := p11.ParseMechanism(spec)
	return m, nil, err
}

// handle is the key's handle for the application of s.
func (k *keyFile) handle(ctx context.Context, s *session) (p11.ObjectHandle, error) {
	if k.ref.stored == "" {
		return k.ref.handle, nil
	}
	i, err := k.objects.infoIn(ctx, s.app.eng, k.ref)
	return i.Handle, err
}

// authenticate gives an operation the PIN that was written for it, if the key
// wants one each time, and says whether it does. Without one the operation refuses
// its data.
func (k *keyFile) authenticate(ctx context.Context, s *session, op interface {
	Authenticate(ctx context.Context, pin *secret.Bytes) error
}) (always bool, err error) {
	i, err := k.objects.infoIn(ctx, s.app.eng, k.ref)
	if err != nil || !i.Attrs.Bool(p11.CKA_ALWAYS_AUTHENTICATE) {
		return false, err
	}
	pin := s.takeSecret(contextSecret)
	if pin == nil {
		return true, nil
	}
	defer pin.Close()
	return true, op.Authenticate(ctx, pin)
}

// stream is the data file with that start. A result of a private key goes with
// the login.
func (k *keyFile) stream(start func(ctx context.Context, s *session) (transform, error)) *streamFile {
	return &streamFile{fs: k.objects.fs, p: k.objects.p, key: k.objects.p.key(k.id), start: start, guarded: k.private}
}

func (k *keyFile) private(ctx context.Context, c caller) bool {
	i, err := k.objects.get(ctx, c, k.ref)
	return err != nil || i.Private
}
