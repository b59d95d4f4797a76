package fs

import (
	"context"
	"syscall"
	"time"

	"p11fs/engine"
	"p11fs/p11"
)

// A rootDir is the top of the tree: its files, and a folder for each token that is there.
type rootDir struct{ staticDir }

func (d *rootDir) list(context.Context, caller) (entries, error) {
	list := d.names()
	for _, slot := range d.fs.config.Engine.Slots() {
		if slot.Present() {
			e := d.fs.tokenEntry(slot)
			list = append(list, e.dirEntry(slot.Name(), e.path, e.kind()))
		}
	}
	return list, nil
}

func (d *rootDir) lookup(ctx context.Context, c caller, name string) (*entry, error) {
	e, err := d.staticDir.lookup(ctx, c, name)
	if err == nil {
		return e, nil
	}
	if slot, gone := d.fs.config.Engine.SlotNamed(name); gone == nil {
		return d.fs.tokenEntry(slot), nil
	}
	return nil, err
}

// tokenEntry is the folder of the slot's token.
func (f *FS) tokenEntry(slot *engine.Slot) *entry {
	if e, ok := f.tokens.Load(slot); ok {
		return e.(*entry) //nolint:forcetypeassert // nothing else is in the map
	}
	p := place{fs: f, slot: slot}
	e, _ := f.tokens.LoadOrStore(slot, &entry{place: p, perm: 0o770, dir: p.directory(), everyones: true})
	return e.(*entry) //nolint:forcetypeassert // likewise
}

// Forget has the kernel forget the folder of a slot that the engine has no more: another of
// the name is to be found at once. It waits for that, but not for long: whoever holds the
// lock of the top of the tree can keep the kernel.
func (f *FS) Forget(slot *engine.Slot) {
	f.tokens.Delete(slot)
	if f.root == nil || f.root.EmbeddedInode() == nil {
		return
	}
	told := make(chan struct{})
	go func() {
		defer close(told)
		_ = f.root.NotifyEntry(slot.Name()) // ENOENT where the kernel did not know it
	}()
	select {
	case <-told:
	case <-time.After(forgetTime):
		f.config.Log.Warn("the kernel has not yet forgotten the folder of a token that went", "token", slot.Name())
	}
}

const forgetTime = 5 * time.Second

// control does what a line says that is for the daemon.
func (p place) control(ctx context.Context, a *application, line []byte) error {
	if !p.owns(a.owner.uid) {
		return refuse(syscall.EPERM, p11.CKR_FUNCTION_REJECTED, "only root and the owner of the tree give orders to the daemon: ask one of them")
	}
	return p.fs.config.Control(ctx, a.eng.Owner(), string(line))
}
