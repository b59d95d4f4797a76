package rpc

import (
	"p11fs/mountd/rpc/wire"
	"p11fs/p11"
)

var (
	iv16  = p11.IV("0123456789abcdef")
	plain = []byte("thirty-two bytes are two blocks.")
)

func cryptoScenes(k *keyring) []scene {
	with := func(steps []step) []step { return begin(append(k.importKeys(), steps...)...) }
	return []scene{
		{name: "digests", steps: with(digestSteps())},
		{name: "signatures", steps: with(signSteps())},
		{name: "recovery", steps: with(recoverSteps())},
		{name: "encryption", steps: with(cipherSteps())},
		{name: "encryption with parameters", since: wire.V1, steps: with(parameterCipherSteps())},
		{name: "two at once", steps: with(dualSteps())},
		{name: "all mechanisms", steps: with(mechanismSteps())},
		{name: "parameters", steps: with(parameterSteps())},
	}
}

func digestSteps() []step {
	s, text := ref("s"), []byte("abc")
	var steps []step
	for _, d := range []struct {
		t    p11.MechanismType
		size int
	}{{p11.CKM_SHA_1, 20}, {p11.CKM_SHA256, 32}, {p11.CKM_SHA384, 48}, {p11.CKM_SHA512, 64}, {p11.CKM_MD5, 16}} {
		for _, r := range rooms(d.size) {
			steps = append(steps,
				do(wire.CallDigestInit, s, m(d.t)),
				do(wire.CallDigest, s, text, r),
				do(wire.CallDigest, s, text, room(64)), // ends it, or says that it ended
				do(wire.CallDigestInit, s, m(d.t)),
				do(wire.CallDigestUpdate, s, text),
				do(wire.CallDigestUpdate, s, []byte{}),
				do(wire.CallDigestFinal, s, r),
				do(wire.CallDigestFinal, s, room(64)),
			)
		}
	}
	return append(steps,
		do(wire.CallDigestInit, s, m(p11.CKM_SHA256)),
		do(wire.CallDigestInit, s, m(p11.CKM_SHA256)), // active
		do(wire.CallDigestUpdate, s, none{}),
		do(wire.CallDigestKey, s, ref("mac")),
		do(wire.CallDigestKey, s, ref("rsa")),
		do(wire.CallDigestKey, s, 0x7ffffff0),
		do(wire.CallDigestFinal, s, room(32)),
		do(wire.CallDigestUpdate, s, text),
		do(wire.CallDigestKey, s, ref("mac")),
		do(wire.CallDigestInit, s, m(p11.CKM_SHA256)),
		do(wire.CallDigestUpdate, s, text),
		do(wire.CallDigest, s, text, room(32)),
		do(wire.CallDigestFinal, s, room(32)),
		do(wire.CallDigestInit, s, m(p11.CKM_AES_ECB)),
		do(wire.CallDigestInit, s, m(p11.CKM_SHA256)),
		do(wire.CallDigest, s, []byte{}, room(32)),
		do(wire.CallDigestInit, s, m(p11.CKM_SHA256)),
		do(wire.CallGetOperationState, s, room(0)),
		do(wire.CallGetOperationState, s, room(1000)).unlike(),
		do(wire.CallDigestFinal, s, room(32)),
	)
}

// A signer is a mechanism with its keys, and how long its signatures are.
type signer struct {
	mechanism   wire.Mechanism
	key, public ref
	size        int
	parts       bool // it signs data of any length, in parts
	random      bool // no two signatures are the same
}

func signSteps() []step {
	s, hash := ref("s"), []byte("a hash of thirty-two bytes......")
	pss := &p11.PSSParams{Hash: p11.CKM_SHA256, MGF: p11.MGFOf(p11.CKM_SHA256), SaltLen: 32}
	var steps []step
	for _, g := range []signer{
		{m(p11.CKM_RSA_PKCS), "rsa", "rsapub", 256, false, false},
		{m(p11.CKM_SHA256_RSA_PKCS), "rsa", "rsapub", 256, true, false},
		{m(p11.CKM_SHA1_RSA_PKCS), "rsa", "rsapub", 256, true, false},
		{m(p11.CKM_RSA_PKCS_PSS, pss), "rsa", "rsapub", 256, false, true},
		{m(p11.CKM_RSA_X_509), "rsa", "rsapub", 256, false, false},
		{m(p11.CKM_ECDSA), "ec", "ecpub", 64, false, true},
		{m(p11.CKM_ECDSA_SHA1), "ec", "ecpub", 64, true, true},
		{m(p11.CKM_SHA256_HMAC), "mac", "mac", 32, true, false},
		{m(p11.CKM_SHA_1_HMAC), "mac", "mac", 20, true, false},
	} {
		steps = append(steps, signWith(g)...)
	}
	return append(steps,
		do(wire.CallSignInit, s, m(p11.CKM_ECDSA), 0x7ffffff0),
		do(wire.CallSignInit, s, m(p11.CKM_ECDSA), ref("rsa")),
		do(wire.CallSignInit, s, m(p11.CKM_ECDSA), ref("ecpub")),
		do(wire.CallSignInit, s, m(p11.CKM_SHA256), ref("ec")),
		do(wire.CallVerifyInit, s, m(p11.CKM_ECDSA), ref("ec")),
		do(wire.CallVerifyInit, s, m(p11.CKM_ECDSA), 0x7ffffff0),
		do(wire.CallSignInit, s, m(p11.CKM_ECDSA), ref("ec")),
		do(wire.CallSignInit, s, m(p11.CKM_ECDSA), ref("ec")), // active
		do(wire.CallSignUpdate, s, hash),
		do(wire.CallSignFinal, s, room(64)).unlike(),
		do(wire.CallSignInit, s, m(p11.CKM_RSA_PKCS), ref("rsa")),
		do(wire.CallSign, s, make([]byte, 250), room(256)), // too long
		do(wire.CallSign, s, hash, room(256)),
		do(wire.CallVerifyInit, s, m(p11.CKM_RSA_PKCS), ref("rsapub")),
		do(wire.CallVerify, s, hash, []byte("short")),
		do(wire.CallVerify, s, hash, []byte("short")),
		do(wire.CallVerifyInit, s, m(p11.CKM_RSA_PKCS), ref("rsapub")),
		do(wire.CallVerify, s, hash, make([]byte, 256)),
		do(wire.CallVerifyUpdate, s, hash),
		do(wire.CallVerifyFinal, s, hash),
		do(wire.CallSign, s, hash, room(256)),
		do(wire.CallSignUpdate, s, hash),
		do(wire.CallSignFinal, s, room(256)),
		do(wire.CallSignInit, s, m(p11.CKM_SHA256_HMAC), ref("mac")),
		do(wire.CallSignUpdate, s, none{}),
		do(wire.CallSignFinal, s, room(32)),
		do(wire.CallVerifyInit, s, m(p11.CKM_SHA256_HMAC), ref("mac")),
		do(wire.CallVerifyUpdate, s, none{}),
		do(wire.CallVerifyFinal, s, none{}),
	)
}

func signWith(g signer) []step {
	s, hash := ref("s"), []byte("a hash of thirty-two bytes......")
	var steps []step
	one := func(call wire.Call, args ...any) {
		st := do(call, args...).as("signature")
		st.random = g.random
		steps = append(steps, st)
	}
	init := func() { steps = append(steps, do(wire.CallSignInit, s, g.mechanism, g.key)) }
	for _, r := range rooms(g.size) {
		init()
		one(wire.CallSign, s, hash, r)
		one(wire.CallSign, s, hash, room(g.size)) // ends it, or says that it ended
		if !g.parts {
			continue
		}
		init()
		one(wire.CallSignUpdate, s, hash)
		one(wire.CallSignUpdate, s, []byte{})
		one(wire.CallSignFinal, s, r)
		one(wire.CallSignFinal, s, room(g.size))
	}
	init()
	one(wire.CallSign, s, hash, room(512))
	verify := do(wire.CallVerifyInit, s, g.mechanism, g.public)
	steps = append(steps,
		verify, do(wire.CallVerify, s, hash, kept("signature")),
		do(wire.CallVerify, s, hash, kept("signature")),
		verify, do(wire.CallVerify, s, []byte("other data"), kept("signature")),
		verify, do(wire.CallVerify, s, hash, []byte{}),
		verify, do(wire.CallVerify, s, hash, none{}),
	)
	if g.parts {
		steps = append(steps,
			verify, do(wire.CallVerifyUpdate, s, hash[:5]), do(wire.CallVerifyUpdate, s, hash[5:]), do(wire.CallVerifyFinal, s, kept("signature")),
			do(wire.CallVerifyFinal, s, kept("signature")),
		)
	}
	return steps
}

func recoverSteps() []step {
	s, text := ref("s"), []byte("recovered")
	var steps []step
	for _, t := range []p11.MechanismType{p11.CKM_RSA_PKCS, p11.CKM_RSA_X_509} {
		size := len(text)
		if t == p11.CKM_RSA_X_509 {
			size = 256
		}
		for _, r := range rooms(256) {
			steps = append(steps, do(wire.CallSignRecoverInit, s, m(t), ref("rsa")), do(wire.CallSignRecover, s, text, r),
				do(wire.CallSignRecover, s, text, room(256)).as("signature"))
		}
		steps = append(steps, do(wire.CallSignRecoverInit, s, m(t), ref("rsa")), do(wire.CallSignRecover, s, text, room(256)).as("signature"))
		for _, r := range rooms(size) {
			steps = append(steps, do(wire.CallVerifyRecoverInit, s, m(t), ref("rsapub")), do(wire.CallVerifyRecover, s, kept("signature"), r),
				do(wire.CallVerifyRecover, s, kept("signature"), room(256)))
		}
	}
	return append(steps,
		do(wire.CallVerifyRecoverInit, s, m(p11.CKM_RSA_PKCS), ref("rsapub")),
		do(wire.CallVerifyRecover, s, []byte("no signature"), room(256)),
		do(wire.CallVerifyRecoverInit, s, m(p11.CKM_ECDSA), ref("ecpub")),
		do(wire.CallSignRecoverInit, s, m(p11.CKM_RSA_PKCS), ref("rsapub")),
		do(wire.CallSignRecoverInit, s, m(p11.CKM_RSA_PKCS), 0x7ffffff0),
		do(wire.CallSignRecover, s, text, room(256)),
		do(wire.CallVerifyRecover, s, text, room(256)),
	)
}

// cipher has the calls of a direction.
type cipher struct{ init, once, update, final wire.Call }

var (
	encrypting = cipher{wire.CallEncryptInit, wire.CallEncrypt, wire.CallEncryptUpdate, wire.CallEncryptFinal}
	decrypting = cipher{wire.CallDecryptInit, wire.CallDecrypt, wire.CallDecryptUpdate, wire.CallDecryptFinal}
)

func cipherSteps() []step {
	s := ref("s")
	oaep := m(p11.CKM_RSA_PKCS_OAEP, &p11.OAEPParams{Hash: p11.CKM_SHA_1, MGF: p11.MGFOf(p11.CKM_SHA_1)})
	labelled := m(p11.CKM_RSA_PKCS_OAEP, &p11.OAEPParams{Hash: p11.CKM_SHA256, MGF: p11.MGFOf(p11.CKM_SHA256), Label: []byte("label")})
	steps := blockSteps(m(p11.CKM_AES_ECB), 32)
	for _, c := range []struct {
		wire.Mechanism
		random bool
	}{{m(p11.CKM_RSA_PKCS), true}, {oaep, true}, {labelled, true}, {m(p11.CKM_RSA_X_509), false}} {
		for _, r := range rooms(256) {
			a, b := do(wire.CallEncrypt, s, plain, r), do(wire.CallEncrypt, s, plain, room(256))
			a.random, b.random = c.random, c.random
			steps = append(steps, do(wire.CallEncryptInit, s, c.Mechanism, ref("rsapub")), a, b)
		}
		last := do(wire.CallEncrypt, s, plain, room(256)).as("secret")
		last.random = c.random
		steps = append(steps, do(wire.CallEncryptInit, s, c.Mechanism, ref("rsapub")), last)
		for _, r := range []room{0, 1, 31, 32, 256} {
			steps = append(steps, do(wire.CallDecryptInit, s, c.Mechanism, ref("rsa")), do(wire.CallDecrypt, s, kept("secret"), r), do(wire.CallDecrypt, s, kept("secret"), room(256)))
		}
		steps = append(steps, do(wire.CallDecryptInit, s, c.Mechanism, ref("rsa")), do(wire.CallDecrypt, s, []byte("short"), room(256)))
	}
	// What is empty when it is decrypted.
	steps = append(steps, do(wire.CallEncryptInit, s, oaep, ref("rsapub")), do(wire.CallEncrypt, s, []byte{}, room(256)).unlike().as("secret"))
	for _, r := range []room{0, 1, 256} {
		steps = append(steps, do(wire.CallDecryptInit, s, oaep, ref("rsa")), do(wire.CallDecrypt, s, kept("secret"), r), do(wire.CallDecrypt, s, kept("secret"), room(256)))
	}
	for _, c := range []cipher{encrypting, decrypting} {
		steps = append(steps,
			do(c.init, s, m(p11.CKM_AES_ECB), 0x7ffffff0),
			do(c.init, s, m(p11.CKM_AES_ECB), ref("mac")),
			do(c.init, s, m(p11.CKM_AES_ECB), ref("rsa")),
			do(c.init, s, m(p11.CKM_SHA256), ref("aes")),
			do(c.once, s, plain, room(100)),
			do(c.update, s, plain, room(100)),
			do(c.final, s, room(100)),
			do(c.init, s, m(p11.CKM_AES_ECB), ref("aes")),
			do(c.init, s, m(p11.CKM_AES_ECB), ref("aes")), // active
			do(c.once, s, plain[:5], room(100)),           // no whole block
			do(c.init, s, m(p11.CKM_AES_ECB), ref("aes")),
			do(c.update, s, plain[:5], room(100)),
			do(c.final, s, room(100)),
			do(c.init, s, m(p11.CKM_AES_ECB), ref("aes")),
			// What is misread is a question for the length, which begins no parts.
			do(c.update, s, none{}, room(100)).defect("NULL misread"),
			do(c.once, s, plain, room(100)).defect("NULL misread"),
		)
	}
	return steps
}

// blockSteps encrypts and decrypts with an AES key, at once and in parts; size is
// how long what comes of plain is.
func blockSteps(mech wire.Mechanism, size int) []step {
	s := ref("s")
	var steps []step
	for _, c := range []cipher{encrypting, decrypting} {
		init := do(c.init, s, mech, ref("aes"))
		var input any = plain
		result := size
		if c == decrypting {
			input, result = kept("secret"), len(plain)
		}
		// The last of the rooms is large enough, and what it brings is kept.
		for _, r := range rooms(result) {
			steps = append(steps, init, do(c.once, s, input, r), do(c.once, s, input, room(200)))
		}
		steps = append(steps, init, do(c.once, s, input, room(200)).as("result"), init)
		if c == encrypting {
			steps = append(steps, do(c.once, s, input, room(200)).as("secret"), init)
		}
		parts := []any{input, []byte{}, plain[:16]}
		for _, part := range parts {
			for _, r := range []room{0, 1, 200} {
				steps = append(steps, do(c.update, s, part, r))
			}
		}
		steps = append(steps,
			do(c.final, s, room(0)),
			do(c.final, s, room(200)),
			do(c.final, s, room(200)),
		)
	}
	return steps
}

// parameterCipherSteps are the ciphers whose parameter clients pass since protocol
// 1.
func parameterCipherSteps() []step {
	gcm := func(aad []byte, bits uint64) wire.Mechanism {
		return m(p11.CKM_AES_GCM, &p11.GCMParams{IV: []byte("twelve bytes"), AAD: aad, TagBits: bits})
	}
	steps := blockSteps(m(p11.CKM_AES_CBC, iv16), 32)
	steps = append(steps, blockSteps(m(p11.CKM_AES_CBC_PAD, iv16), 48)...)
	steps = append(steps, blockSteps(m(p11.CKM_AES_CTR, &p11.CTRParams{CounterBits: 128}), 32)...)
	steps = append(steps, blockSteps(gcm([]byte("aad"), 128), 48)...)
	return append(steps, blockSteps(gcm(nil, 96), 44)...)
}

func dualSteps() []step {
	s, ecb := ref("s"), m(p11.CKM_AES_ECB)
	return []step{
		do(wire.CallDigestEncryptUpdate, s, plain, room(100)),
		do(wire.CallDecryptDigestUpdate, s, plain, room(100)),
		do(wire.CallSignEncryptUpdate, s, plain, room(100)),
		do(wire.CallDecryptVerifyUpdate, s, plain, room(100)),

		do(wire.CallDigestInit, s, m(p11.CKM_SHA256)), do(wire.CallEncryptInit, s, ecb, ref("aes")),
		do(wire.CallDigestEncryptUpdate, s, plain, room(0)),
		do(wire.CallDigestEncryptUpdate, s, plain, room(5)),
		do(wire.CallDigestEncryptUpdate, s, plain, room(100)).as("secret"),
		do(wire.CallEncryptFinal, s, room(100)), do(wire.CallDigestFinal, s, room(100)),

		do(wire.CallDigestInit, s, m(p11.CKM_SHA256)), do(wire.CallDecryptInit, s, ecb, ref("aes")),
		do(wire.CallDecryptDigestUpdate, s, kept("secret"), room(0)),
		do(wire.CallDecryptDigestUpdate, s, kept("secret"), room(5)),
		do(wire.CallDecryptDigestUpdate, s, kept("secret"), room(100)),
		do(wire.CallDecryptFinal, s, room(100)), do(wire.CallDigestFinal, s, room(100)),

		do(wire.CallSignInit, s, m(p11.CKM_SHA256_HMAC), ref("mac")), do(wire.CallEncryptInit, s, ecb, ref("aes")),
		do(wire.CallSignEncryptUpdate, s, plain, room(0)),
		do(wire.CallSignEncryptUpdate, s, plain, room(5)),
		do(wire.CallSignEncryptUpdate, s, plain, room(100)),
		do(wire.CallEncryptFinal, s, room(100)), do(wire.CallSignFinal, s, room(100)).as("signature"),

		do(wire.CallVerifyInit, s, m(p11.CKM_SHA256_HMAC), ref("mac")), do(wire.CallDecryptInit, s, ecb, ref("aes")),
		do(wire.CallDecryptVerifyUpdate, s, kept("secret"), room(0)),
		do(wire.CallDecryptVerifyUpdate, s, kept("secret"), room(5)),
		do(wire.CallDecryptVerifyUpdate, s, kept("secret"), room(100)),
		do(wire.CallDecryptFinal, s, room(100)), do(wire.CallVerifyFinal, s, kept("signature")),
	}
}

// paramOf is a good parameter of each layout.
func paramOf(t p11.MechanismType) p11.Param {
	f, _ := p11.MechanismFacts(t)
	switch f.Param {
	case p11.ParamPSS:
		return &p11.PSSParams{Hash: p11.CKM_SHA256, MGF: p11.MGFOf(p11.CKM_SHA256), SaltLen: 32}
	case p11.ParamOAEP:
		return &p11.OAEPParams{Hash: p11.CKM_SHA_1, MGF: p11.MGFOf(p11.CKM_SHA_1), Label: []byte("label")}
	case p11.ParamGCM:
		return &p11.GCMParams{IV: []byte("twelve bytes"), AAD: []byte("aad"), TagBits: 128}
	case p11.ParamCTR:
		return &p11.CTRParams{CounterBits: 128}
	case p11.ParamECDH1:
		return &p11.ECDH1Params{KDF: 1, PublicData: []byte("no point")}
	case p11.ParamMAC:
		return p11.MACLength(8)
	}
	if t < 0x1000 {
		return p11.IV("8 bytes.") // of DES
	}
	return iv16
}

// mechanismSteps begins every sort of operation with every mechanism that the
// clients pass.
func mechanismSteps() []step {
	s := ref("s")
	var steps []step
	for _, t := range p11.AllMechanismTypes() {
		since := wire.V0
		if !wire.V0.Passes(t) {
			since = wire.V1
		}
		if !wire.V2.Passes(t) {
			continue
		}
		mech := m(t, paramOf(t))
		var of []step
		for _, key := range []ref{"rsa", "rsapub", "ec", "ecpub", "aes", "mac"} {
			for _, c := range []struct{ init, end wire.Call }{
				{wire.CallSignInit, wire.CallSign}, {wire.CallEncryptInit, wire.CallEncrypt}, {wire.CallDecryptInit, wire.CallDecrypt}, {wire.CallSignRecoverInit, wire.CallSignRecover},
				{wire.CallVerifyRecoverInit, wire.CallVerifyRecover},
			} {
				of = append(of, do(c.init, s, mech, key), do(c.end, s, []byte{}, room(1000)).unlike())
			}
			of = append(of, do(wire.CallVerifyInit, s, mech, key), do(wire.CallVerify, s, plain, []byte("signature")))
		}
		of = append(of,
			do(wire.CallDigestInit, s, mech), do(wire.CallDigest, s, plain, room(100)),
			do(wire.CallGenerateKey, s, mech, template(p11.CKA_LABEL, "x")),
			do(wire.CallGenerateKeyPair, s, mech, template(), template(p11.CKA_LABEL, "x")),
			do(wire.CallWrapKey, s, mech, ref("aes"), ref("mac"), room(0)),
			do(wire.CallUnwrapKey, s, mech, ref("aes"), plain, template()),
			do(wire.CallDeriveKey, s, mech, ref("ec"), template()),
		)
		for i := range of {
			of[i].since = since
		}
		steps = append(steps, of...)
	}
	return steps
}

// oaepFrom is OAEP with SHA-1 and a source of the label.
type oaepSource struct {
	source byte
	label  raw
}

func oaepFrom(source byte, label raw) oaepSource { return oaepSource{source, label} }

// parameterSteps has parameters that are wrong in one way each.
func parameterSteps() []step {
	s := ref("s")
	sign := func(t p11.MechanismType, param ...p11.Param) []step {
		return []step{do(wire.CallSignInit, s, m(t, param...), ref("rsa")), do(wire.CallSign, s, make([]byte, 32), room(1000)).unlike()}
	}
	encrypt := func(mech wire.Mechanism, key ref) []step {
		return []step{do(wire.CallEncryptInit, s, mech, key), do(wire.CallEncrypt, s, plain, room(1000)).unlike()}
	}
	steps := sign(p11.CKM_RSA_PKCS_PSS, &p11.PSSParams{Hash: p11.CKM_SHA256, MGF: 99, SaltLen: 32})
	steps = append(steps, sign(p11.CKM_RSA_PKCS_PSS, &p11.PSSParams{Hash: 99, MGF: 2, SaltLen: 32})...)
	steps = append(steps, sign(p11.CKM_RSA_PKCS_PSS, &p11.PSSParams{Hash: p11.CKM_SHA256, MGF: 2, SaltLen: 1 << 40})...)
	steps = append(steps, sign(p11.CKM_RSA_PKCS_PSS, &p11.PSSParams{Hash: p11.CKM_SHA512, MGF: 4, SaltLen: 0})...)
	for _, p := range []*p11.OAEPParams{{Hash: 99, MGF: 1}, {Hash: p11.CKM_SHA_1, MGF: 99}, {Hash: p11.CKM_SHA_1, MGF: 1, Label: []byte{}}, {Hash: p11.CKM_SHA_1, MGF: 1, Label: make([]byte, 1000)}} {
		steps = append(steps, encrypt(m(p11.CKM_RSA_PKCS_OAEP, p), "rsapub")...)
	}
	// A source of the label that is none, with and without a label.
	for _, source := range []byte{0, 7} {
		for _, label := range []raw{{0xff, 0xff, 0xff, 0xff}, {0, 0, 0, 1, 'l'}} {
			steps = append(steps, do(wire.CallEncryptInit, s, oaepFrom(source, label), ref("rsapub")), do(wire.CallEncrypt, s, plain, room(1000)).unlike())
		}
	}
	var later []step
	for _, p := range []p11.Param{p11.IV("short"), p11.IV{}, p11.IV(make([]byte, 17))} {
		later = append(later, do(wire.CallEncryptInit, s, m(p11.CKM_AES_CBC, p), ref("aes")).defect("parameters"))
	}
	for _, p := range []*p11.GCMParams{{}, {IV: []byte("twelve bytes"), TagBits: 7}, {IV: []byte("twelve bytes"), TagBits: 1 << 40}, {IV: []byte("x"), TagBits: 128}, {IV: make([]byte, 300), TagBits: 128}} {
		later = append(later, encrypt(m(p11.CKM_AES_GCM, p), "aes")...)
	}
	for _, bits := range []uint64{0, 1, 129, 1 << 40} {
		later = append(later, encrypt(m(p11.CKM_AES_CTR, &p11.CTRParams{CounterBits: bits}), "aes")...)
	}
	for _, n := range []p11.MACLength{0, 4, 32, 33, 1 << 40} {
		later = append(later, do(wire.CallSignInit, s, m(p11.CKM_SHA256_HMAC_GENERAL, n), ref("mac")), do(wire.CallSign, s, plain, room(100)))
	}
	for i := range later {
		later[i].since = wire.V1
	}
	// Without the parameter that the mechanism takes: only the later encoding has
	// a form for it.
	var absent []step
	for _, t := range []p11.MechanismType{p11.CKM_RSA_PKCS_PSS, p11.CKM_SHA256_RSA_PKCS_PSS} {
		absent = append(absent, sign(t)...)
	}
	absent = append(absent, do(wire.CallSignInit, s, m(p11.CKM_SHA256_HMAC_GENERAL), ref("mac")), do(wire.CallSign, s, plain, room(100)))
	for _, t := range []p11.MechanismType{p11.CKM_RSA_PKCS_OAEP, p11.CKM_AES_CBC, p11.CKM_AES_GCM, p11.CKM_AES_CTR, p11.CKM_AES_CBC_PAD} {
		key := ref("aes")
		if t == p11.CKM_RSA_PKCS_OAEP {
			key = "rsapub"
		}
		absent = append(absent, encrypt(m(t), key)...)
	}
	for i := range absent {
		absent[i].since = wire.V2
	}
	return append(append(steps, later...), absent...)
}
