package tpm20

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/google/go-tpm/tpm2"
)

// leftovers are what a TPM still holds of ours after a connection to it broke. The kernel
// flushes that; a software TPM, or a device without a resource manager, does not, and
// would soon have no room.
type leftovers struct {
	names    map[string]bool // of keys, also of one whose loading was not answered
	sessions []tpm2.TPMHandle
	coming   []byte // the name of the key that is being loaded
}

// nameOf is the name that a key will have (TPM 2.0 Library, Part 1, §16).
func nameOf(b Blob) []byte {
	sum := sha256.Sum256(b.Public)
	return append(binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMAlgSHA256)), sum[:]...)
}

// lose notes what there is, since the link is gone.
func (w *worker) lose() {
	names := make(map[string]bool)
	for _, k := range w.keys {
		names[string(k.name.Buffer)] = true
		if k.session != nil {
			w.lost.sessions = append(w.lost.sessions, k.session.Handle())
		}
	}
	if w.storage != nil {
		names[string(w.storage.name)] = true
	}
	if w.lost.coming != nil {
		names[string(w.lost.coming)] = true
	}
	if len(names) > 0 {
		w.lost.names = names
	}
}

// reclaim flushes what was lost, over a new link. Sessions have no names: where none of
// the keys is left, the TPM has started again, and the sessions are those of others.
func (w *worker) reclaim() error {
	if len(w.lost.names) == 0 {
		return nil
	}
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: uint32(firstTransient), PropertyCount: 64}.Execute(w)
	if err != nil {
		return err
	}
	list, err := r.CapabilityData.Data.Handles()
	if err != nil {
		return err
	}
	found := false
	for _, h := range list.Handle {
		if h < firstTransient || h > lastTransient {
			continue
		}
		if p, err := (tpm2.ReadPublic{ObjectHandle: h}).Execute(w); err == nil && w.lost.names[string(p.Name.Buffer)] {
			w.flushHandle(h)
			found = true
		}
	}
	if found {
		for _, h := range w.lost.sessions {
			w.flushHandle(h)
		}
	}
	w.lost = leftovers{}
	return nil
}

// The handles of what is loaded.
const (
	firstTransient tpm2.TPMHandle = 0x80000000
	lastTransient  tpm2.TPMHandle = 0x80ffffff
)
