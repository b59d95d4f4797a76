package icsf

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"slices"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/icsf/icsfconn"
	"p11fs/tokens/icsf/icsfwire"
	"p11fs/tokens/swtok"
)

// holder is swtok's view of the keys on the server.
type holder struct {
	s      *objects
	reject [sha256.Size]byte // random
}

// The sizes of the keys that ICSF makes.
const (
	minRSA, maxRSA = 512, 4096
	minEC, maxEC   = 160, 521
	maxGeneric     = 256 // bytes
)

// Listed is swtok.Holder: what the server does, alone or with hashes and paddings of ours.
func (h *holder) Listed(m p11.MechanismInfo) (p11.MechanismInfo, bool) {
	facts, _ := p11.MechanismFacts(m.Type)
	switch {
	case m.Type == p11.CKM_RSA_PKCS_KEY_PAIR_GEN, m.Type == p11.CKM_EC_KEY_PAIR_GEN, m.Type == p11.CKM_AES_KEY_GEN:
		return m, true
	case m.Type == p11.CKM_GENERIC_SECRET_KEY_GEN:
		m.MinKeySize, m.MaxKeySize = 1, maxGeneric
		return m, true
	case m.Flags&p11.CKF_DIGEST != 0 && facts.KeyTypes == nil:
		m.Flags &= p11.CKF_DIGEST
		return m, true
	case m.Type == p11.CKM_AES_ECB, m.Type == p11.CKM_AES_CBC:
		m.Flags &^= p11.CKF_WRAP | p11.CKF_UNWRAP
		return m, true
	case m.Type == p11.CKM_AES_CBC_PAD:
		return m, true
	case isHMAC(m.Type):
		m.Flags &= p11.CKF_SIGN | p11.CKF_VERIFY
		return m, true
	}
	uses := m.Flags & (p11.CKF_SIGN | p11.CKF_VERIFY | p11.CKF_SIGN_RECOVER | p11.CKF_VERIFY_RECOVER | p11.CKF_ENCRYPT | p11.CKF_DECRYPT)
	if len(facts.KeyTypes) != 1 || uses == 0 {
		return m, false
	}
	m.Flags &^= p11.CKF_DERIVE | p11.CKF_WRAP | p11.CKF_UNWRAP
	switch facts.KeyTypes[0] {
	case p11.CKK_RSA:
		m.MinKeySize, m.MaxKeySize = minRSA, maxRSA
		if m.Type == p11.CKM_RSA_PKCS {
			m.Flags |= p11.CKF_WRAP | p11.CKF_UNWRAP
		}
	case p11.CKK_EC:
		m.MinKeySize, m.MaxKeySize = minEC, maxEC
	default:
		return m, false
	}
	return m, true
}

// hmacRule is the rule of the hash of an HMAC, or "".
func hmacRule(t p11.MechanismType) string {
	return map[p11.MechanismType]string{
		p11.CKM_SHA_1_HMAC: "SHA-1", p11.CKM_SHA256_HMAC: "SHA-256", p11.CKM_SHA384_HMAC: "SHA-384", p11.CKM_SHA512_HMAC: "SHA-512",
	}[t]
}

func isHMAC(t p11.MechanismType) bool { return hmacRule(t) != "" }

// Holds is swtok.Holder: private keys are all on the server.
func (h *holder) Holds(p11.Attributes) bool { return true }

// key is the handle of a key's attributes.
func (h *holder) key(a p11.Attributes) (icsfwire.Handle, error) {
	name, ok := handleOf(a)
	if !ok {
		return "", p11.Errorf(p11.CKR_KEY_HANDLE_INVALID, "the key is not on the server")
	}
	h.s.uses.use(name)
	return name, nil
}

// Rejecter is swtok.Holder. Nothing secret of a key is known here: a random number of the process
// stands for it.
func (h *holder) Rejecter(a p11.Attributes) []byte {
	name, _ := a.Get(handleAttribute)
	m := hmac.New(sha256.New, h.reject[:])
	m.Write(name)
	return m.Sum(nil)
}

// RSA is swtok.Holder.
func (h *holder) RSA(a p11.Attributes) (swtok.HeldRSA, error) {
	name, err := h.key(a)
	n, _ := a.Get(p11.CKA_MODULUS)
	return &heldRSA{h.s, name, len(n), nil}, err
}

// EC is swtok.Holder.
func (h *holder) EC(a p11.Attributes, _ p11.Curve) (swtok.ECPrivateKey, error) {
	name, err := h.key(a)
	return &heldEC{h.s, name, nil}, err
}

// AES is swtok.AESHolder.
func (h *holder) AES(a p11.Attributes) (swtok.HeldAES, error) {
	name, err := h.key(a)
	return &heldAES{h.s, name}, err
}

// held gives what went wrong on the server to the caller as it is.
func held[T any](v T, err error) (T, error) {
	if err != nil {
		err = &swtok.HeldError{Err: err}
	}
	return v, err
}

// private is the use of a private key.
func (s *objects) private(ctx context.Context, key icsfwire.Handle, in []byte, rules ...string) ([]byte, error) {
	if ctx == nil {
		ctx = context.Background()
	}
	var out icsfwire.PrivateResult
	_, err := s.conn.Call(ctx, &icsfwire.Request{Handle: s.uses.now(key), Rules: rules, Data: &icsfwire.PrivateUse{Input: in, Room: maxRSA / 8}}, &out)
	return held(out.Output, err)
}

// A heldRSA is a key of RSA; ctx is nil until Within.
type heldRSA struct {
	s    *objects
	key  icsfwire.Handle
	size int
	ctx  context.Context // of one call
}

// Within gives the key to a call.
func (k *heldRSA) Within(ctx context.Context) swtok.HeldRSA {
	return &heldRSA{k.s, k.key, k.size, ctx}
}

// Raw is swtok.HeldRSA.
func (k *heldRSA) Raw(in []byte) ([]byte, error) {
	out, err := k.s.private(k.ctx, k.key, in, "RSA-ZERO", "DECRYPT")
	if err == nil && len(out) != k.size {
		return held[[]byte](nil, p11.Errorf(p11.CKR_DEVICE_ERROR, "the server's answer is no number below the modulus"))
	}
	return out, err
}

// SignPKCS1 is swtok.HeldRSA.
func (k *heldRSA) SignPKCS1(tbs []byte) ([]byte, error) {
	return k.s.private(k.ctx, k.key, tbs, "RSA-PKCS")
}

// A heldEC is a key on a curve; ctx is nil until Within.
type heldEC struct {
	s   *objects
	key icsfwire.Handle
	ctx context.Context // of one call
}

// Within gives the key to a call.
func (k *heldEC) Within(ctx context.Context) swtok.ECPrivateKey { return &heldEC{k.s, k.key, ctx} }

// Sign is swtok.ECPrivateKey.
func (k *heldEC) Sign(digest []byte) ([]byte, error) {
	raw, err := k.s.private(k.ctx, k.key, digest, "ECDSA")
	if err != nil {
		return nil, err
	}
	return pkix.ECDSARawToDER(raw)
}

// ECDH is swtok.ECPrivateKey.
func (k *heldEC) ECDH([]byte) ([]byte, error) {
	return held[[]byte](nil, p11.Errorf(p11.CKR_FUNCTION_NOT_SUPPORTED, "keys on the server agree on no others"))
}

// A heldAES is a key of AES.
type heldAES struct {
	s   *objects
	key icsfwire.Handle
}

// Close is swtok.HeldAES.
func (k *heldAES) Close() {}

// partSize is how much of a message one call has.
const partSize = 1 << 14

// Crypt is swtok.HeldAES. A message of more than one part is done on one connection.
func (k *heldAES) Crypt(ctx context.Context, mode string, iv []byte, decrypt bool, message []byte) ([]byte, error) {
	if mode == "ECB" || len(message) <= partSize {
		var out []byte
		for len(message) > 0 {
			n := min(len(message), partSize)
			part, _, err := crypt(ctx, k.s.conn.Call, k.s.uses.now(k.key), mode, "ONLY", iv, nil, decrypt, message[:n])
			if err != nil {
				return held[[]byte](nil, err)
			}
			out, message = append(out, part...), message[n:]
		}
		return out, nil
	}
	link, err := k.s.conn.Link(ctx)
	if err != nil {
		return held[[]byte](nil, err)
	}
	var out, chain []byte
	for step := "INITIAL"; len(message) > 0; step = "CONTINUE" {
		n := min(len(message), partSize)
		if n == len(message) {
			step = "FINAL"
		}
		var part []byte
		if part, chain, err = crypt(ctx, link.Call, k.s.uses.now(k.key), mode, step, iv, chain, decrypt, message[:n]); err != nil {
			return held[[]byte](nil, icsfconn.Lost(err))
		}
		out, message, iv = append(out, part...), message[n:], make([]byte, noIV)
	}
	return out, nil
}

// noIV is the length of the zeros that stand in the place of an initialisation vector in parts
// but the first.
const noIV = 32

// A caller is the Call of a Conn or of a Link.
type caller func(context.Context, *icsfwire.Request, icsfwire.Data) (icsfwire.Handle, error)

func crypt(ctx context.Context, call caller, key icsfwire.Handle, mode, step string, iv, chain []byte, decrypt bool, in []byte) (out, next []byte, err error) {
	if chain == nil {
		chain = make([]byte, icsfwire.ChainSize)
	}
	r := &icsfwire.Request{Handle: key, Rules: []string{"AES", mode, step}}
	if decrypt {
		var d icsfwire.Decrypted
		r.Data = &icsfwire.Decrypt{IV: iv, Chain: chain, Text: in, Room: len(in)}
		_, err = call(ctx, r, &d)
		out, next = d.Text, d.Chain
	} else {
		var e icsfwire.Encrypted
		r.Data = &icsfwire.Encrypt{IV: iv, Chain: chain, Text: in, Room: len(in)}
		_, err = call(ctx, r, &e)
		out, next = e.Text, e.Chain
	}
	if err == nil && (len(out) != len(in) || len(next) > icsfwire.ChainSize) {
		err = p11.Errorf(p11.CKR_DEVICE_ERROR, "the server's answer is not as long as what was asked for")
	}
	return out, next, err
}

// does refuses a mechanism that the list does not have for the use.
func (t *token) does(m p11.MechanismType, use p11.Flags) error {
	for _, info := range t.Mechanisms() {
		if info.Type == m && info.Flags&use != 0 {
			return nil
		}
	}
	return p11.Errorf(p11.CKR_MECHANISM_INVALID, "the token does not do %s this way", m.Short())
}

// Begin is tokens.Crypto: an HMAC is the server's, and everything else that of swtok.
func (t *token) Begin(ctx context.Context, use p11.Flags, m p11.Mechanism, key *tokens.Object) (tokens.Operation, error) {
	if !isHMAC(m.Type) {
		return t.Crypto.Begin(ctx, use, m, key)
	}
	if err := t.does(m.Type, use); err != nil {
		return nil, err
	}
	a, err := key.Acquire()
	if err != nil {
		return nil, err
	}
	h, err := t.holder.key(a)
	if err != nil {
		key.Release()
		return nil, err
	}
	size := 0
	for _, one := range p11.Hashes() {
		if one.HMAC == m.Type {
			size = one.Go.Size()
		}
	}
	return &mac{s: t.objects, key: key, handle: h, rule: hmacRule(m.Type), size: size, verify: use == p11.CKF_VERIFY}, nil
}

// A mac is an HMAC that is made or checked. What it gets is kept until it is much, and then
// sent in parts on one connection.
type mac struct {
	s      *objects
	key    *tokens.Object
	handle icsfwire.Handle
	rule   string
	size   int
	verify bool

	kept  []byte
	link  *icsfconn.Link // of a message that is sent in parts
	chain []byte
	done  bool
}

var _ tokens.Operation = (*mac)(nil)

// maxKept is how much of a message is kept before it is sent: whole blocks of every hash.
const maxKept = 1 << 16

// Update is tokens.Operation.
func (m *mac) Update(ctx context.Context, part []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, interrupted(err)
	}
	m.kept = secret.Append(m.kept, part)
	for len(m.kept) > maxKept {
		step := "MIDDLE"
		if m.link == nil {
			var err error
			if m.link, err = m.s.conn.Link(ctx); err != nil {
				return nil, err
			}
			step = "FIRST"
		}
		if _, err := m.call(ctx, m.link.Call, step, m.kept[:maxKept], nil); err != nil {
			return nil, icsfconn.Lost(err)
		}
		left := copy(m.kept, m.kept[maxKept:])
		secret.Wipe(m.kept[left:])
		m.kept = m.kept[:left]
	}
	return nil, nil
}

// call sends a part.
func (m *mac) call(ctx context.Context, call caller, step string, text, signature []byte) ([]byte, error) {
	chain := m.chain
	if chain == nil {
		chain = make([]byte, icsfwire.ChainSize)
	}
	r := &icsfwire.Request{Handle: m.s.uses.now(m.handle), Rules: []string{m.rule, step}}
	if m.verify {
		var out icsfwire.VerifyMACResult
		r.Data = &icsfwire.VerifyMAC{Text: text, Chain: chain, MAC: signature}
		_, err := call(ctx, r, &out)
		m.chain = out.Chain
		return nil, err
	}
	var out icsfwire.MACResult
	r.Data = &icsfwire.MAC{Text: text, Chain: chain, Room: m.size}
	_, err := call(ctx, r, &out)
	m.chain = out.Chain
	return out.MAC, err
}

// Final is tokens.Operation.
func (m *mac) Final(ctx context.Context, signature []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, interrupted(err)
	}
	if m.verify && len(signature) != m.size {
		return nil, p11.Errorf(p11.CKR_SIGNATURE_LEN_RANGE, "the signature has %d bytes, not %d", len(signature), m.size)
	}
	call, step := caller(m.s.conn.Call), "ONLY"
	if m.link != nil {
		call, step = m.link.Call, "LAST"
	}
	out, err := m.call(ctx, call, step, m.kept, signature)
	if err == nil && !m.verify && len(out) != m.size {
		err = p11.Errorf(p11.CKR_DEVICE_ERROR, "the server's answer is no HMAC")
	}
	if err != nil {
		return nil, icsfconn.Lost(err)
	}
	return slices.Clone(out), nil
}

// Size is tokens.Operation.
func (m *mac) Size() int { return m.size }

// Close is tokens.Operation.
func (m *mac) Close() {
	if m.done {
		return
	}
	m.done = true
	secret.Wipe(m.kept)
	m.key.Release()
}
