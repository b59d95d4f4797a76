package rpc

import (
	"p11fs/mountd/rpc/wire"
	"p11fs/p11"
)

func keyScenes(k *keyring) []scene {
	with := func(steps []step) []step { return begin(append(k.importKeys(), steps...)...) }
	return []scene{
		{name: "generating", steps: with(generateSteps())},
		{name: "wrapping", steps: with(wrapSteps())},
		{name: "deriving", since: wire.V1, steps: with(deriveSteps(k, wire.CallDeriveKey))},
		{name: "deriving with C_DeriveKey2", since: wire.V2, steps: with(deriveSteps(k, wire.CallDeriveKey2))},
	}
}

func generateSteps() []step {
	s := ref("s")
	p256, _ := p11.CurveParams("secp256r1")
	exponent := []byte{1, 0, 1}
	key := func(t p11.MechanismType, pairs ...any) step {
		return do(wire.CallGenerateKey, s, m(t), template(pairs...))
	}
	pair := func(t p11.MechanismType, public, private []wire.Attribute) step {
		return do(wire.CallGenerateKeyPair, s, m(t), public, private)
	}
	return []step{
		key(p11.CKM_AES_KEY_GEN, p11.CKA_VALUE_LEN, 16, p11.CKA_ENCRYPT, true, p11.CKA_EXTRACTABLE, true, p11.CKA_SENSITIVE, false).as("new"),
		do(wire.CallGetAttributeValue, s, ref("new"), wanted(p11.CKA_VALUE, 16, p11.CKA_VALUE_LEN, 8, p11.CKA_LOCAL, 1, p11.CKA_KEY_GEN_MECHANISM, 8)).unlike(),
		key(p11.CKM_AES_KEY_GEN, p11.CKA_VALUE_LEN, 17),
		key(p11.CKM_AES_KEY_GEN),
		key(p11.CKM_AES_KEY_GEN, p11.CKA_VALUE_LEN, 16, p11.CKA_VALUE, "0123456789abcdef"),
		key(p11.CKM_AES_KEY_GEN, p11.CKA_VALUE_LEN, 16, p11.CKA_KEY_TYPE, p11.CKK_EC),
		key(p11.CKM_GENERIC_SECRET_KEY_GEN, p11.CKA_VALUE_LEN, 40).as("new"),
		key(p11.CKM_EC_KEY_PAIR_GEN),
		key(p11.CKM_DES3_KEY_GEN),
		pair(p11.CKM_EC_KEY_PAIR_GEN, template(p11.CKA_EC_PARAMS, p256, p11.CKA_VERIFY, true), template(p11.CKA_SIGN, true, p11.CKA_TOKEN, true)).as("pub priv"),
		do(wire.CallGetAttributeValue, s, ref("pub"), wanted(p11.CKA_EC_POINT, 100, p11.CKA_EC_PARAMS, 10, p11.CKA_LOCAL, 1)).unlike(),
		do(wire.CallDestroyObject, s, ref("priv")),
		pair(p11.CKM_EC_KEY_PAIR_GEN, template(), template()),
		pair(p11.CKM_EC_KEY_PAIR_GEN, template(p11.CKA_EC_PARAMS, "no curve"), template()),
		pair(p11.CKM_RSA_PKCS_KEY_PAIR_GEN, template(p11.CKA_MODULUS_BITS, 2048, p11.CKA_PUBLIC_EXPONENT, exponent), template(p11.CKA_DECRYPT, true)).as("pub priv"),
		do(wire.CallGetAttributeValue, s, ref("pub"), wanted(p11.CKA_MODULUS, 256, p11.CKA_MODULUS_BITS, 8, p11.CKA_PUBLIC_EXPONENT, 3)).unlike(),
		pair(p11.CKM_RSA_PKCS_KEY_PAIR_GEN, template(p11.CKA_PUBLIC_EXPONENT, exponent), template()),
		pair(p11.CKM_RSA_PKCS_KEY_PAIR_GEN, template(p11.CKA_MODULUS_BITS, 7), template()),
		pair(p11.CKM_AES_KEY_GEN, template(), template()),
	}
}

func wrapSteps() []step {
	s := ref("s")
	secret := template(p11.CKA_CLASS, p11.CKO_SECRET_KEY, p11.CKA_KEY_TYPE, p11.CKK_GENERIC_SECRET, p11.CKA_EXTRACTABLE, true, p11.CKA_SENSITIVE, false)
	var steps []step
	wrap := func(mech wire.Mechanism, with, unwith ref, size int, random bool) {
		for _, r := range append(rooms(size), noRoom) {
			st := do(wire.CallWrapKey, s, mech, with, ref("mac"), r).as("wrapped")
			st.random = random
			if r == noRoom {
				st.since = wire.V1
				st.keeps = ""
			}
			steps = append(steps, st)
		}
		steps = append(steps,
			do(wire.CallUnwrapKey, s, mech, unwith, kept("wrapped"), secret).as("back"),
			do(wire.CallGetAttributeValue, s, ref("back"), wanted(p11.CKA_VALUE, 100, p11.CKA_LOCAL, 1)),
			do(wire.CallUnwrapKey, s, mech, unwith, []byte("not wrapped"), secret),
			do(wire.CallUnwrapKey, s, mech, unwith, []byte{}, secret),
			do(wire.CallUnwrapKey, s, mech, unwith, none{}, secret).defect("NULL misread"),
			do(wire.CallUnwrapKey, s, mech, unwith, kept("wrapped"), template()),
			do(wire.CallUnwrapKey, s, mech, 0x7ffffff0, kept("wrapped"), secret),
			do(wire.CallWrapKey, s, mech, 0x7ffffff0, ref("mac"), room(512)),
			do(wire.CallWrapKey, s, mech, with, 0x7ffffff0, room(512)),
		)
	}
	wrap(m(p11.CKM_RSA_PKCS), "rsapub", "rsa", 256, true)
	wrap(m(p11.CKM_RSA_PKCS_OAEP, &p11.OAEPParams{Hash: p11.CKM_SHA_1, MGF: 1}), "rsapub", "rsa", 256, true)
	wrap(m(p11.CKM_AES_ECB), "aes", "aes", 32, false)
	at := len(steps)
	wrap(m(p11.CKM_AES_CBC_PAD, iv16), "aes", "aes", 48, false)
	wrap(m(p11.CKM_AES_CBC, iv16), "aes", "aes", 32, false)
	for i := at; i < len(steps); i++ {
		steps[i].since = max(steps[i].since, wire.V1)
	}
	return append(steps,
		create(aes(16, p11.CKA_EXTRACTABLE, false)).as("stays"),
		do(wire.CallWrapKey, s, m(p11.CKM_AES_ECB), ref("aes"), ref("stays"), room(512)),
		do(wire.CallWrapKey, s, m(p11.CKM_AES_ECB), ref("mac"), ref("aes"), room(512)),
		do(wire.CallWrapKey, s, m(p11.CKM_AES_ECB), ref("aes"), ref("ecpub"), room(512)),
		do(wire.CallWrapKey, s, m(p11.CKM_SHA256), ref("aes"), ref("mac"), room(512)),
	)
}

func deriveSteps(k *keyring, call wire.Call) []step {
	s := ref("s")
	result := template(p11.CKA_CLASS, p11.CKO_SECRET_KEY, p11.CKA_KEY_TYPE, p11.CKK_GENERIC_SECRET, p11.CKA_VALUE_LEN, 32, p11.CKA_EXTRACTABLE, true, p11.CKA_SENSITIVE, false)
	ecdh := func(kdf p11.KDF, shared, public []byte) wire.Mechanism {
		return m(p11.CKM_ECDH1_DERIVE, &p11.ECDH1Params{KDF: kdf, SharedData: shared, PublicData: public})
	}
	get := do(wire.CallGetAttributeValue, s, ref("derived"), wanted(p11.CKA_VALUE, 100, p11.CKA_LOCAL, 1))
	return []step{
		do(call, s, ecdh(p11.CKD_NULL, nil, k.ecPoint), ref("ec"), result).as("derived"), get,
		do(call, s, ecdh(p11.CKD_SHA1_KDF, nil, k.ecPoint), ref("ec"), result).as("derived"), get,
		do(call, s, ecdh(p11.CKD_SHA1_KDF, []byte("shared"), k.ecPoint), ref("ec"), result).as("derived"), get,
		do(call, s, ecdh(p11.CKD_NULL, []byte("shared"), k.ecPoint), ref("ec"), result),
		do(call, s, ecdh(99, nil, k.ecPoint), ref("ec"), result),
		do(call, s, ecdh(p11.CKD_NULL, nil, nil), ref("ec"), result),
		do(call, s, ecdh(p11.CKD_NULL, nil, []byte("no point")), ref("ec"), result),
		do(call, s, ecdh(p11.CKD_NULL, nil, k.ecPoint), ref("rsa"), result),
		do(call, s, ecdh(p11.CKD_NULL, nil, k.ecPoint), 0x7ffffff0, result),
		do(call, s, ecdh(p11.CKD_NULL, nil, k.ecPoint), ref("ec"), template()),
		do(call, s, m(p11.CKM_SHA256), ref("ec"), result),
	}
}

// laterScenes are of the calls that came with protocol 1, and of what it says in
// other ways.
func laterScenes(k *keyring) []scene {
	s := ref("s")
	sign := do(wire.CallSignInit, s, m(p11.CKM_SHA256_HMAC), ref("mac"))
	null := wire.Mechanism{Null: true}
	text := []byte("text")
	return []scene{
		{name: "cancelling", since: wire.V1, steps: begin(append(k.importKeys(),
			do(wire.CallSessionCancel, s, p11.CKF_SIGN),
			sign, do(wire.CallSessionCancel, s, p11.CKF_SIGN), do(wire.CallSign, s, text, room(32)),
			sign, do(wire.CallSessionCancel, s, p11.CKF_ENCRYPT), do(wire.CallSign, s, text, room(32)),
			do(wire.CallSessionCancel, s, 0),
			do(wire.CallSessionCancel, s, 1<<40),
			sign, do(wire.CallSignInit, s, null, ref("mac")), do(wire.CallSign, s, text, room(32)),
			do(wire.CallSignInit, s, null, ref("mac")),
			do(wire.CallVerifyInit, s, m(p11.CKM_SHA256_HMAC), ref("mac")), do(wire.CallVerifyInit, s, null, 0), do(wire.CallVerify, s, text, text),
			do(wire.CallEncryptInit, s, m(p11.CKM_AES_ECB), ref("aes")), do(wire.CallEncryptInit, s, null, 0), do(wire.CallEncrypt, s, plain, room(32)),
			do(wire.CallDecryptInit, s, m(p11.CKM_AES_ECB), ref("aes")), do(wire.CallDecryptInit, s, null, 0), do(wire.CallDecrypt, s, plain, room(32)),
			do(wire.CallDigestInit, s, m(p11.CKM_SHA256)), do(wire.CallDigestInit, s, null), do(wire.CallDigest, s, text, room(32)),
			do(wire.CallSignRecoverInit, s, m(p11.CKM_RSA_PKCS), ref("rsa")), do(wire.CallSignRecoverInit, s, null, 0), do(wire.CallSignRecover, s, text, room(256)),
			do(wire.CallVerifyRecoverInit, s, m(p11.CKM_RSA_PKCS), ref("rsapub")), do(wire.CallVerifyRecoverInit, s, null, 0), do(wire.CallVerifyRecover, s, text, room(256)),
			do(wire.CallFindObjectsInit, s, template()), do(wire.CallSessionCancel, s, p11.CKF_FIND_OBJECTS), do(wire.CallFindObjects, s, room(1)),
		)...)},
		{name: "NULL mechanisms", since: wire.V1, steps: begin(append(k.importKeys(),
			do(wire.CallGenerateKey, s, null, template()),
			do(wire.CallGenerateKeyPair, s, null, template(), template()),
			do(wire.CallWrapKey, s, null, ref("aes"), ref("mac"), room(100)),
			do(wire.CallUnwrapKey, s, null, ref("aes"), text, template()),
			do(wire.CallDeriveKey, s, null, ref("ec"), template()),
		)...)},
		{name: "buffers of no length", since: wire.V1, steps: begin(append(k.importKeys(),
			do(wire.CallDigestInit, s, m(p11.CKM_SHA256)),
			do(wire.CallDigest, s, text, noRoom), do(wire.CallDigestUpdate, s, text), do(wire.CallDigestFinal, s, noRoom), do(wire.CallDigestFinal, s, room(32)),
			sign, do(wire.CallSign, s, text, noRoom), do(wire.CallSign, s, text, room(32)),
			do(wire.CallEncryptInit, s, m(p11.CKM_AES_ECB), ref("aes")),
			do(wire.CallEncrypt, s, plain, noRoom), do(wire.CallEncryptUpdate, s, plain, noRoom), do(wire.CallEncryptUpdate, s, []byte{}, noRoom),
			do(wire.CallEncryptFinal, s, noRoom), do(wire.CallEncryptFinal, s, noRoom),
			do(wire.CallEncryptInit, s, m(p11.CKM_AES_ECB), ref("aes")), do(wire.CallEncrypt, s, []byte{}, noRoom),
			do(wire.CallGenerateRandom, s, noRoom),
			do(wire.CallGetOperationState, s, noRoom),
		)...)},
		{name: "C_LoginUser", since: wire.V1, steps: []step{
			open(),
			do(wire.CallLoginUser, s, p11.CKU_USER, []byte(userPIN), []byte("bob")),
			do(wire.CallLoginUser, s, p11.CKU_USER, []byte("wrong pin"), none{}),
			do(wire.CallLoginUser, s, p11.CKU_USER, none{}, none{}),
			do(wire.CallLoginUser, s, p11.CKU_USER, []byte(userPIN), none{}),
			do(wire.CallLogout, s),
			do(wire.CallLoginUser, s, p11.CKU_USER, []byte(userPIN), []byte{}),
			do(wire.CallGetSessionInfo, s),
		}},
		{name: "messages", since: wire.V1, steps: begin(append(k.importKeys(),
			do(wire.CallMessageSignInit, s, m(p11.CKM_SHA256_HMAC), ref("mac")),
			do(wire.CallSignMessage, s, none{}, text, room(32)),
			do(wire.CallSignMessageBegin, s, none{}),
			do(wire.CallSignMessageNext, s, none{}, text, byte(0), room(0)),
			do(wire.CallSignMessageNext, s, none{}, text, byte(1), room(32)),
			do(wire.CallMessageSignFinal, s),
			do(wire.CallMessageVerifyInit, s, m(p11.CKM_SHA256_HMAC), ref("mac")),
			do(wire.CallVerifyMessage, s, none{}, text, text),
			do(wire.CallVerifyMessageBegin, s, none{}),
			do(wire.CallVerifyMessageNext, s, none{}, text, none{}),
			do(wire.CallVerifyMessageNext, s, none{}, text, text),
			do(wire.CallMessageVerifyFinal, s),
			do(wire.CallMessageEncryptInit, s, m(p11.CKM_AES_ECB), ref("aes")),
			do(wire.CallMessageDecryptInit, s, m(p11.CKM_AES_ECB), ref("aes")),
			do(wire.CallEncryptMessage, s, none{}, none{}, text, room(32)),
			do(wire.CallDecryptMessage, s, none{}, none{}, text, room(32)),
			do(wire.CallMessageEncryptFinal, s),
			do(wire.CallMessageDecryptFinal, s),
		)...)},
	}
}
