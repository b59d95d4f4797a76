package mountd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"p11fs/engine"
	"p11fs/locks"
	"p11fs/mountd/config"
	"p11fs/mountd/slotd"
	"p11fs/shm"
	"p11fs/tokens"
)

// stockDoor is the place of pkcsslotd, for programs that load openCryptoki's own
// library. Only a system daemon run by root has it: the stock library asks for
// files of root's.
type stockDoor struct {
	apiLock *locks.Lock
	daemon  *slotd.Daemon
	err     error // why there is no door
}

// ErrNoSlotDaemonFile means that the file is missing by which stock clients find the
// slot manager's segment.
var ErrNoSlotDaemonFile = errors.New("there is no pkcsslotd file: make install puts one there")

// openStock takes the place of pkcsslotd. A pkcsslotd that runs stops the start:
// two of them would share neither slots nor session counts.
func (d *Daemon) openStock(ctx context.Context) error {
	p := d.conf.Paths
	if d.conf.Mode != System || os.Geteuid() != 0 || p.SlotSocket == "" {
		return nil
	}
	if _, err := os.Stat(p.SlotDaemon); errors.Is(err, os.ErrNotExist) {
		// Nobody can use the stock library here: it stats this file first.
		if d.conf.SlotDaemon {
			return fmt.Errorf("%w: %s", ErrNoSlotDaemonFile, p.SlotDaemon)
		}
		d.log.Info("no door for the stock library: openCryptoki is not installed", "missing", p.SlotDaemon)
		return nil
	}
	door := &stockDoor{}
	d.stock = door
	group := d.group()
	if group < 0 {
		door.err = fmt.Errorf("there is no group %s: groupadd --system %[1]s makes it", Group)
		if d.conf.SlotDaemon {
			return door.err
		}
		d.log.Error("no door for the stock library", "err", door.err)
		return nil
	}
	err := d.takeSlotDaemonsPlace(ctx, door, group, d.stockSlots())
	if errors.Is(err, slotd.ErrRunning) || ctx.Err() != nil || err != nil && d.conf.SlotDaemon {
		return err
	}
	if err != nil {
		// The doors fail apart.
		door.err = err
		d.log.Error("no door for the stock library", "err", err)
	}
	return nil
}

// stockSlots are the slots that stock programs get.
func (d *Daemon) stockSlots() []config.Slot {
	var slots []config.Slot
	for _, s := range d.all() {
		if !s.unshared() {
			slots = append(slots, s.Slot.Slot)
		}
	}
	return slots
}

func (d *Daemon) takeSlotDaemonsPlace(ctx context.Context, door *stockDoor, group int, slots []config.Slot) (err error) {
	p := d.conf.Paths
	if err := locks.MakeDirectory(filepath.Dir(p.SlotSocket), 0o755, locks.NoGroup); err != nil {
		return err
	}
	if door.apiLock, err = locks.Open(filepath.Join(p.Locks, "LCK..APIlock"), group); err != nil {
		return err
	}
	d.later(door.apiLock.Close)
	stock := SystemPaths("")
	door.daemon, err = slotd.Open(ctx, slotd.Config{
		StockFile: stock.SlotDaemon, StockSocket: stock.SlotSocket, StockConf: p.SlotConfig,
		File: p.SlotDaemon, Socket: p.SlotSocket, PIDFile: p.PIDFile,
		APILock: door.apiLock, Group: group, Slots: slots, Log: d.log, Now: d.now,
	})
	if err != nil {
		return err
	}
	d.later(door.daemon.Close)
	return nil
}

// sessionTable is where sessions are counted for other processes; nil without
// the stock door.
func (d *Daemon) sessionTable() engine.SessionTable {
	if d.stock == nil || d.stock.daemon == nil {
		return nil
	}
	return d.stock.daemon
}

// sharedThrough is the segment through which stock processes share the token of s,
// nil without the stock door, and where they are not told of the token. Its name is
// that of the token directory as they see it: below --root.
func (d *Daemon) sharedThrough(s *slot) (*tokens.Shared, error) {
	if d.sessionTable() == nil || s.unshared() {
		return nil, nil
	}
	name, err := s.SegmentName()
	if err != nil {
		return nil, err
	}
	return &tokens.Shared{Dir: d.conf.Paths.SharedMemory, Name: name}, nil
}

// slotManager and slotSocket are the door's lines in the list of resources.
func (d *Daemon) slotManager() resource {
	r := d.slotSocket()
	r.name = "shm/slot-manager"
	if r.state == stateOn {
		st, err := d.stock.daemon.Stats()
		if err != nil {
			return resource{name: r.name, state: stateFailed}
		}
		r.size, r.users = shm.SlotManagerSize, st.Attached
	}
	return r
}

func (d *Daemon) slotSocket() resource {
	r := resource{name: "socket/slots", state: stateOff}
	switch {
	case d.stock == nil:
	case d.stock.err != nil || d.stock.daemon.Lost() != nil:
		r.state = stateFailed
	default:
		r.count, r.size, r.state = 1, unknown, stateOn
	}
	return r
}

// slotDaemonState is the door's line in the file status.
func (d *Daemon) slotDaemonState() string {
	switch {
	case d.stock == nil:
		return stateOff
	case d.stock.err != nil:
		return stateFailed + ": " + oneLine(d.stock.err.Error())
	}
	if err := d.stock.daemon.Lost(); err != nil {
		return "lost: " + oneLine(err.Error())
	}
	if err := d.stock.daemon.Unrefusable(); err != nil {
		return stateOn + "; " + oneLine(err.Error())
	}
	return stateOn + "; a stock one that starts is refused"
}
