package shm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// The slot manager's segment: sizes in bytes and table lengths.
const (
	// Slots is the number of slots that the segment counts sessions for.
	Slots = 1024
	// MaxProcesses is the length of the process table.
	MaxProcesses = 1000
	// SlotManagerSize is the segment's size; stock clients ask for exactly
	// this many bytes.
	SlotManagerSize = processTable + MaxProcesses*processSize

	processTable = Slots * 4
	processSize  = 4120

	procInUse    = 0
	procPID      = 4
	procSessions = 16
	procTime     = 4112
)

// ErrTableFull is the error when 1000 processes are registered already.
var ErrTableFull = errors.New("the slot manager's process table is full")

// Key is the System V key of the segment that belongs to the slot daemon's
// file, as ftok(path, 'b') makes it. It changes with the file's inode, so a
// daemon and its clients must stat the same file.
func Key(path string) (int, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("key of the slot manager's shared memory: %s: %w", path, err)
	}
	return int(int32('b'<<24 | uint32(st.Dev&0xff)<<16 | uint32(st.Ino&0xffff))), nil
}

// A SlotManager is the mapped System V segment. The caller holds the API lock
// around every method.
type SlotManager struct {
	id  int
	mem []byte
}

// CreateSlotManager attaches the segment of key for the daemon. A segment that
// exists is kept if keep, called with its process table, says so: clients that
// live through a restart of the daemon go on using it. Otherwise it is removed
// and made anew, zeroed. gid owns a new segment; -1 leaves the creator's group.
// kept tells which it was.
func CreateSlotManager(key, gid int, keep func([]Process) bool) (m *SlotManager, kept bool, err error) {
	if old, err := AttachSlotManager(key); err == nil {
		if keep(old.Processes()) {
			return old, true, old.chown(gid)
		}
		if err := errors.Join(old.Remove(), old.Detach()); err != nil {
			return nil, false, err
		}
	} else if id, e := unix.SysvShmGet(key, 0, 0); e == nil {
		// Of another size, from another version or a stranger: nothing that
		// a stock client could use.
		if _, e := unix.SysvShmCtl(id, unix.IPC_RMID, nil); e != nil {
			return nil, false, fmt.Errorf("remove the unusable shared memory segment %#x: %w", uint32(key), e)
		}
	}
	id, err := unix.SysvShmGet(key, SlotManagerSize, unix.IPC_CREAT|unix.IPC_EXCL|0o660)
	if err != nil {
		return nil, false, fmt.Errorf("create shared memory segment %#x: %w", uint32(key), err)
	}
	m, err = attach(id)
	if err == nil {
		if err = m.chown(gid); err == nil {
			return m, false, nil
		}
		err = errors.Join(err, m.Detach())
	}
	_, rmErr := unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	return nil, false, errors.Join(err, rmErr)
}

// SlotManagerID is the System V identifier of the segment that has key now.
func SlotManagerID(key int) (int, error) {
	id, err := unix.SysvShmGet(key, 0, 0)
	if err != nil {
		return 0, fmt.Errorf("shared memory segment %#x: %w", uint32(key), err)
	}
	return id, nil
}

// AttachSlotManager attaches the segment of key as a client does.
func AttachSlotManager(key int) (*SlotManager, error) {
	id, err := unix.SysvShmGet(key, SlotManagerSize, 0o660)
	if err != nil {
		return nil, fmt.Errorf("shared memory segment %#x: %w", uint32(key), err)
	}
	return attach(id)
}

func attach(id int) (*SlotManager, error) {
	mem, err := unix.SysvShmAttach(id, 0, 0)
	if err != nil {
		return nil, fmt.Errorf("attach shared memory: %w", err)
	}
	m := &SlotManager{id: id, mem: mem}
	if len(mem) != SlotManagerSize {
		return nil, errors.Join(fmt.Errorf("the shared memory segment has %d bytes, not %d", len(mem), SlotManagerSize), m.Detach())
	}
	return m, nil
}

func (m *SlotManager) chown(gid int) error {
	if gid < 0 {
		return nil
	}
	ds, err := m.stat()
	if err != nil {
		return err
	}
	ds.Perm.Gid = uint32(gid)
	ds.Perm.Mode = 0o660
	if _, err := unix.SysvShmCtl(m.id, unix.IPC_SET, &ds); err != nil {
		return fmt.Errorf("shared memory: give to group %d: %w", gid, err)
	}
	return nil
}

// ID is the segment's System V identifier, as ipcs shows it.
func (m *SlotManager) ID() int { return m.id }

// Attached is the number of processes that have the segment mapped.
func (m *SlotManager) Attached() (int, error) {
	ds, err := m.stat()
	return int(ds.Nattch), err
}

func (m *SlotManager) stat() (ds unix.SysvShmDesc, err error) {
	if _, err = unix.SysvShmCtl(m.id, unix.IPC_STAT, &ds); err != nil {
		err = fmt.Errorf("shared memory: stat: %w", err)
	}
	return ds, err
}

// Detach unmaps the segment, which lives on.
func (m *SlotManager) Detach() error {
	if m.mem == nil {
		return nil
	}
	err := unix.SysvShmDetach(m.mem)
	m.mem = nil
	return err
}

// Remove marks the segment for removal once nobody has it mapped.
func (m *SlotManager) Remove() error {
	if _, err := unix.SysvShmCtl(m.id, unix.IPC_RMID, nil); err != nil {
		return fmt.Errorf("shared memory: remove: %w", err)
	}
	return nil
}

// A Process is one registered entry of the process table.
type Process struct {
	Index      int
	PID        int32
	Registered time.Time
	Sessions   map[int]uint32 // by slot, only those that are not 0
}

// Processes returns the entries in use.
func (m *SlotManager) Processes() []Process {
	var ps []Process
	for i := range MaxProcesses {
		e := m.entry(i)
		if e[procInUse] == 0 {
			continue
		}
		p := Process{Index: i, PID: entryPID(e), Registered: time.Unix(int64(binary.NativeEndian.Uint64(e[procTime:])), 0), Sessions: map[int]uint32{}}
		for s := range Slots {
			if n := u32(e, procSessions+4*s); n != 0 {
				p.Sessions[s] = n
			}
		}
		ps = append(ps, p)
	}
	return ps
}

// Register takes an entry for pid: its own old one, else the first free one.
// The entry's counters start at 0.
func (m *SlotManager) Register(pid int32, now time.Time) error {
	at := m.find(pid)
	for i := 0; at < 0 && i < MaxProcesses; i++ {
		if m.entry(i)[procInUse] == 0 {
			at = i
		}
	}
	if at < 0 {
		return ErrTableFull
	}
	e := m.entry(at)
	clear(e)
	putU32(e, procPID, uint32(pid))
	binary.NativeEndian.PutUint64(e[procTime:], uint64(now.Unix()))
	e[procInUse] = 1
	return nil
}

// Registered reports whether pid has an entry.
func (m *SlotManager) Registered(pid int32) bool { return m.find(pid) >= 0 }

// Unregister frees the entry of pid, if it has one, and takes the sessions that
// the entry still counts off the global counters.
func (m *SlotManager) Unregister(pid int32) {
	if i := m.find(pid); i >= 0 {
		m.free(i)
	}
}

// SetSessions makes the counter of pid on slot n, and moves the global counter
// by the difference.
func (m *SlotManager) SetSessions(pid int32, slot int, n uint32) error {
	if slot < 0 || slot >= Slots {
		return fmt.Errorf("the shared memory has no slot %d: give it a number from 0 to %d", slot, Slots-1)
	}
	i := m.find(pid)
	if i < 0 {
		return fmt.Errorf("process %d is not registered", pid)
	}
	e := m.entry(i)
	own, global := u32(e, procSessions+4*slot), u32(m.mem, 4*slot)
	putU32(e, procSessions+4*slot, n)
	putU32(m.mem, 4*slot, max(global, own)-own+n)
	return nil
}

// Sessions is the number of sessions open on slot, over all processes.
func (m *SlotManager) Sessions(slot int) uint32 {
	if slot < 0 || slot >= Slots {
		return 0
	}
	return u32(m.mem, 4*slot)
}

// Collect frees the entries of processes that alive denies, with the stock
// daemon's arithmetic: a slot's global counter goes down by the dead process's
// own, or to 0 if that is larger. When no process is left all counters are 0.
// It returns the entries freed.
func (m *SlotManager) Collect(alive func(pid int32, registered time.Time) bool) []Process {
	var dead []Process
	left := 0
	for _, p := range m.Processes() {
		if p.PID > 0 && alive(p.PID, p.Registered) {
			left++
			continue
		}
		m.free(p.Index)
		dead = append(dead, p)
	}
	if left == 0 {
		clear(m.mem[:processTable])
	}
	return dead
}

func (m *SlotManager) free(i int) {
	e := m.entry(i)
	for s := range Slots {
		own, global := u32(e, procSessions+4*s), u32(m.mem, 4*s)
		if own > 0 {
			putU32(m.mem, 4*s, max(global, own)-own)
		}
	}
	clear(e)
}

func (m *SlotManager) entry(i int) []byte {
	at := processTable + i*processSize
	return m.mem[at : at+processSize]
}

func (m *SlotManager) find(pid int32) int {
	for i := range MaxProcesses {
		if e := m.entry(i); e[procInUse] != 0 && entryPID(e) == pid {
			return i
		}
	}
	return -1
}

func entryPID(e []byte) int32 { return int32(u32(e, procPID)) }

func u32(b []byte, at int) uint32       { return binary.NativeEndian.Uint32(b[at:]) }
func putU32(b []byte, at int, v uint32) { binary.NativeEndian.PutUint32(b[at:], v) }
