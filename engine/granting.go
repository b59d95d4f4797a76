package engine

import (
	"cmp"
	"context"
	"slices"

	"p11fs/engine/grants"
	"p11fs/p11"
	"p11fs/tokens"
)

// A granting is what an application may do on a slot by grants, under the login that the
// daemon holds. It never changes.
type granting struct {
	set   *grants.Set
	login *login // the slot's held one
	list  []*grants.Grant
	mask  p11.ObjectHandle // as login.mask
}

// SetGrants has the engine go by another set of grants; nil grants nothing. What is in
// progress by a grant that is no more ends.
func (e *Engine) SetGrants(set *grants.Set) {
	e.grants.Store(set)
	for _, s := range e.list() {
		s.grantsChanged()
	}
}

// grantsChanged ends what is in progress by grants that are no more, and has what was
// learned by grants be asked for again.
func (s *Slot) grantsChanged() {
	s.granted.Add(1)
	for _, a := range s.engine.applications() {
		for _, session := range a.Sessions(s) {
			session.cut(func(o *Operation) bool { return o.granted != nil && o.granted.stands(o) != nil })
		}
	}
}

// applications returns all that there are, in the order in which they were made.
func (e *Engine) applications() []*Application {
	e.mu.Lock()
	defer e.mu.Unlock()
	apps := make([]*Application, 0, e.apps.Len())
	e.apps.Ascend(func(a *Application) bool {
		apps = append(apps, a)
		return true
	})
	return apps
}

// Grants says whether anybody has a grant for keys of the slot's token that counts now: there
// is a login that the daemon holds.
func (s *Slot) Grants() bool { return s.holding() != nil && len(s.AllGrants()) > 0 }

// Granted returns the grants of the application for keys of the slot's token, whether or not
// the daemon holds a login there.
func (a *Application) Granted(slot *Slot) []*grants.Grant {
	return a.engine.grants.Load().Of(a.owner.caller(), slot.Name())
}

// AllGrants returns everybody's for keys of the slot's token.
func (s *Slot) AllGrants() []*grants.Grant { return s.engine.grants.Load().For(s.Name()) }

// caller is the owner as grants know it.
func (o Owner) caller() grants.Caller {
	return grants.Caller{UID: o.UID, GID: o.GID, Groups: o.Groups, Unit: o.Unit}
}

// granting returns what the application may do on the slot by grants, nil for nothing. It
// takes no lock of the engine.
func (a *Application) granting(slot *Slot) *granting {
	l, set := slot.holds(), a.engine.grants.Load()
	if l == nil || set == nil {
		return nil
	}
	if g, ok := a.grantings.Load(slot); ok {
		if g := g.(*granting); g.login == l && g.set == set { //nolint:forcetypeassert // nothing else is in the map
			return g.orNil()
		}
	}
	g := &granting{set: set, login: l, list: set.Of(a.owner.caller(), slot.Name()), mask: a.mask ^ l.mask}
	a.grantings.Store(slot, g)
	return g.orNil()
}

func (g *granting) orNil() *granting {
	if len(g.list) == 0 {
		return nil
	}
	return g
}

// TokenInfo is Slot.TokenInfo as the application is to have it: to who has grants that count
// the token wants no login, or programs would ask for a PIN before they look for a key.
func (a *Application) TokenInfo(ctx context.Context, slot *Slot) (p11.TokenInfo, error) {
	info, err := slot.TokenInfo(ctx)
	if err == nil && slot.holding() != nil && a.granting(slot) != nil {
		info.Flags &^= p11.CKF_LOGIN_REQUIRED
	}
	return info, err
}

// forgets has the application keep nothing of a login that the daemon held.
func (a *Application) forgets(slot *Slot) { a.grantings.Delete(slot) }

// covering returns those of the grants that are about the key.
func (g *granting) covering(k grants.Key) []*grants.Grant {
	var list []*grants.Grant
	for _, grant := range g.list {
		if grant.Covers(k) {
			list = append(list, grant)
		}
	}
	return list
}

// A granted is a key that an application sees by grants alone.
type granted struct {
	app  *Application
	slot *Slot
	by   *granting
	key  grants.Key
	list []*grants.Grant // that cover it
	real p11.Attributes  // what its maker sees; the token's
}

// grant returns the key with these attributes as the application has it by grants, nil if it
// has it not, and its attributes as they are to it. This is where it is decided whether a
// private object is seen without a login.
func (v view) grant(attrs p11.Attributes) (*granted, p11.Attributes) {
	if v.granting == nil {
		return nil, nil
	}
	k := grants.KeyOf(attrs)
	list := v.granting.covering(k)
	if list == nil {
		return nil, nil
	}
	g := &granted{app: v.app, slot: v.slot, by: v.granting, key: k, list: list, real: attrs}
	return g, g.shown()
}

// shown are the attributes of the key as they are to who has it by grants: it does what is
// granted and nothing else, it is sensitive and cannot be extracted, changed, copied or
// destroyed.
func (g *granted) shown() p11.Attributes {
	attrs := make(p11.Attributes, 0, len(g.real)+8)
	attrs = append(attrs, g.real...)
	var functions p11.Flags
	for _, grant := range g.list {
		functions |= grant.Functions
	}
	allowed, some := g.mechanisms()
	if !some {
		functions = 0 // an empty list would allow all
	}
	for _, u := range uses {
		if u.usage != 0 && u.flag == u.atToken() && functions&u.flag == 0 && attrs.Bool(u.usage) {
			attrs.SetBool(u.usage, false)
		}
	}
	if allowed != nil {
		attrs.Set(p11.CKA_ALLOWED_MECHANISMS, allowed)
	}
	if isSecretClass(g.key.Class) {
		attrs.SetBool(p11.CKA_SENSITIVE, true)
		attrs.SetBool(p11.CKA_EXTRACTABLE, false)
	}
	attrs.SetBool(p11.CKA_MODIFIABLE, false)
	attrs.SetBool(p11.CKA_COPYABLE, false)
	attrs.SetBool(p11.CKA_DESTROYABLE, false)
	if g.key.AlwaysAuthenticate { // for which the grant stands
		attrs.SetBool(p11.CKA_ALWAYS_AUTHENTICATE, false)
	}
	return attrs
}

// mechanisms is CKA_ALLOWED_MECHANISMS of the key as it is to who has it by grants, nil for
// what it is; some is false if none is allowed.
func (g *granted) mechanisms() (list []byte, some bool) {
	var types []p11.MechanismType
	for _, grant := range g.list {
		if grant.Mechanisms == nil {
			return nil, true
		}
		types = append(types, grant.Mechanisms...)
	}
	slices.Sort(types)
	for _, t := range slices.Compact(types) {
		if allows(g.real, t) {
			list = append(list, p11.Ulong(t)...)
		}
	}
	return list, len(list) > 0
}

// allows says whether a grant allows the use with the mechanism.
func (g *granted) allows(u *use, m p11.MechanismType) bool {
	return slices.ContainsFunc(g.list, func(grant *grants.Grant) bool { return grant.Allows(u.atToken(), m) })
}

// mayUse refuses a use that no grant allows, and logs one that the key itself allows, with
// the line that would. fresh is oneWay's.
func (g *granted) mayUse(u *use, m p11.Mechanism, fresh bool) error {
	allowed := g.allows(u, m.Type)
	functions, more := g.oneWay(u, m.Type, fresh)
	if allowed && more == nil {
		return nil
	}
	if err := mayUse(g.real, u, m); err != nil {
		return err
	}
	g.log("use of a key refused: no grant allows it", "function", u.verb, "mechanism", m.Type.Short(),
		"grant", grants.Line(g.app.owner.caller(), g.slot.Name(), g.key, functions, m.Type))
	if allowed {
		return more
	}
	if !slices.ContainsFunc(g.list, func(grant *grants.Grant) bool { return grant.Functions&u.atToken() != 0 }) {
		return p11.Advise(p11.Errorf(p11.CKR_KEY_FUNCTION_NOT_PERMITTED, "no grant of yours has the key %s", u.verb), "log in, or ask who writes the grants for a line: the daemon's log has it")
	}
	return p11.Advise(p11.Errorf(p11.CKR_MECHANISM_INVALID, "no grant of yours has the key %s with %s", u.verb, m.Type.Short()),
		"use one that the key's own file mechanisms lists, or ask who writes the grants for a line: the daemon's log has it")
}

// otherwise refuses and logs what no grant can allow.
func (g *granted) otherwise(what string) error {
	g.log("use of a key refused: no grant can allow it", "function", what)
	return p11.Advise(p11.Errorf(p11.CKR_ACTION_PROHIBITED, "a key that is there by a grant alone is not to %s", what), "log in with the PIN")
}

func (g *granted) log(text string, args ...any) {
	o := g.app.owner
	g.app.engine.log.Warn(text, append([]any{"token", g.slot.Name(), "uid", o.UID, "pid", o.PID, "command", o.Command, "door", o.Door,
		"label", string(g.key.Label), "id", g.key.ID}, args...)...)
}

// stands checks that a use which began by grants may go on.
func (g *granted) stands(o *Operation) error {
	now := g.app.granting(g.slot)
	if now == g.by && now != nil {
		return nil
	}
	if now == nil || now.login != g.by.login {
		return p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the grant by which the %s was begun, or the login that the daemon held, has ended", o.use.noun)
	}
	again := &granted{app: g.app, slot: g.slot, by: now, key: g.key, list: now.covering(g.key), real: g.real}
	if again.allows(o.use, o.mech.Type) {
		if _, more := again.oneWay(o.use, o.mech.Type, o.fresh); more == nil {
			return nil
		}
	}
	return p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the grant by which the %s was begun has ended", o.use.noun)
}

// searchGranted returns the keys that match template and that are seen by grants alone, in the
// order in which they were made. It looks at no other private object.
func (v view) searchGranted(ctx context.Context, template p11.Attributes) ([]*tokens.Object, error) {
	if v.granting == nil {
		return nil, nil
	}
	var found []*tokens.Object
	for _, grant := range v.granting.list {
		// By the grant alone: what else is asked for would lead to keys of others, and it
		// would show in the time that they are there.
		var about p11.Attributes
		for _, a := range []p11.Attribute{{Type: p11.CKA_LABEL, Value: grant.Label}, {Type: p11.CKA_ID, Value: grant.ID}} {
			if a.Value != nil {
				about.Set(a.Type, a.Value)
			}
		}
		list, err := v.slot.token.Find(ctx, about, true)
		if err != nil {
			return nil, err
		}
		for _, o := range list {
			if !o.Private {
				continue
			}
			e, err := v.hold(o)
			if err != nil {
				continue // not granted, or destroyed meanwhile
			}
			if e.attrs.Match(template) {
				found = append(found, e.object)
			}
			e.release()
		}
	}
	slices.SortFunc(found, func(a, b *tokens.Object) int { return cmp.Compare(a.Handle, b.Handle) })
	return slices.CompactFunc(found, func(a, b *tokens.Object) bool { return a.Handle == b.Handle }), nil
}
