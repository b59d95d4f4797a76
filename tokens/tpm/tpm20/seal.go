package tpm20

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/scrypt"

	"p11fs/p11"
	"p11fs/secret"
)

// What a PIN is stretched with.
const (
	scryptR = 8
	scryptP = 1
	// Cost is the logarithm of scrypt's N that a PIN has where nobody says another: three
	// milliseconds and 1 MiB. More would guard little. Each guess needs the TPM, one after
	// another, and a chip takes tens of milliseconds for it, while what the stretching of
	// all guesses takes can be done before, on as many processors as there are. And who has
	// the secrets out of the TPM itself reads what is sealed without a PIN. A file may ask
	// for at most MaxCost, who sets PINs for at least MinCost.
	Cost    = 10
	MinCost = 10
	MaxCost = 20

	// SaltSize and AuthSize are the lengths of a salt and of an authorisation.
	SaltSize = 32
	AuthSize = 32
)

// NewAuth is a random authorisation for a key.
func NewAuth() (*secret.Bytes, error) {
	b := make([]byte, AuthSize)
	_, _ = rand.Read(b) // which never fails
	return secret.New(nonzero(b))
}

// nonzero replaces zero bytes by ones, for go-tpm cuts an authorisation at its first.
func nonzero(b []byte) []byte {
	for i, x := range b {
		if x == 0 {
			b[i] = 1
		}
	}
	return b
}

// A PIN is what a stretched PIN opens: the authorisations of a seal and of an index. The
// stretching is for who has the TPM, and may reset its counts; and for who has taken it
// apart, and wants the PIN itself, which its owner may have elsewhere too.
type PIN struct{ seal, index *secret.Bytes }

// Stretch stretches a PIN, with a cost of 1 to MaxCost.
func Stretch(pin *secret.Bytes, salt []byte, cost int) (p *PIN, err error) {
	if cost < 1 || cost > MaxCost {
		return nil, p11.Errorf(p11.CKR_DEVICE_ERROR, "a PIN is stretched with a cost of 1 to %d, not %d", MaxCost, cost)
	}
	pin.Use(func(b []byte) {
		var key []byte
		if key, err = scrypt.Key(b, salt, 1<<cost, scryptR, scryptP, sha256.Size); err != nil {
			return
		}
		defer secret.Wipe(key)
		p = &PIN{}
		if p.seal, err = authOf(key, "seal"); err == nil {
			p.index, err = authOf(key, "index")
		}
	})
	if err != nil {
		p.Close()
		return nil, p11.Errorf(p11.CKR_HOST_MEMORY, "stretch a PIN: %w", err)
	}
	return p, nil
}

func authOf(key []byte, what string) (*secret.Bytes, error) {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(what))
	return secret.New(nonzero(h.Sum(nil)))
}

// Clone is a copy, which the caller closes.
func (p *PIN) Clone() (*PIN, error) {
	c := &PIN{}
	var err error
	if c.seal, err = p.seal.Clone(); err == nil {
		c.index, err = p.index.Clone()
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close wipes it. It may be called of nil.
func (p *PIN) Close() {
	if p != nil {
		_ = p.seal.Close()
		_ = p.index.Close()
	}
}

// A Seal is a secret that a PIN opens, in this TPM only.
type Seal struct {
	Index uint32 // of the index that counts wrong PINs; 0: the TPM's own count does
	Blob  Blob
}

// sealTemplate is the public area of sealed data. With a policy it opens under that
// alone; without, under its authorisation. The TPM counts wrong ones in either case.
func sealTemplate(policy []byte) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256, AuthPolicy: tpm2.TPM2BDigest{Buffer: policy},
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, UserWithAuth: policy == nil},
	}
}

// Indexes stand in a range that the TCG's registry leaves to the owner.
const (
	firstIndex = 0x018f5000
	lastIndex  = 0x018f5fff
)

// indexPublic is the public area of an index that counts wrong PINs (TPM 2.0 Library, Part
// 1, §37.2.8): who knows the PIN may read it, and the owner may write it.
func indexPublic(index uint32) tpm2.TPMSNVPublic {
	return tpm2.TPMSNVPublic{
		NVIndex: tpm2.TPMHandle(index), NameAlg: tpm2.TPMAlgSHA256, DataSize: 8,
		Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthRead: true, NoDA: true, NT: tpm2.TPMNTPinFail},
	}
}

// indexName is the name of an index, which it has once it was written. It does not
// depend on the authorisation.
func indexName(index uint32) (tpm2.TPM2BName, error) {
	public := indexPublic(index)
	public.Attributes.Written = true
	name, err := tpm2.NVName(&public)
	if err != nil {
		return tpm2.TPM2BName{}, err
	}
	return *name, nil
}

// policyOf is the policy of a seal behind an index: the index's PIN, and the seal's own.
// Without the second one the owner could put another index in the place of this one.
func policyOf(index uint32) ([]byte, error) {
	name, err := indexName(index)
	if err != nil {
		return nil, err
	}
	p, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
	if err != nil {
		return nil, err
	}
	if err := (tpm2.PolicySecret{AuthHandle: tpm2.NamedHandle{Handle: tpm2.TPMHandle(index), Name: name}}).Update(p); err != nil {
		return nil, err
	}
	if err := (tpm2.PolicyAuthValue{}).Update(p); err != nil {
		return nil, err
	}
	return p.Hash().Digest, nil
}

// Seal seals data under a PIN; index is that of an index that DefineIndex made with the
// same PIN, or 0.
func (c *Chip) Seal(ctx context.Context, p Parent, pin *PIN, index uint32, data *secret.Bytes) (Seal, error) {
	var policy []byte
	if index != 0 {
		var err error
		if policy, err = policyOf(index); err != nil {
			return Seal{}, p11.Errorf(p11.CKR_GENERAL_ERROR, "the policy of a seal: %w", err)
		}
	}
	return do(ctx, c, func(w *worker) (Seal, error) {
		s, err := w.parent(p)
		if err != nil {
			return Seal{}, err
		}
		return withAuth(pin.seal, func(auth []byte) (Seal, error) {
			return withAuth(data, func(data []byte) (Seal, error) {
				b, err := w.create(s, sealTemplate(policy), auth, data)
				return Seal{index, b}, err
			})
		})
	})
}

// Unseal opens a seal, or returns ErrWrongAuth or ErrLocked. The caller closes what it
// returns.
func (c *Chip) Unseal(ctx context.Context, p Parent, pin *PIN, seal Seal) (*secret.Bytes, error) {
	return do(ctx, c, func(w *worker) (*secret.Bytes, error) {
		s, err := w.parent(p)
		if err != nil {
			return nil, err
		}
		for len(w.keys) >= w.room {
			w.evict(0)
		}
		l, err := w.loadOnce(s, seal.Blob)
		if err != nil {
			return nil, err
		}
		defer w.flushHandle(l.handle)
		out, err := withAuth(pin.seal, func(auth []byte) ([]byte, error) {
			if seal.Index == 0 {
				session := tpm2.HMAC(tpm2.TPMAlgSHA256, nonceSize, s.salted(auth, tpm2.AESEncryption(128, tpm2.EncryptOut))...)
				return w.unseal(l, session)
			}
			return withAuth(pin.index, func(indexAuth []byte) ([]byte, error) { return w.unsealBehind(s, l, seal.Index, auth, indexAuth) })
		})
		if err != nil {
			return nil, meaning(err, map[tpm2.TPMRC]error{
				rcAuthFail: ErrWrongAuth, rcBadAuth: ErrWrongAuth, rcLockout: ErrLocked, rcUnavailable: ErrLocked,
				rcHandle: p11.Errorf(p11.CKR_DEVICE_ERROR, "the index %#x that counts wrong PINs is gone from the TPM, and with it this PIN", seal.Index),
			})
		}
		return secret.New(out)
	})
}

func (w *worker) unseal(l *loaded, session tpm2.Session) ([]byte, error) {
	r, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: l.handle, Name: l.name, Auth: session}}.Execute(w)
	if err != nil {
		return nil, err
	}
	return r.OutData.Buffer, nil
}

// unsealBehind opens a seal whose PIN an index looks at first.
func (w *worker) unsealBehind(s *storage, l *loaded, index uint32, auth, indexAuth []byte) ([]byte, error) {
	name, err := indexName(index)
	if err != nil {
		return nil, err
	}
	policy, end, err := tpm2.PolicySession(w, tpm2.TPMAlgSHA256, nonceSize, s.salted(auth, tpm2.AESEncryption(128, tpm2.EncryptOut))...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = end() }()
	_, err = tpm2.PolicySecret{
		AuthHandle: tpm2.AuthHandle{
			Handle: tpm2.TPMHandle(index), Name: name,
			Auth: tpm2.HMAC(tpm2.TPMAlgSHA256, nonceSize, s.salted(indexAuth)...),
		},
		PolicySession: policy.Handle(), NonceTPM: policy.NonceTPM(),
	}.Execute(w)
	if err != nil {
		return nil, err
	}
	if _, err := (tpm2.PolicyAuthValue{PolicySession: policy.Handle()}).Execute(w); err != nil {
		return nil, err
	}
	return w.unseal(l, policy)
}

// FreeIndex returns the number of an index that is free.
func (c *Chip) FreeIndex(ctx context.Context) (uint32, error) {
	return do(ctx, c, func(w *worker) (uint32, error) {
		used, err := w.indexes()
		if err != nil {
			return 0, err
		}
		for i := uint32(firstIndex); i <= lastIndex; i++ {
			if !used[i] {
				return i, nil
			}
		}
		return 0, p11.Errorf(p11.CKR_DEVICE_MEMORY, "all indexes from %#x to %#x are used", firstIndex, lastIndex)
	})
}

// indexes are those in our range that there are.
func (w *worker) indexes() (map[uint32]bool, error) {
	used := make(map[uint32]bool)
	for from := uint32(firstIndex); from <= lastIndex; {
		r, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: from, PropertyCount: 64}.Execute(w)
		if err != nil {
			return nil, err
		}
		list, err := r.CapabilityData.Data.Handles()
		if err != nil {
			return nil, err
		}
		next := from
		for _, h := range list.Handle {
			if h := uint32(h); h >= next && h <= lastIndex {
				used[h] = true
				next = h + 1
			}
		}
		if !r.MoreData || next == from {
			break
		}
		from = next
	}
	return used, nil
}

// DefineIndex makes an index that lets a PIN fail limit times in a row. It needs an owner
// without authorisation.
func (c *Chip) DefineIndex(ctx context.Context, p Parent, index uint32, pin *PIN, limit uint32) error {
	_, err := do(ctx, c, func(w *worker) (struct{}, error) {
		var none struct{}
		s, err := w.parent(p)
		if err != nil {
			return none, err
		}
		public := indexPublic(index)
		_, err = withAuth(pin.index, func(auth []byte) (struct{}, error) {
			_, err := tpm2.NVDefineSpace{
				AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: s.encrypting(nil)},
				Auth:       tpm2.TPM2BAuth{Buffer: auth}, PublicInfo: tpm2.New2B(public),
			}.Execute(w)
			return none, err
		})
		if err != nil {
			return none, ownerError(err)
		}
		name, err := tpm2.NVName(&public)
		if err == nil {
			_, err = tpm2.NVWrite{
				AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
				NVIndex:    tpm2.NamedHandle{Handle: public.NVIndex, Name: *name},
				Data:       tpm2.TPM2BMaxNVBuffer{Buffer: binary.BigEndian.AppendUint32(make([]byte, 4), limit)},
			}.Execute(w)
		}
		return none, ownerError(err)
	})
	return err
}

// ownerError is the error of what only the owner may do.
func ownerError(err error) error {
	refused := p11.Errorf(p11.CKR_FUNCTION_REJECTED, "the TPM's owner has a password, so that no index can be made for a PIN: take the protection da")
	return meaning(err, map[tpm2.TPMRC]error{rcBadAuth: refused, rcAuthFail: refused})
}

// RemoveIndex removes an index. One that is not there is removed already.
func (c *Chip) RemoveIndex(ctx context.Context, index uint32) error {
	if index < firstIndex || index > lastIndex {
		return p11.Errorf(p11.CKR_ARGUMENTS_BAD, "%#x is no index of a token", index)
	}
	_, err := do(ctx, c, func(w *worker) (struct{}, error) {
		r, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(index)}.Execute(w)
		if err == nil {
			_, err = tpm2.NVUndefineSpace{
				AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
				NVIndex:    tpm2.NamedHandle{Handle: tpm2.TPMHandle(index), Name: r.NVName},
			}.Execute(w)
		}
		if rc, _ := code(err); rc == rcHandle {
			err = nil
		}
		return struct{}{}, ownerError(err)
	})
	return err
}

// Failures is how many wrong PINs an index has counted, and how many it lets pass.
func (c *Chip) Failures(ctx context.Context, index uint32) (count, limit uint32, err error) {
	name, err := indexName(index)
	if err != nil {
		return 0, 0, err
	}
	b, err := do(ctx, c, func(w *worker) ([]byte, error) {
		r, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: tpm2.TPMHandle(index), Name: name}, Size: 8,
		}.Execute(w)
		if err != nil {
			return nil, ownerError(err)
		}
		if len(r.Data.Buffer) != 8 {
			return nil, fmt.Errorf("an index of %d bytes", len(r.Data.Buffer))
		}
		return r.Data.Buffer, nil
	})
	if err != nil {
		return 0, 0, err
	}
	return binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), nil
}
