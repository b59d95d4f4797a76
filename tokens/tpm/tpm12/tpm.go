package tpm12

import (
	"context"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"p11fs/p11"
	"p11fs/tokens/tpm/desk"
)

// A TPM is a TPM 1.2 that several goroutines use at once. It keeps keys loaded, those that
// were used last, until it rests.
type TPM struct {
	line *desk.Line
	desk *desk.Desk[*worker]
}

// Open returns the TPM of a device. It is not looked at before it is used. srk is the
// secret of its storage root key.
func Open(d desk.Device, srk Auth) *TPM {
	w := &worker{srk: srk}
	w.Line = &desk.Line{Device: d, Greet: w.greet, Lost: w.forget, Give: w.give, Stale: stale}
	w.chip = Chip{w}
	return &TPM{w.Line, desk.Open(string(d), w)}
}

// Close gives up what is held of the TPM.
func (t *TPM) Close() { t.desk.Close() }

// Offline returns nil, or why the TPM could not be used when that was last tried.
func (t *TPM) Offline() error { return t.line.Offline() }

// Device is what the TPM was opened with.
func (t *TPM) Device() desk.Device { return t.line.Device }

// A worker is what there is of a TPM 1.2 while it is used.
type worker struct {
	*desk.Line
	chip Chip
	srk  Auth
	room int      // how many keys there may be
	keys []loaded // the one that was used last stands last
}

// A loaded is a key that the TPM has loaded.
type loaded struct {
	id     [sha1.Size]byte // of the key and those above it
	handle Handle
}

// most bounds how many keys are kept.
const most = 16

// greet asks for the room that there is: of slots that are free some are left to others.
func (w *worker) greet() error {
	free, err := w.chip.Slots(context.Background())
	w.room = max(min(free-2, most), 1)
	return err
}

func (w *worker) forget() { w.keys = nil }

// give flushes all keys.
func (w *worker) give() {
	for _, k := range w.keys {
		_ = w.chip.Flush(context.Background(), k.handle) // what is gone is gone
	}
	w.forget()
}

// How long a command may take: chips take a minute over a key.
const (
	patience     = 5 * time.Second
	longPatience = 3 * time.Minute
)

// Send is Device. A TPM that was switched on and not started is started.
func (w *worker) Send(_ context.Context, command []byte) ([]byte, error) {
	wait := patience
	if ordinal(binary.BigEndian.Uint32(command[6:])) == ordCreateWrapKey {
		wait = longPatience
	}
	response, err := w.Exchange(command, wait)
	if err != nil || Code(binary.BigEndian.Uint32(response[6:])) != codePostInit {
		return response, err
	}
	startup := []byte{0, tagCommand, 0, 0, 0, 12, 0, 0, 0, 0x99, 0, 1} // TPM_Startup(TPM_ST_CLEAR)
	if _, err := w.Exchange(startup, patience); err != nil {
		return nil, err
	}
	return w.Exchange(command, wait)
}

// stale says whether a key that was loaded is not, as others have flushed it, or the TPM
// has started again.
func stale(err error) bool { return errors.Is(err, codeKeyHandle) }

// load has a key loaded, and those above it: the first of path lies under the storage root
// key, and none but that wants a secret for it.
func (w *worker) load(ctx context.Context, path []Key) (Handle, error) {
	parent, secret := SRK, &w.srk
	var id [sha1.Size]byte
	for i, k := range path {
		id = sha1.Sum(append(id[:], k.Print()...))
		at := slices.IndexFunc(w.keys, func(l loaded) bool { return l.id == id })
		if at < 0 {
			h, err := w.loadOne(ctx, parent, secret, k, i)
			if err != nil {
				return 0, err
			}
			w.keys = append(w.keys, loaded{id, h})
		} else {
			// Behind all but those above it.
			w.keys = append(append(w.keys[:at:at], w.keys[at+1:]...), w.keys[at])
		}
		parent, secret = w.keys[len(w.keys)-1].handle, nil
	}
	return parent, nil
}

// loadOne loads a key, the last keep of which stay, and makes room for it.
func (w *worker) loadOne(ctx context.Context, parent Handle, secret *Auth, k Key, keep int) (Handle, error) {
	for {
		for len(w.keys) >= max(w.room, keep+1) {
			w.evict()
		}
		h, err := w.chip.Load(ctx, parent, secret, k)
		if !errors.Is(err, CodeNoSlot) && !errors.Is(err, CodeNoSpace) || len(w.keys) <= keep {
			return h, err
		}
		w.evict()
	}
}

// evict flushes the key that was not used for the longest time.
func (w *worker) evict() {
	_ = w.chip.Flush(context.Background(), w.keys[0].handle)
	w.keys = append(w.keys[:0:0], w.keys[1:]...)
}

// do has the worker do something with a key.
func do[T any](ctx context.Context, t *TPM, path []Key, f func(w *worker, key Handle) (T, error)) (T, error) {
	v, err := desk.Do(ctx, t.desk, func(w *worker) (T, error) {
		h, err := w.load(ctx, path)
		if err != nil {
			var none T
			return none, err
		}
		return f(w, h)
	})
	var rv p11.RV
	if err != nil && !errors.As(err, &rv) && ctx.Err() == nil {
		err = fmt.Errorf("%w (%w)", err, p11.CKR_DEVICE_ERROR)
	}
	return v, err
}

// Sign is Chip's, by the last key of path.
func (t *TPM) Sign(ctx context.Context, path []Key, a *Auth, data []byte) ([]byte, error) {
	return do(ctx, t, path, func(w *worker, key Handle) ([]byte, error) { return w.chip.Sign(ctx, key, a, data) })
}

// UnBind is Chip's, likewise.
func (t *TPM) UnBind(ctx context.Context, path []Key, a *Auth, data []byte) ([]byte, error) {
	return do(ctx, t, path, func(w *worker, key Handle) ([]byte, error) { return w.chip.UnBind(ctx, key, a, data) })
}

// Opens returns nil if the last key of path can be loaded; it lies under the others then.
func (t *TPM) Opens(ctx context.Context, path []Key) error {
	_, err := do(ctx, t, path, func(*worker, Handle) (struct{}, error) { return struct{}{}, nil })
	return err
}

// Create is Chip's, under the last key of path, which wants no secret.
func (t *TPM) Create(ctx context.Context, path []Key, template Key, usage Auth) (Key, error) {
	return do(ctx, t, path, func(w *worker, parent Handle) (Key, error) {
		return w.chip.Create(ctx, parent, Auth{}, template, usage, usage)
	})
}

// ChangeAuth is Chip's, likewise.
func (t *TPM) ChangeAuth(ctx context.Context, path []Key, k Key, old, now Auth) (Key, error) {
	return do(ctx, t, path, func(w *worker, parent Handle) (Key, error) {
		return w.chip.ChangeAuth(ctx, parent, Auth{}, k, old, now)
	})
}

// Slots is Chip's.
func (t *TPM) Slots(ctx context.Context) (int, error) {
	return do(ctx, t, nil, func(w *worker, _ Handle) (int, error) { return w.chip.Slots(ctx) })
}

// StorageRoot is the public half of the storage root key.
func (t *TPM) StorageRoot(ctx context.Context) (*rsa.PublicKey, error) {
	return do(ctx, t, nil, func(w *worker, _ Handle) (*rsa.PublicKey, error) {
		return w.chip.Public(ctx, SRK, &w.srk)
	})
}

// Random is Chip's.
func (t *TPM) Random(ctx context.Context, b []byte) error {
	// Whoever is interrupted has b back at once.
	own, err := do(ctx, t, nil, func(w *worker, _ Handle) ([]byte, error) {
		own := make([]byte, len(b))
		return own, w.chip.Random(ctx, own)
	})
	copy(b, own)
	clear(own)
	return err
}
