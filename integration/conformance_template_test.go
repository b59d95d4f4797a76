package integration

import (
	"p11fs/p11"
)

// rsaPublic is a public key for C_CreateObject.
const rsaPublic = "class=public-key key-type=rsa token=false private=false public-exponent=0x010001 modulus=0x" +
	"c1a5e0a3f1d6a0a7c6f3b8f0f3fd4ad90b3d9e0c95ad4b0a5f4c7e2b5d9b7e0b1d3f5a7c9e0b2d4f6a8c0e2b4d6f8a0c" +
	"2e4b6d8f0a2c4e6b8d0f2a4c6e8b0d2f4a6c8e0b2d4f6a8c0e2b4d6f8a0c2e4b6d8f0a2c4e6b8d0f2a4c6e8b0d2f4a6c" +
	"8e0b2d4f6a8c0e2b4d6f8a0c2e4b6d8f0a2c4e6b8d0f2a4c6e8b0d2f4a6c8e0b"

// Reasons why doors deviate.
const (
	inconsistent = "what it does not take in a template is inconsistent to it, or read only"
	lengths      = "it looks at the length of no value but a CK_ULONG's"
	encodes      = "the client encodes each value by its kind, and this one not at all"
	oneStream    = "the signature and the data are one stream: what lacks of the one is taken from the other"
)

func templateRules() []tokenRule {
	generate := func(s *handle, words string) answer {
		return s.call("generate", mech(p11.CKM_AES_KEY_GEN), words)
	}
	secretKey := "class=secret-key key-type=generic-secret token=false private=false sensitive=false extractable=true value=0x00112233445566778899aabbccddeeff"
	return []tokenRule{
		{name: "a key wants its length", cites: "§4.1.1, §6.13.3", deviates: stock(inconsistent, map[string]string{"generate": "CKR_TEMPLATE_INCONSISTENT"}), run: func(r *rig) {
			s := r.a.open()
			generate(s, without("token=false private=false sensitive=false extractable=true label=x")).is("generate", p11.CKR_TEMPLATE_INCOMPLETE)
			s.isFound("nothing was made", "", 0)
		}},
		{name: "a length that no key has", cites: "§5.18.1", deviates: stock(inconsistent, map[string]string{"generate": "CKR_TEMPLATE_INCONSISTENT"}), run: func(r *rig) {
			r.a.open().generate("value-len=5 label=x").is("generate", p11.CKR_ATTRIBUTE_VALUE_INVALID)
		}},
		{name: "a mechanism makes keys of its class", cites: "§5.18.1", run: func(r *rig) {
			s := r.a.open()
			s.generate("class=data label=x").is("another class", p11.CKR_TEMPLATE_INCONSISTENT)
			s.generate("key-type=des3 label=x").is("another type", p11.CKR_TEMPLATE_INCONSISTENT)
			s.generate("class=secret-key key-type=aes label=x").is("its own", p11.CKR_OK)
		}},
		{name: "an attribute that the object has not", cites: "§4.1.1", deviates: stock(inconsistent, map[string]string{"another class's": "CKR_TEMPLATE_INCONSISTENT", "a certificate's": "CKR_TEMPLATE_INCONSISTENT"}), run: func(r *rig) {
			s := r.a.open()
			s.generate("modulus-bits=1024 label=x").is("another class's", p11.CKR_ATTRIBUTE_TYPE_INVALID)
			s.generate("certificate-type=x-509 label=x").is("a certificate's", p11.CKR_ATTRIBUTE_TYPE_INVALID)
			s.isFound("nothing was made", "", 0)
		}},
		{name: "what only the token sets", cites: "§4.1.1, footnote 4 of §4.2", deviates: stock(inconsistent, map[string]string{"key-gen-mechanism=aes-key-gen": "CKR_TEMPLATE_INCONSISTENT"}), run: func(r *rig) {
			s := r.a.open()
			for _, one := range []string{"local=true", "key-gen-mechanism=aes-key-gen", "always-sensitive=true", "never-extractable=true"} {
				s.generate(one+" label=x").is(one, p11.CKR_ATTRIBUTE_READ_ONLY)
			}
			s.isFound("nothing was made", "", 0)
		}},
		{name: "a generated key has no value yet", cites: "§4.1.1, footnote 4 of §4.2", deviates: stock("it calls this read only", map[string]string{"generate": "CKR_ATTRIBUTE_READ_ONLY"}), run: func(r *rig) {
			r.a.open().generate("value=0x00112233445566778899aabbccddeeff label=x").is("generate", p11.CKR_TEMPLATE_INCONSISTENT)
		}},
		{name: "a malformed value", cites: "§4.1.1", deviates: and(stock(lengths, map[string]string{"a CK_BBOOL of two bytes": "CKR_OK", "a CK_DATE of four bytes": "CKR_OK", "nothing was made": "2"}), "p11-kit-client", encodes, map[string]string{"a CK_BBOOL of two bytes": "CKR_HOST_MEMORY", "a CK_DATE of four bytes": "CKR_HOST_MEMORY"}), run: func(r *rig) {
			s := r.a.open()
			good := template("token=false private=false sensitive=false extractable=true value-len=16 label=x")
			generate(s, encode(good.With(p11.CKA_ENCRYPT, []byte{1, 1}))).is("a CK_BBOOL of two bytes", p11.CKR_ATTRIBUTE_VALUE_INVALID)
			generate(s, encode(good.With(p11.CKA_START_DATE, []byte("2026")))).is("a CK_DATE of four bytes", p11.CKR_ATTRIBUTE_VALUE_INVALID)
			s.isFound("nothing was made", "", 0)
		}},
		{name: "a mechanism that makes no keys", cites: "§5.18.1", run: func(r *rig) {
			r.a.open().call("generate", mech(p11.CKM_SHA256), aes("label=x")).is("generate", p11.CKR_MECHANISM_INVALID)
		}},
		{name: "the security officer alone trusts", cites: "§4.6.2, footnote 10 of §4.2", deviates: stock("it knows CKA_TRUSTED of no key, and the SO does nothing before the first PIN of a new token is changed", map[string]string{"user": "CKR_TEMPLATE_INCONSISTENT", "SO": "CKR_PIN_EXPIRED"}), run: func(r *rig) {
			s := r.a.opened()
			s.call("create", with(rsaPublic, "trusted=true label=user")).is("user", p11.CKR_ATTRIBUTE_READ_ONLY)
			s.logout().must()
			s.login(p11.CKU_SO, r.so).must()
			s.call("create", with(rsaPublic, "trusted=true label=so")).is("SO", p11.CKR_OK)
		}},
		{name: "an object wants a class", cites: "§4.1.1", files: noMaker, deviates: stock("an unknown class is none", map[string]string{"an unknown one": "CKR_TEMPLATE_INCOMPLETE"}), run: func(r *rig) {
			s := r.a.open()
			s.call("create", words("token=false label=x value=0x00")).is("none", p11.CKR_TEMPLATE_INCOMPLETE)
			s.call("create", words("class=0x7777 token=false label=x")).is("an unknown one", p11.CKR_ATTRIBUTE_VALUE_INVALID)
		}},
		{name: "an object wants its attributes", cites: "§4.1.1, footnote 1 of §4.2", files: noMaker, run: func(r *rig) {
			s := r.a.open()
			s.call("create", without(rsaPublic, p11.CKA_MODULUS)).is("an RSA key's modulus", p11.CKR_TEMPLATE_INCOMPLETE)
			s.call("create", without(rsaPublic, p11.CKA_PUBLIC_EXPONENT)).is("its exponent", p11.CKR_TEMPLATE_INCOMPLETE)
			s.call("create", without(rsaPublic, p11.CKA_KEY_TYPE)).is("a key's type", p11.CKR_TEMPLATE_INCOMPLETE)
			s.call("create", without(secretKey, p11.CKA_VALUE)).is("a secret key's value", p11.CKR_TEMPLATE_INCOMPLETE)
			s.call("create", words("class=certificate certificate-type=x-509 token=false value=0x00")).is("a certificate's subject", p11.CKR_TEMPLATE_INCOMPLETE)
			s.isFound("nothing was made", "", 0)
		}},
		{name: "an imported object says nothing of its past", cites: "§4.1.1, footnote 2 of §4.2", files: noMaker, deviates: stock(inconsistent, map[string]string{"key-gen-mechanism=aes-key-gen": "CKR_TEMPLATE_INCONSISTENT"}), run: func(r *rig) {
			s := r.a.open()
			for _, one := range []string{"local=true", "always-sensitive=true", "never-extractable=true", "key-gen-mechanism=aes-key-gen"} {
				s.call("create", with(secretKey, one)).is(one, p11.CKR_ATTRIBUTE_READ_ONLY)
			}
		}},
		{name: "an imported object has an attribute of another", cites: "§4.1.1", run: func(r *rig) {
			s := r.a.open()
			s.call("create", with(rsaPublic, "url=x label=x")).is("create", p11.CKR_ATTRIBUTE_TYPE_INVALID)
			s.isFound("nothing was made", "", 0)
		}},
		{name: "an imported public key", cites: "§4.8", deviates: stock("knows no CKA_KEY_GEN_MECHANISM of objects", map[string]string{"key-gen-mechanism": "CKR_ATTRIBUTE_TYPE_INVALID"}), run: func(r *rig) {
			s := r.a.open()
			key := s.call("create", with(rsaPublic, "label=imported id=0x07 verify=true encrypt=false")).one()
			s.isAttributes(key, rsaPublic+" label=imported id=0x07 verify=true encrypt=false local=false modulus-bits=1024 key-gen-mechanism=unavailable")
		}},
		{name: "a private data object", cites: "§4.5", run: func(r *rig) {
			data := words("class=data token=true private=true label=note value=0x616263")
			s := r.a.open()
			s.call("create", data).is("public", p11.CKR_USER_NOT_LOGGED_IN)
			s.login(p11.CKU_USER, userPIN).must()
			key := s.call("create", data).is("user", p11.CKR_OK).one()
			s.isAttributes(key, "class=data token=true private=true label=note value=0x616263 modifiable=true")
			s.set(key, "label=changed").is("changed", p11.CKR_OK)
		}},
		{name: "default values", cites: "§4.4, §4.7", deviates: stock("it is older than CKA_COPYABLE and CKA_DESTROYABLE", map[string]string{"copyable": "CKR_ATTRIBUTE_TYPE_INVALID", "destroyable": "CKR_ATTRIBUTE_TYPE_INVALID"}), run: func(r *rig) {
			s := r.a.open()
			s.isAttributes(s.key("label=x"), `modifiable=true copyable=true destroyable=true id="" start-date="" end-date="" derive=false class=secret-key key-type=aes`)
		}},
		{name: "an object is a session object unless it says otherwise", cites: "§4.4 CKA_TOKEN", files: "generate and import keep what they make", run: func(r *rig) {
			s := r.a.open()
			key := generate(s, words("private=false value-len=16")).one()
			s.isAttributes(key, `token=false label=""`)
		}},
		{name: "a copy is an object of its own", cites: "§5.7.2", files: noCopy, run: func(r *rig) {
			s, other := r.a.open(), r.a.open()
			key := s.key("label=one id=0x01")
			copied := other.call("copy", key, words("label=two")).one()
			other.isAttributes(copied, "label=two id=0x01 class=secret-key token=false value-len=16")
			s.call("destroy", key).must()
			other.isVisible("after the first is gone", copied, p11.CKR_OK)
			s.close().must()
			other.isVisible("after the session of the first", copied, p11.CKR_OK)
		}},
		{name: "a copy may be of another kind", cites: "§5.7.2", files: noCopy, run: func(r *rig) {
			s := r.a.opened()
			key := s.key("label=one")
			s.isAttributes(s.call("copy", key, words("token=true label=stored")).one(), "token=true private=false label=stored")
			s.isAttributes(s.call("copy", key, words("private=true label=hidden")).one(), "token=false private=true label=hidden")
			s.logout().must()
			s.call("copy", key, words("private=true")).is("a private one without login", p11.CKR_USER_NOT_LOGGED_IN)
		}},
		{name: "a copy betrays no secret", cites: "§5.7.2, §4.10", files: noCopy, run: func(r *rig) {
			s := r.a.open()
			key := s.key("label=one sensitive=true extractable=false")
			s.call("copy", key, words("sensitive=false")).is("sensitive", p11.CKR_ATTRIBUTE_READ_ONLY)
			s.call("copy", key, words("extractable=true")).is("extractable", p11.CKR_ATTRIBUTE_READ_ONLY)
			s.call("copy", key, words("class=data")).is("class", p11.CKR_ATTRIBUTE_READ_ONLY)
			s.isAttributes(s.call("copy", s.key("label=two"), words("sensitive=true extractable=false")).one(), "sensitive=true extractable=false always-sensitive=false never-extractable=false")
		}},
		{name: "what is not copyable is not copied", cites: "§5.7.2, §4.4 CKA_COPYABLE", files: noCopy, deviates: stock("it is older than CKA_COPYABLE", map[string]string{"made": "CKR_ATTRIBUTE_TYPE_INVALID"}), run: func(r *rig) {
			s := r.a.open()
			got := s.generate("label=one copyable=false").is("made", p11.CKR_OK)
			if got.rv != p11.CKR_OK {
				return
			}
			s.call("copy", got.one(), words("")).is("copy", p11.CKR_ACTION_PROHIBITED)
		}},
	}
}

func attributeRules() []tokenRule {
	return []tokenRule{
		{name: "a label is changed", cites: "§5.7.6", run: func(r *rig) {
			s := r.a.open()
			key := s.key("label=old")
			s.set(key, `id=0x0102`).is("the id", p11.CKR_OK)
			s.isAttributes(key, "id=0x0102 label=old")
		}},
		{name: "what is never changed", cites: "§5.7.6, §4.2 footnotes", deviates: stock(inconsistent, map[string]string{"key-gen-mechanism=unavailable": "CKR_TEMPLATE_INCONSISTENT", "value-len=32": "CKR_TEMPLATE_INCONSISTENT"}), run: func(r *rig) {
			s := r.a.opened()
			key := s.key("label=x")
			for _, one := range []string{"class=data", "key-type=des3", "token=true", "private=true", "local=false", "key-gen-mechanism=unavailable", "value-len=32", "always-sensitive=true", "never-extractable=true", "modifiable=false"} {
				s.set(key, one).is(one, p11.CKR_ATTRIBUTE_READ_ONLY)
			}
			s.isAttributes(key, "class=secret-key key-type=aes token=false private=false local=true value-len=16 modifiable=true")
		}},
		{name: "what becomes a secret stays one", cites: "§4.10, footnotes 11 and 12 of §4.2", run: func(r *rig) {
			s := r.a.open()
			key := s.key("label=x")
			s.set(key, "sensitive=true").is("sensitive", p11.CKR_OK)
			s.set(key, "sensitive=false").is("no more sensitive", p11.CKR_ATTRIBUTE_READ_ONLY)
			s.set(key, "extractable=false").is("not extractable", p11.CKR_OK)
			s.set(key, "extractable=true").is("extractable again", p11.CKR_ATTRIBUTE_READ_ONLY)
			s.isAttributes(key, "sensitive=true extractable=false always-sensitive=false never-extractable=false")
		}},
		{name: "an attribute that there is not", cites: "§5.7.5, §5.7.6", deviates: stock(inconsistent, map[string]string{"set": "CKR_TEMPLATE_INCONSISTENT"}), run: func(r *rig) {
			s := r.a.open()
			key := s.key("label=x")
			s.get(key, p11.CKA_MODULUS).is("get", p11.CKR_ATTRIBUTE_TYPE_INVALID)
			s.set(key, "subject=0x01").is("set", p11.CKR_ATTRIBUTE_TYPE_INVALID)
		}},
		{name: "a malformed value is not set", cites: "§5.7.6", deviates: and(stock(lengths, map[string]string{"a CK_BBOOL of two bytes": "CKR_OK", "encrypt": "invalid:0x0101"}), "p11-kit-client", encodes, map[string]string{"a CK_BBOOL of two bytes": "CKR_HOST_MEMORY"}), run: func(r *rig) {
			s := r.a.open()
			key := s.key("label=x")
			s.call("set", key, encode(p11.Attributes{{Type: p11.CKA_ENCRYPT, Value: []byte{1, 1}}})).is("a CK_BBOOL of two bytes", p11.CKR_ATTRIBUTE_VALUE_INVALID)
			s.isAttributes(key, "encrypt=true")
		}},
		{name: "a template is set whole or not at all", cites: "§5.7.6", files: "a file sets one attribute", run: func(r *rig) {
			s := r.a.open()
			key := s.key("label=old")
			s.set(key, "label=new class=data").is("set", p11.CKR_ATTRIBUTE_READ_ONLY)
			s.isAttributes(key, "label=old")
		}},
		{name: "what is not modifiable is not changed", cites: "§5.7.6, §4.4 CKA_MODIFIABLE", deviates: stock("it is older than CKR_ACTION_PROHIBITED", map[string]string{"set": "CKR_ATTRIBUTE_READ_ONLY"}), run: func(r *rig) {
			s := r.a.open()
			key := s.key("label=x modifiable=false")
			s.set(key, "id=0x01").is("set", p11.CKR_ACTION_PROHIBITED)
			s.isAttributes(key, `modifiable=false id=""`)
			s.call("destroy", key).is("destroy", p11.CKR_OK)
		}},
		{name: "what is not destroyable is not destroyed", cites: "§5.7.3, §4.4 CKA_DESTROYABLE", deviates: stock("it is older than CKA_DESTROYABLE", map[string]string{"made": "CKR_ATTRIBUTE_TYPE_INVALID"}), run: func(r *rig) {
			s := r.a.open()
			got := s.generate("label=x destroyable=false").is("made", p11.CKR_OK)
			if got.rv != p11.CKR_OK {
				return
			}
			key := got.one()
			s.call("destroy", key).is("destroy", p11.CKR_ACTION_PROHIBITED)
			s.isVisible("and stays", key, p11.CKR_OK)
		}},
		{name: "a secret does not read back", cites: "§5.7.5, §4.10", run: func(r *rig) {
			s := r.a.open()
			s.get(s.key("label=sensitive sensitive=true"), p11.CKA_VALUE).is("sensitive", p11.CKR_ATTRIBUTE_SENSITIVE)
			s.get(s.key("label=kept extractable=false"), p11.CKA_VALUE).is("not extractable", p11.CKR_ATTRIBUTE_SENSITIVE)
			got := s.get(s.key("label=open"), p11.CKA_VALUE).is("neither", p11.CKR_OK)
			if got.rv == p11.CKR_OK {
				r.is("16 bytes", itoa(len(got.one())), "32")
			}
		}},
		{name: "a private key's secret does not read back", cites: "§5.7.5, §4.9", run: func(r *rig) {
			s := r.a.opened()
			_, private := s.pair("sensitive=true extractable=false label=pair")
			s.get(private, p11.CKA_PRIVATE_EXPONENT).is("private exponent", p11.CKR_ATTRIBUTE_SENSITIVE)
			s.get(private, p11.CKA_PRIME_1).is("prime 1", p11.CKR_ATTRIBUTE_SENSITIVE)
			s.get(private, p11.CKA_MODULUS).is("modulus", p11.CKR_OK)
		}},
		{name: "the past of a generated key", cites: "§4.10, §5.18.1", deviates: stock("knows no CKA_KEY_GEN_MECHANISM of objects", map[string]string{"key-gen-mechanism": "CKR_ATTRIBUTE_TYPE_INVALID"}), run: func(r *rig) {
			s := r.a.open()
			s.isAttributes(s.key("label=guarded sensitive=true extractable=false"), "local=true key-gen-mechanism=aes-key-gen always-sensitive=true never-extractable=true")
			s.isAttributes(s.key("label=open"), "local=true key-gen-mechanism=aes-key-gen always-sensitive=false never-extractable=false")
		}},
		{name: "the past of a generated pair", cites: "§4.9, §5.18.2", deviates: stock("knows no CKA_KEY_GEN_MECHANISM of objects", map[string]string{"key-gen-mechanism": "CKR_ATTRIBUTE_TYPE_INVALID"}), run: func(r *rig) {
			s := r.a.opened()
			public, private := s.pair("sensitive=true extractable=false label=pair id=0x01")
			s.isAttributes(public, "class=public-key key-type=rsa local=true key-gen-mechanism=rsa-pkcs-key-pair-gen id=0x01 modulus-bits="+itoa(r.rsaBits()))
			s.isAttributes(private, "class=private-key key-type=rsa local=true key-gen-mechanism=rsa-pkcs-key-pair-gen always-sensitive=true never-extractable=true id=0x01")
		}},
		{name: "the past of an unwrapped key", cites: "§5.18.4", deviates: stock("knows no CKA_KEY_GEN_MECHANISM of objects", map[string]string{"key-gen-mechanism": "CKR_ATTRIBUTE_TYPE_INVALID"}), run: func(r *rig) {
			s := r.a.open()
			by, key := s.key("label=by wrap=true unwrap=true"), s.key("label=key")
			made := s.call("wrap", by, r.wraps(), key).is("wrap", p11.CKR_OK)
			if made.rv != p11.CKR_OK {
				return
			}
			got := s.call("unwrap", by, r.wraps(), made.one(), words("class=secret-key key-type=aes token=false private=false encrypt=true label=again")).one()
			s.isAttributes(got, "local=false key-gen-mechanism=unavailable always-sensitive=false never-extractable=false class=secret-key key-type=aes")
			ecb := mech(p11.CKM_AES_ECB)
			r.is("the same value", s.operate("one", "encrypt", got, ecb, block).one(), s.operate("one", "encrypt", key, ecb, block).one())
		}},
	}
}
