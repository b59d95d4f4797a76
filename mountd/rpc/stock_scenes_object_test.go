package rpc

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"p11fs/mountd/rpc/wire"
	"p11fs/p11"
	"p11fs/p11/pkix"
)

// keyring has the templates of keys with known values.
type keyring struct {
	rsaPrivate, rsaPublic, ecPrivate, ecPublic []wire.Attribute
	ecPoint                                    []byte
	certificate                                []wire.Attribute
}

func readKeys(t testing.TB) *keyring {
	t.Helper()
	parse := func(name string) (out [][]wire.Attribute) {
		b, err := os.ReadFile(filepath.Join("..", "..", "p11", "pkix", "testdata", "files", name))
		if err != nil {
			t.Fatal(err)
		}
		list, err := pkix.Parse(pkix.Auto, b, pkix.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, attrs := range list {
			var one []wire.Attribute
			for _, a := range attrs {
				one = append(one, attribute(a.Type, a.Value))
			}
			out = append(out, one)
		}
		return out
	}
	rsa, ec, crt := parse("rsa.p8.der"), parse("prime256v1.p8.der"), parse("rsa.crt.der")
	k := &keyring{rsaPrivate: rsa[0], rsaPublic: rsa[1], ecPrivate: ec[0], ecPublic: ec[1], certificate: crt[0]}
	for _, a := range k.ecPublic {
		if a.Type == p11.CKA_EC_POINT {
			k.ecPoint = a.Value[2:] // behind the head of the OCTET STRING
		}
	}
	return k
}

// with is a template with more attributes, or others in the place of its own.
func with(list []wire.Attribute, pairs ...any) []wire.Attribute {
	more := template(pairs...)
	var out []wire.Attribute
	for _, a := range list {
		if !slices.ContainsFunc(more, func(b wire.Attribute) bool { return b.Type == a.Type }) {
			out = append(out, a)
		}
	}
	return append(out, more...)
}

// aes is an AES key of n bytes that may do everything.
func aes(n int, pairs ...any) []wire.Attribute {
	value := make([]byte, n)
	for i := range value {
		value[i] = byte(i + 1)
	}
	return with(template(p11.CKA_CLASS, p11.CKO_SECRET_KEY, p11.CKA_KEY_TYPE, p11.CKK_AES, p11.CKA_VALUE, value,
		p11.CKA_SENSITIVE, false, p11.CKA_EXTRACTABLE, true, p11.CKA_ENCRYPT, true, p11.CKA_DECRYPT, true, p11.CKA_WRAP, true,
		p11.CKA_UNWRAP, true, p11.CKA_SIGN, true, p11.CKA_VERIFY, true, p11.CKA_DERIVE, true), pairs...)
}

func create(list []wire.Attribute) step { return do(wire.CallCreateObject, ref("s"), list) }

// importKeys makes session objects of the keys: rsa, rsapub, ec, ecpub, aes, mac.
func (k *keyring) importKeys() []step {
	return []step{
		create(with(k.rsaPrivate, p11.CKA_UNWRAP, true, p11.CKA_SIGN_RECOVER, true)).as("rsa"),
		create(with(k.rsaPublic, p11.CKA_WRAP, true)).as("rsapub"),
		create(with(k.ecPrivate, p11.CKA_DERIVE, true)).as("ec"),
		create(k.ecPublic).as("ecpub"),
		create(aes(16, p11.CKA_LABEL, "aes")).as("aes"),
		create(template(p11.CKA_CLASS, p11.CKO_SECRET_KEY, p11.CKA_KEY_TYPE, p11.CKK_GENERIC_SECRET, p11.CKA_VALUE, "thirty-two bytes of a secret key",
			p11.CKA_SIGN, true, p11.CKA_VERIFY, true, p11.CKA_EXTRACTABLE, true, p11.CKA_SENSITIVE, false)).as("mac"),
	}
}

func objectScenes(k *keyring) []scene {
	return []scene{
		{name: "objects", steps: begin(objectSteps(k)...)},
		{name: "templates", steps: begin(templateSteps(k)...)},
		{name: "attributes", steps: begin(attributeSteps(k)...)},
		{name: "attributes of arrays", since: wire.V1, steps: begin(arraySteps()...)},
		{name: "changes", steps: begin(changeSteps()...)},
		{name: "finding", steps: begin(findSteps(k)...)},
	}
}

func dataObject(pairs ...any) []wire.Attribute {
	return with(template(p11.CKA_CLASS, p11.CKO_DATA), pairs...)
}

func objectSteps(k *keyring) []step {
	s := ref("s")
	return []step{
		create(dataObject(p11.CKA_LABEL, "one", p11.CKA_VALUE, "content", p11.CKA_TOKEN, true)).as("token"),
		create(dataObject(p11.CKA_LABEL, "two", p11.CKA_PRIVATE, false, p11.CKA_APPLICATION, "app", p11.CKA_OBJECT_ID, []byte{6, 1, 2})).as("session"),
		do(wire.CallGetObjectSize, s, ref("token")),
		do(wire.CallGetObjectSize, s, ref("session")),
		do(wire.CallCopyObject, s, ref("session"), template(p11.CKA_LABEL, "three", p11.CKA_TOKEN, true)).as("copy"),
		do(wire.CallCopyObject, s, ref("session"), template()).as("copy2"),
		do(wire.CallCopyObject, s, ref("session"), template(p11.CKA_CLASS, p11.CKO_SECRET_KEY)),
		do(wire.CallCopyObject, s, 0x7ffffff0, template()),
		do(wire.CallGetObjectSize, s, ref("copy")),
		do(wire.CallDestroyObject, s, ref("copy")),
		do(wire.CallDestroyObject, s, ref("copy")),
		do(wire.CallGetObjectSize, s, ref("copy")),
		do(wire.CallGetAttributeValue, s, ref("copy"), wanted(p11.CKA_LABEL, 10)),
		do(wire.CallSetAttributeValue, s, ref("copy"), template(p11.CKA_LABEL, "x")),
		create(with(k.certificate, p11.CKA_TOKEN, true)).as("cert"),
		do(wire.CallGetObjectSize, s, ref("cert")),
		do(wire.CallOpenSession, 3, int(p11.CKF_SERIAL_SESSION)).as("ro"),
		do(wire.CallCreateObject, ref("ro"), dataObject(p11.CKA_TOKEN, true)),
		do(wire.CallCreateObject, ref("ro"), dataObject(p11.CKA_LABEL, "four")),
		do(wire.CallDestroyObject, ref("ro"), ref("token")),
		do(wire.CallSetAttributeValue, ref("ro"), ref("token"), template(p11.CKA_LABEL, "x")),
		do(wire.CallLogout, s),
		create(dataObject(p11.CKA_PRIVATE, true)),
		do(wire.CallCopyObject, s, ref("cert"), template(p11.CKA_PRIVATE, true)),
		login(),
		do(wire.CallDestroyObject, s, ref("token")),
		do(wire.CallDestroyObject, s, ref("cert")),
		do(wire.CallDestroyObject, s, 0),
		do(wire.CallDestroyObject, s, 1<<40),
	}
}

// templateSteps makes objects of each kind of value, and of what is none.
func templateSteps(k *keyring) []step {
	const vendor = p11.AttributeType(0x80000001)
	value := []byte("0123456789abcdef")
	key := func(pairs ...any) []wire.Attribute {
		return with(template(p11.CKA_CLASS, p11.CKO_SECRET_KEY, p11.CKA_KEY_TYPE, p11.CKK_AES, p11.CKA_VALUE, value), pairs...)
	}
	invalid := func(t p11.AttributeType) []wire.Attribute { return []wire.Attribute{{Type: t}} }
	steps := []step{
		create(template()),
		create(dataObject()),
		create(key(p11.CKA_START_DATE, "20260101", p11.CKA_END_DATE, "20271231")),
		create(key(p11.CKA_START_DATE, nil)),
		create(key(p11.CKA_START_DATE, "20261301")),
		create(key(p11.CKA_ID, nil, p11.CKA_LABEL, "")),
		create(key(p11.CKA_ALLOWED_MECHANISMS, []p11.MechanismType{p11.CKM_AES_ECB, p11.CKM_AES_CBC})),
		create(key(p11.CKA_ALLOWED_MECHANISMS, []p11.MechanismType{})),
		create(key(vendor, "vendor")),
		create(key(p11.CKA_TRUSTED, true)),
		create(key(p11.CKA_LOCAL, true)),
		create(key(p11.CKA_MODULUS, value)),
		create(key(p11.CKA_LABEL, "x", p11.CKA_LABEL, "x")),
		create(key(p11.CKA_LABEL, "x", p11.CKA_LABEL, "y")),
		create(key(p11.CKA_DESTROYABLE, false)),
		create(template(p11.CKA_CLASS, p11.CKO_SECRET_KEY)),
		create(template(p11.CKA_CLASS, p11.CKO_SECRET_KEY, p11.CKA_KEY_TYPE, p11.CKK_AES)),
		create(template(p11.CKA_CLASS, p11.CKO_SECRET_KEY, p11.CKA_KEY_TYPE, p11.CKK_AES, p11.CKA_VALUE, "short")),
		create(template(p11.CKA_CLASS, p11.ObjectClass(99))),
		create(template(p11.CKA_CLASS, p11.CKO_HW_FEATURE, p11.CKA_HW_FEATURE_TYPE, 1)),
		create(template(p11.CKA_CLASS, p11.CKO_CERTIFICATE, p11.CKA_CERTIFICATE_TYPE, 1<<33)),
		create(with(k.certificate, p11.CKA_CERTIFICATE_CATEGORY, 1, p11.CKA_JAVA_MIDP_SECURITY_DOMAIN, 1)),
		create(with(k.certificate, p11.CKA_NAME_HASH_ALGORITHM, p11.Ulong(p11.CKM_SHA256))),
	}
	for _, t := range []p11.AttributeType{p11.CKA_LABEL, p11.CKA_TOKEN, p11.CKA_CLASS, p11.CKA_START_DATE, p11.CKA_ALLOWED_MECHANISMS, vendor} {
		steps = append(steps, create(append(key(), invalid(t)...)), do(wire.CallFindObjectsInit, ref("s"), invalid(t)), do(wire.CallFindObjectsFinal, ref("s")))
	}
	for _, t := range []p11.AttributeType{p11.CKA_WRAP_TEMPLATE, p11.CKA_UNWRAP_TEMPLATE} {
		steps = append(steps,
			create(key(t, template(p11.CKA_ENCRYPT, true, p11.CKA_KEY_TYPE, p11.CKK_AES))).defect("no templates"),
			create(key(t, template())).defect("no templates"),
			create(key(t, template(p11.CKA_LABEL, "a label", p11.CKA_START_DATE, nil))).defect("no templates"),
		)
	}
	// A value of no length where the kind has one.
	for _, t := range []p11.AttributeType{p11.CKA_TOKEN, p11.CKA_MODIFIABLE, p11.CKA_CERTIFICATE_CATEGORY} {
		steps = append(steps, create(append(key(), wire.Attribute{Type: t, Valid: true, Value: []byte{}})).defect("short values"))
	}
	return steps
}

// attributeSteps asks for every attribute of objects of several kinds, with
// every sort of room.
func attributeSteps(k *keyring) []step {
	s := ref("s")
	steps := append(k.importKeys(),
		create(aes(32, p11.CKA_SENSITIVE, true, p11.CKA_EXTRACTABLE, false, p11.CKA_LABEL, "sensitive", p11.CKA_ID, []byte{1, 2, 3},
			p11.CKA_START_DATE, "20260101", p11.CKA_TOKEN, true)).as("sensitive"),
		create(k.certificate).as("cert"),
		create(dataObject(p11.CKA_VALUE, "content", p11.CKA_APPLICATION, "")).as("data"),
		create(aes(16, p11.CKA_ALLOWED_MECHANISMS, []p11.MechanismType{p11.CKM_AES_ECB, p11.CKM_AES_CBC})).as("limited"),
	)
	for _, object := range []ref{"rsa", "rsapub", "ec", "ecpub", "aes", "mac", "sensitive", "cert", "data", "limited"} {
		for _, t := range append(p11.AllAttributeTypes(), 0x200, 0x201, 0x80000001) {
			for _, n := range []int{0, 1, 7, 8, 15, 16, 24, 1000} {
				st := do(wire.CallGetAttributeValue, s, object, wanted(t, n))
				st.random = t == p11.CKA_UNIQUE_ID
				switch {
				case wire.IsTemplate(t):
					st.differs = "templates unread"
				case t == p11.CKA_ALLOWED_MECHANISMS && object == "limited" && n == 0:
					st.differs = "mechanisms counted"
				}
				steps = append(steps, st)
			}
		}
	}
	return append(steps,
		do(wire.CallGetAttributeValue, s, ref("ec"), wanted(p11.CKA_VALUE, 64, p11.CKA_CLASS, 8)),
		do(wire.CallGetAttributeValue, s, ref("ec"), wanted(p11.CKA_CLASS, 8, p11.CKA_MODULUS, 64, p11.CKA_SIGN, 1)),
		do(wire.CallGetAttributeValue, s, ref("ec"), wanted(p11.CKA_CLASS, 8, p11.CKA_EC_PARAMS, 3, p11.CKA_SIGN, 1)),
		do(wire.CallGetAttributeValue, s, ref("ec"), wanted(p11.CKA_EC_PARAMS, 3, p11.CKA_VALUE, 64)),
		do(wire.CallGetAttributeValue, s, ref("ec"), wanted(p11.CKA_VALUE, 64, p11.CKA_EC_PARAMS, 3)),
		do(wire.CallGetAttributeValue, s, ref("ec"), wanted(p11.CKA_VALUE, 64, p11.CKA_MODULUS, 3)),
		do(wire.CallGetAttributeValue, s, ref("ec"), wanted(p11.CKA_MODULUS, 64, p11.CKA_VALUE, 3, p11.CKA_EC_PARAMS, 1)),
		do(wire.CallGetAttributeValue, s, ref("ec"), wanted(p11.CKA_LABEL, 8, p11.CKA_LABEL, 8)),
		do(wire.CallGetAttributeValue, s, ref("ec"), wanted()),
		do(wire.CallGetAttributeValue, s, 0x7ffffff0, wanted(p11.CKA_LABEL, 8)),
		do(wire.CallDestroyObject, s, ref("sensitive")),
	)
}

// arraySteps are about templates in attributes, which servers read and write from
// protocol 1 on.
func arraySteps() []step {
	s := ref("s")
	nested := template(p11.CKA_ENCRYPT, true, p11.CKA_KEY_TYPE, p11.CKK_AES, p11.CKA_LABEL, "a label")
	get := func(object ref, t p11.AttributeType, room int, inner ...int) step {
		w := wire.Wanted{Type: t, Room: uint32(room)}
		for _, n := range inner {
			w.Nested = append(w.Nested, wire.Wanted{Room: uint32(n)})
		}
		return do(wire.CallGetAttributeValue, s, object, append([]wire.Wanted{w}, wanted(p11.CKA_LABEL, 10)...))
	}
	return []step{
		create(aes(16, p11.CKA_WRAP_TEMPLATE, nested)).as("three"),
		create(aes(16, p11.CKA_WRAP_TEMPLATE, template())).as("empty"),
		create(aes(16, p11.CKA_DERIVE_TEMPLATE, nested, p11.CKA_UNWRAP_TEMPLATE, nested)).as("derive"),
		create(aes(16)).as("none"),
		get("three", p11.CKA_WRAP_TEMPLATE, 72, 1, 8, 7),
		get("three", p11.CKA_WRAP_TEMPLATE, 72, 1, 8, 100),
		get("three", p11.CKA_WRAP_TEMPLATE, 72, 0, 0, 0),
		get("three", p11.CKA_WRAP_TEMPLATE, 72, 1, 4, 3),
		get("three", p11.CKA_WRAP_TEMPLATE, 96, 1, 8, 7, 10),
		get("three", p11.CKA_WRAP_TEMPLATE, 48, 1, 8),
		get("three", p11.CKA_WRAP_TEMPLATE, 24, 1),
		get("three", p11.CKA_WRAP_TEMPLATE, 0).defect("rooms misread"),
		get("empty", p11.CKA_WRAP_TEMPLATE, 24, 1),
		get("empty", p11.CKA_WRAP_TEMPLATE, 0).defect("rooms misread"),
		get("derive", p11.CKA_DERIVE_TEMPLATE, 72, 1, 8, 7),
		get("derive", p11.CKA_UNWRAP_TEMPLATE, 72, 1, 8, 7),
		get("none", p11.CKA_WRAP_TEMPLATE, 48, 1, 8),
		get("none", p11.CKA_WRAP_TEMPLATE, 0).defect("rooms misread"),
	}
}

func changeSteps() []step {
	s, key := ref("s"), ref("key")
	steps := []step{
		create(aes(16, p11.CKA_LABEL, "before")).as("key"),
		create(aes(16, p11.CKA_LABEL, "fixed", p11.CKA_MODIFIABLE, false)).as("fixed"),
		do(wire.CallSetAttributeValue, s, ref("fixed"), template(p11.CKA_LABEL, "x")),
	}
	for _, change := range [][]wire.Attribute{
		template(p11.CKA_LABEL, "after", p11.CKA_ID, []byte{1, 2}),
		template(p11.CKA_ENCRYPT, false),
		template(p11.CKA_START_DATE, "20260101", p11.CKA_END_DATE, nil),
		template(p11.CKA_CLASS, p11.CKO_DATA),
		template(p11.CKA_VALUE, "0123456789abcdef"),
		template(p11.CKA_KEY_TYPE, p11.CKK_EC),
		template(p11.CKA_SENSITIVE, true),
		template(p11.CKA_SENSITIVE, false),
		template(p11.CKA_EXTRACTABLE, false),
		template(p11.CKA_EXTRACTABLE, true),
		template(p11.CKA_MODULUS, "x"),
		template(p11.CKA_TRUSTED, true),
		template(p11.CKA_ALLOWED_MECHANISMS, []p11.MechanismType{p11.CKM_AES_ECB}),
		template(p11.AttributeType(0x80000001), "vendor"),
		template(p11.CKA_LABEL, "x", p11.CKA_CLASS, p11.CKO_DATA),
		template(),
	} {
		steps = append(steps, do(wire.CallSetAttributeValue, s, key, change),
			do(wire.CallGetAttributeValue, s, key, wanted(p11.CKA_LABEL, 10, p11.CKA_ENCRYPT, 1, p11.CKA_START_DATE, 8, p11.CKA_END_DATE, 8, p11.CKA_SENSITIVE, 1)))
	}
	return append(steps, do(wire.CallSetAttributeValue, s, 0x7ffffff0, template(p11.CKA_LABEL, "x")))
}

func findSteps(k *keyring) []step {
	s := ref("s")
	steps := k.importKeys()
	for _, label := range []string{"a", "b", "c"} {
		steps = append(steps, create(dataObject(p11.CKA_LABEL, label, p11.CKA_TOKEN, label == "c")))
	}
	steps = append(steps,
		do(wire.CallFindObjects, s, room(1)),
		do(wire.CallFindObjectsFinal, s),
		do(wire.CallFindObjectsInit, s, template()),
		do(wire.CallFindObjectsInit, s, template()),
		do(wire.CallFindObjects, s, room(0)).defect("no objects"),
	)
	for _, t := range [][]wire.Attribute{
		template(),
		template(p11.CKA_CLASS, p11.CKO_DATA),
		template(p11.CKA_CLASS, p11.CKO_DATA, p11.CKA_LABEL, "a"),
		template(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY, p11.CKA_SIGN, true),
		template(p11.CKA_LABEL, "no such"),
		template(p11.CKA_ID, nil),
		template(p11.CKA_ID, []byte{}),
		template(p11.CKA_VALUE, "content"),
		template(p11.CKA_START_DATE, nil),
		template(p11.CKA_UNIQUE_ID, "uid", p11.CKA_PROFILE_ID, p11.Ulong(uint64(64))),
		template(p11.CKA_ALLOWED_MECHANISMS, []p11.MechanismType{p11.CKM_AES_ECB}),
		template(p11.AttributeType(0x80000001), "vendor"),
	} {
		steps = append(steps,
			do(wire.CallFindObjectsFinal, s),
			do(wire.CallFindObjectsInit, s, t),
			do(wire.CallFindObjects, s, room(2)),
			do(wire.CallFindObjects, s, room(1000)),
			do(wire.CallFindObjects, s, room(5)),
		)
	}
	return append(steps, do(wire.CallFindObjectsFinal, s), do(wire.CallFindObjectsFinal, s))
}
