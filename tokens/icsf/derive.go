package icsf

import (
	"context"
	"slices"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
	"p11fs/tokens/icsf/icsfwire"
)

// derives says whether the server derives keys by a mechanism.
func derives(t p11.MechanismType) bool {
	return slices.Contains([]p11.MechanismType{
		p11.CKM_DH_PKCS_DERIVE, p11.CKM_SSL3_MASTER_KEY_DERIVE, p11.CKM_SSL3_KEY_AND_MAC_DERIVE, p11.CKM_TLS_KEY_AND_MAC_DERIVE,
	}, t)
}

// DeriveKey is tokens.KeyDeriver.
func (t *token) DeriveKey(ctx context.Context, m p11.Mechanism, base *tokens.Object, template p11.Attributes) (p11.Attributes, error) {
	made, _, err := t.JoinKeys(ctx, m, []*tokens.Object{base}, []p11.Attributes{template})
	if err != nil {
		return nil, err
	}
	return made[0], nil
}

// JoinKeys is tokens.KeyJoiner: what comes beside keys is a version, or the initialisation
// vectors of client and server.
func (t *token) JoinKeys(ctx context.Context, m p11.Mechanism, keys []*tokens.Object, templates []p11.Attributes) ([]p11.Attributes, []byte, error) {
	if err := t.does(m.Type, p11.CKF_DERIVE); err != nil {
		return nil, nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, interrupted(err)
	}
	a, err := keys[0].Acquire()
	if err != nil {
		return nil, nil, err
	}
	defer keys[0].Release()
	base, err := t.holder.key(a)
	if err != nil {
		return nil, nil, err
	}
	base = t.uses.now(base)
	switch p := m.Param.(type) {
	case p11.RawParam:
		made, err := t.agree(ctx, base, a, p, templates[0])
		return []p11.Attributes{made}, nil, err
	case *p11.SSL3MasterParams:
		made, version, err := t.master(ctx, base, p, templates[0])
		return []p11.Attributes{made}, version, err
	case *p11.SSL3KeyMatParams:
		rule := "SSL-KM"
		if m.Type == p11.CKM_TLS_KEY_AND_MAC_DERIVE {
			rule = "TLS-KM"
		}
		return t.keyMaterial(ctx, base, rule, p, templates)
	}
	return nil, nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "%s does not take its parameter as bytes", m.Type.Short())
}

// derivable are the attributes of a key that is derived, as they go to the server.
func derivable(template p11.Attributes) (list p11.Attributes, kt p11.KeyType, err error) {
	kt, ok := template.KeyType()
	if class, _ := template.Class(); class != p11.CKO_SECRET_KEY || !ok {
		return nil, 0, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the mechanism makes secret keys, and wants their key-type")
	}
	list, err = sent(withPrivate(template).Clone(), template.Bool(p11.CKA_TOKEN))
	return list, kt, err
}

// agree is the key of an agreement by Diffie-Hellman.
func (t *token) agree(ctx context.Context, base icsfwire.Handle, private p11.Attributes, public []byte, template p11.Attributes) (p11.Attributes, error) {
	list, kt, err := derivable(template)
	if err != nil {
		return nil, err
	}
	g, err := pkix.GroupOf(p11.CKK_DH, private)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "%w", err)
	}
	if _, err := g.Public(public); err != nil {
		return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "public: is no public value of the key's group")
	}
	n, given := list.Ulong(p11.CKA_VALUE_LEN)
	most := uint64(g.P.BitLen()+7) / 8
	switch lengths := p11.KeyLengths(kt); {
	case len(lengths) == 1:
		if err := hasLength(&list, lengths[0]); err != nil {
			return nil, err
		}
		n = lengths[0]
	case given && (n == 0 || !p11.FitsKey(kt, n)), !given && !p11.FitsKey(kt, most):
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the template needs a value-len that a %s key can have", kt.Short())
	}
	if n > most {
		return nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "the secret has %d bytes, and not %d", most, n)
	}
	h, err := t.new(ctx, &icsfwire.Request{Handle: base, Rules: []string{"PKCS-DH"}, Data: &icsfwire.Agree{Attributes: list, Public: public}})
	if err != nil {
		return nil, err
	}
	return t.made(ctx, h, template)
}

// master is the master secret of SSL 3, and the version in the secret from which it comes.
func (t *token) master(ctx context.Context, base icsfwire.Handle, p *p11.SSL3MasterParams, template p11.Attributes) (p11.Attributes, []byte, error) {
	list, _, err := derivable(template)
	if err == nil {
		err = hasLength(&list, p11.MasterSecretLen)
	}
	if err != nil {
		return nil, nil, err
	}
	var out icsfwire.Derived
	h, err := t.conn.Call(ctx, &icsfwire.Request{
		Handle: base, Rules: []string{"SSL-MS"}, Data: &icsfwire.Master{Attributes: list, Client: p.Random.Client, Server: p.Random.Server},
	}, &out)
	if err == nil && (!h.IsObject() || len(out.Version) < 2) {
		err = p11.Errorf(p11.CKR_DEVICE_ERROR, "the server has made a master secret without a handle or a version")
	}
	if err != nil {
		return nil, nil, err
	}
	t.note(h)
	a, err := t.made(ctx, h, template)
	return a, slices.Clone(out.Version[:2]), err
}

// keyMaterial are the keys of a connection: the MAC secrets of client and server, and their
// keys, of which templates leaves out some.
func (t *token) keyMaterial(ctx context.Context, base icsfwire.Handle, rule string, p *p11.SSL3KeyMatParams, templates []p11.Attributes) ([]p11.Attributes, []byte, error) {
	switch {
	case p.Export:
		return nil, nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "keys for export, which are weak, are not made")
	case p.MACBits%8 != 0 || p.KeyBits%8 != 0 || p.IVBits%8 != 0 || max(p.MACBits, p.KeyBits, p.IVBits) > 8*maxGeneric:
		return nil, nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "mac-bits=, key-bits= and iv-bits= are multiples of 8, up to %d", 8*maxGeneric)
	}
	template := templates[2] // of the keys; the server makes those of the MAC secrets of it
	if template == nil {
		template = templates[0]
	}
	if template == nil {
		return nil, nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "mac-bits= or key-bits= must say that keys are made")
	}
	list, kt, err := derivable(template)
	if err == nil && templates[2] != nil && (!p11.FitsKey(kt, p.KeyBits/8)) {
		err = p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "there is no %s key of %d bits", kt.Short(), p.KeyBits)
	}
	if err != nil {
		return nil, nil, err
	}
	list.Delete(p11.CKA_VALUE_LEN) // the parameter says it
	var out icsfwire.DerivedKeys
	_, err = t.conn.Call(ctx, &icsfwire.Request{Handle: base, Rules: []string{rule}, Data: &icsfwire.KeyMaterial{
		Attributes: list, MACBits: int(p.MACBits), KeyBits: int(p.KeyBits), IVBits: int(p.IVBits), Client: p.Random.Client, Server: p.Random.Server,
	}}, &out)
	if err != nil {
		return nil, nil, err
	}
	ivs := slices.Concat(out.ClientIV, out.ServerIV)
	if uint64(len(ivs)) != p.IVBits/4 {
		err = p11.Errorf(p11.CKR_DEVICE_ERROR, "the server's initialisation vectors have other lengths")
	}
	handles := make([]icsfwire.Handle, len(templates))
	for i, b := range [][]byte{out.ClientMAC, out.ServerMAC, out.ClientKey, out.ServerKey} {
		h, perr := icsfwire.ParseHandle(b)
		switch {
		case perr == nil && h.IsObject():
			t.note(h)
			handles[i] = h
		case templates[i] != nil:
			err = p11.Errorf(p11.CKR_DEVICE_ERROR, "the server has made the keys of a connection without handles")
		}
	}
	made := make([]p11.Attributes, len(templates))
	for i, h := range handles {
		switch {
		case h == "":
		case err != nil || templates[i] == nil:
			t.forget(h)
			handles[i] = ""
		default:
			if made[i], err = t.made(ctx, h, templates[i]); err != nil {
				handles[i] = ""
			}
		}
	}
	if err != nil {
		for _, h := range handles {
			if h != "" {
				t.forget(h)
			}
		}
		return nil, nil, err
	}
	return made, ivs, nil
}
