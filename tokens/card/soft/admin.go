package soft

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"io/fs"
	"path"
	"time"

	"errors"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/card/ep11"
)

const (
	// loginSalt is the length of the salt in the blob of a login.
	loginSalt = 16
	// The lengths of a PIN for a login.
	leastPIN, mostPIN = 8, 16
	// maxSessions is how many logins there may be at a domain.
	maxSessions = 1024
	// sessionKey has what makes identifiers of sessions, so that all domains make the same.
	sessionKey = "sessions/key"
	// maxRandom is how many random bytes there are at once.
	maxRandom = 1 << 20
)

// GenerateRandom gives random bytes.
func (d *domain) GenerateRandom(ctx context.Context, n int) ([]byte, error) {
	if n > maxRandom {
		return nil, ep11.TransportLimit
	}
	b := make([]byte, n)
	return b, d.crypto.GenerateRandom(ctx, b)
}

// SeedRandom takes a seed, which the system's generator needs not.
func (*domain) SeedRandom(context.Context, []byte) error { return nil }

// GetMechanismList gives the list.
func (d *domain) GetMechanismList(context.Context, uint64) (list []uint64, err error) {
	for _, m := range d.list {
		if _, ok := ep11.Bounded(d.points, m); ok {
			list = append(list, uint64(m.Type))
		}
	}
	return list, nil
}

// GetMechanismInfo gives the sizes and flags of a mechanism.
func (d *domain) GetMechanismInfo(_ context.Context, _, mechanism uint64) ([]uint64, error) {
	for _, m := range d.list {
		if m, ok := ep11.Bounded(d.points, m); ok && uint64(m.Type) == mechanism {
			return []uint64{m.MinKeySize, m.MaxKeySize, uint64(m.Flags)}, nil
		}
	}
	return nil, p11.CKR_MECHANISM_INVALID
}

// Login begins a session, or takes part in the one of the same PIN and nonce.
func (d *domain) Login(_ context.Context, pin, nonce []byte) ([]byte, error) {
	if len(pin) < leastPIN || len(pin) > mostPIN {
		return nil, p11.CKR_PIN_LEN_RANGE
	}
	if err := d.ready(); err != nil {
		return nil, err
	}
	id, err := d.sessionID(pin, nonce)
	if err == nil {
		err = d.beginSession(id)
	}
	if err != nil {
		d.log.Error("software card: login", "err", err)
		return nil, p11.CKR_SESSION_COUNT
	}
	blob := append(id, make([]byte, loginSalt)...)
	rand.Read(blob[len(id):])
	return append(blob, d.wk.loginMAC(blob)...), nil
}

// sessionID is the same in all domains. It never begins as a public key does.
func (d *domain) sessionID(pin, nonce []byte) ([]byte, error) {
	k, err := d.set.read(sessionKey)
	if errors.Is(err, fs.ErrNotExist) {
		err = d.set.locked(func() (err error) {
			if !d.set.exists(sessionKey) { // nobody has made it meanwhile
				if err := d.set.writeKeyLocked(sessionKey); err != nil {
					return err
				}
			}
			k, err = d.set.read(sessionKey)
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(k)
	m := hmac.New(sha256.New, k)
	m.Write(binary.BigEndian.AppendUint32(nil, uint32(len(pin))))
	m.Write(pin)
	m.Write(nonce)
	id := m.Sum(nil)
	id[0] |= 0x80
	return id, nil
}

// beginSession notes a login.
func (d *domain) beginSession(id []byte) error {
	s, name := d.set, d.sessionFile(id)
	return s.locked(func() error {
		if err := s.root.MkdirAll(path.Dir(name), 0o700); err != nil {
			return err
		}
		list, err := fs.ReadDir(s.root.FS(), path.Dir(name))
		switch {
		case err != nil:
			return err
		case s.exists(name):
			return nil
		case len(list) >= maxSessions:
			return errors.New("too many sessions")
		}
		return s.writeLocked(name, nil)
	})
}

// Logout ends a session.
func (d *domain) Logout(_ context.Context, blob []byte) error {
	if err := d.checkLogin(blob); err != nil {
		return err
	}
	name := d.sessionFile(blob[:ep11.SessionLen])
	if !d.set.exists(name) {
		return p11.CKR_SESSION_CLOSED
	}
	if err := d.set.locked(func() error { return d.set.removeLocked(name) }); err != nil {
		return ep11.Internal
	}
	return nil
}

// LoginExtended is for sessions of certified cards, which this is not.
func (*domain) LoginExtended(context.Context, []byte, []byte, []byte) ([]byte, error) {
	return nil, p11.CKR_FUNCTION_NOT_SUPPORTED
}

// LogoutExtended is likewise.
func (*domain) LogoutExtended(context.Context, []byte, []byte, []byte) error {
	return p11.CKR_FUNCTION_NOT_SUPPORTED
}

// Admin answers an administrator's command. No signatures are asked for.
func (d *domain) Admin(_ context.Context, command, _ []byte) (response, response2 []byte, err error) {
	n, payload, err := ep11.ReadCommand(command)
	if err != nil {
		return nil, nil, err
	}
	var out []byte
	switch n {
	case ep11.CommandControlPoints:
		out = d.points
	case ep11.CommandReencrypt:
		out, err = d.reencrypt(payload)
	default:
		err = p11.CKR_FUNCTION_NOT_SUPPORTED
	}
	return ep11.CommandAnswer(n, p11.RVOf(err), out), []byte{}, nil
}

// reencrypt seals a key anew, under the next wrapping key.
func (d *domain) reencrypt(blob ep11.Blob) ([]byte, error) {
	if !d.set.Committed(d.apqn, WK) {
		return nil, ep11.WKNotInitialised
	}
	b, err := d.set.Key(d.apqn, WK, Next)
	if err != nil || b == nil {
		return nil, ep11.WKNotInitialised
	}
	next := wrappingKey{b}
	defer next.wipe()
	k, err := d.open(blob)
	if err != nil {
		return nil, err
	}
	defer k.wipe()
	if err := d.set.Carry(d.apqn, WK); err != nil {
		d.log.Error("software card: re-enciphering", "err", err)
		return nil, ep11.Internal
	}
	if !blob.IsSPKI() {
		return next.seal(k, orderOf(blob[ep11.BlobVersion:])), nil
	}
	if blob.WKID() == nil {
		return nil, ep11.BlobError // it is of no wrapping key
	}
	return next.sealPublic(blob.SPKI(), k.bits, k.session, d.order), nil
}

// What a card says that it is.
const (
	hostVersion = 0x00040200 // 4.2.0
	apiOrdinal  = 6
	pqcBytes    = 32
)

// GetXcpInfo says what the card and the domain are.
func (d *domain) GetXcpInfo(_ context.Context, query, _ uint64) ([]byte, error) {
	switch query {
	case ep11.QueryHost:
		return d.number32(hostVersion), nil
	case ep11.QueryModule:
		return ep11.Pack(d.order, d.module()), nil
	case ep11.QueryDomain:
		info, err := d.info()
		return ep11.Pack(d.order, info), err
	case ep11.QueryExtended:
		return d.number32(0), nil
	case ep11.QueryPQC:
		return make([]byte, pqcBytes), nil // none
	}
	return nil, p11.CKR_FUNCTION_NOT_SUPPORTED
}

func (d *domain) number32(v uint32) []byte {
	b := make([]byte, 4)
	d.order.PutUint32(b, v)
	return b
}

func (d *domain) module() *ep11.ModuleInfo {
	m := &ep11.ModuleInfo{
		API: apiOrdinal, Domains: uint64(len(d.set.apqns)), FirmwareVersion: [2]byte{0, 1},
		DigestState: 1024, PINBlob: ep11.SessionLen + loginSalt + ep11.MACLen, SymmetricKey: 256, SPKI: 1024, PrivateKey: 4096,
		SymmetricState: 8192, MaxPayload: 1 << 20, ControlPointBytes: ep11.ControlPointBytes, ControlPoints: 8 * ep11.ControlPointBytes,
	}
	for i := range m.Serial {
		m.Serial[i] = ' '
	}
	copy(m.Serial[:], d.set.Serial())
	copy(m.FirmwareHash[:], "p11fs software card") // nobody takes it for a certified one
	copy(m.Time[:], time.Now().UTC().Format("20060102150405")+"00")
	return m
}

// info is the wrapping keys of the domain.
func (d *domain) info() (*ep11.DomainInfo, error) {
	i := &ep11.DomainInfo{Domain: uint64(d.apqn.Domain), Flags: ep11.DomainAdministrators | ep11.DomainImprinted}
	if d.wk.key != nil {
		i.Flags |= ep11.DomainWK
		copy(i.WK[:], d.wk.pattern())
	}
	b, err := d.set.Key(d.apqn, WK, Next)
	if err != nil {
		return i, ep11.Internal
	}
	if b != nil {
		next := wrappingKey{b}
		defer next.wipe()
		i.Flags |= ep11.DomainNext
		copy(i.Next[:], next.pattern())
	}
	if b != nil && d.set.Committed(d.apqn, WK) {
		i.Flags |= ep11.DomainNextCommitted
	}
	return i, nil
}
