package integration

import (
	"bytes"
	"compress/gzip"
	endian "encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// golden reads a dump that was made with the stock programs.
func golden(t testing.TB, path string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join("..", path))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// dumper lets a host dump.
func (h *slotHost) dumper() (dump func(args string) []byte) {
	h.t.Helper()
	script, err := filepath.Abs("testdata/stock_dump.py")
	if err != nil {
		h.t.Fatal(err)
	}
	h.ok("cd $STATE; dump='python3 " + script + "'")
	return func(args string) []byte {
		h.t.Helper()
		return []byte(h.ok("$dump " + args))
	}
}

// A field is bytes of a dump, with a name for what differs.
type field struct {
	name     string
	at, size int
}

// sameFields compares two dumps outside the fields that may differ, which are
// named with the reason.
func sameFields(t *testing.T, got, want []byte, differ map[string]field) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d bytes, want %d", len(got), len(want))
	}
	got, want = bytes.Clone(got), bytes.Clone(want)
	for _, f := range differ {
		clear(got[f.at : f.at+f.size])
		clear(want[f.at : f.at+f.size])
	}
	for i, n := 0, 0; i < len(got) && n < 10; i++ {
		if got[i] != want[i] {
			t.Errorf("byte %d is %#x, stock %#x", i, got[i], want[i])
			n++
		}
	}
}

// TestStockGolden compares what our running slot daemon shares with dumps that the
// stock programs made: the slot socket, the token's segment and the slot
// manager's.
func TestStockGolden(t *testing.T) {
	t.Parallel()
	const oneSlot = "version opencryptoki-3.1\nslot 3\n{\nstdll = libpkcs11_sw.so\n}\n"
	multi, err := os.ReadFile("../mountd/slotd/testdata/socket-multi-slot.conf")
	if err != nil {
		t.Fatal(err)
	}
	h := newSlotHost(t, string(multi))
	dump := h.dumper()
	t.Run("socket with several slots", func(t *testing.T) {
		h.startSlotd()
		sameFields(t, dump("socket /run/pkcsslotd.socket"), golden(t, "mountd/slotd/testdata/socket-multi-slot.bin.gz"), nil)
		h.endSlotd()
	})
	// Bound over the file: its inode must stay.
	h.ok("printf '" + strings.ReplaceAll(oneSlot, "\n", `\n`) + "' > $STATE/conf; rm -rf $STATE/tokens/*; rm -f /dev/shm/*")
	const segment = "/dev/shm/var.lib.opencryptoki.swtok"
	t.Run("segment of a pristine token", func(t *testing.T) {
		h.startSlotd()
		h.ok("cp " + segment + " $STATE/ours")
		h.endSlotd()
		got, err := os.ReadFile(filepath.Join(h.state, "ours"))
		if err != nil {
			t.Fatal(err)
		}
		sameFields(t, got, golden(t, "shm/testdata/shm-pristine.bin.gz"), map[string]field{
			"references: ours is attached while it runs": {"references", 0, 4},
			"serial number: ours is the token's own":     {"serial number", 344, 16},
		})
	})
	h.ok("rm -rf $STATE/tokens/*; rm -f /dev/shm/*")
	unpackToken(t, filepath.Join(h.state, "tokens"))
	t.Run("socket with one slot", func(t *testing.T) {
		h.startSlotd()
		sameFields(t, dump("socket /run/pkcsslotd.socket"), golden(t, "mountd/slotd/testdata/socket-one-slot.bin.gz"), nil)
	})
	t.Run("segment of a token with objects", func(t *testing.T) {
		h.ok("echo " + readManifest(t).UserPIN + " > /p11/swtok/login && ls /p11/swtok/objects && cp " + segment + " $STATE/ours")
		got, err := os.ReadFile(filepath.Join(h.state, "ours"))
		if err != nil {
			t.Fatal(err)
		}
		differ := map[string]field{"references": {"references", 0, 4}}
		want := golden(t, "shm/testdata/shm-idle.bin.gz")
		for list, at := range map[string]int{"public": 508, "private": 508 + 2048*20} {
			for i := range 12 {
				name := fmt.Sprintf("%s entry %d: the counter of changes starts anew with a segment", list, i)
				differ[name] = field{name, at + 20*i + 12, 8}
			}
			differ[list+": what stock leaves behind the last entry"] = field{list, at + 20*12, 20}
		}
		sameFields(t, got, want, differ)
	})
	t.Run("segment of the slot manager", func(t *testing.T) {
		var pids []int
		for _, args := range []string{"3 3 1", "3 2 0"} {
			h.ok("rm -f held; $dump hold " + h.module + " " + args + " > held & for i in $(seq 200); do [ -s held ] && break; sleep 0.05; done; [ -s held ]")
			pid, err := strconv.Atoi(strings.TrimSpace(h.ok("cat held")))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
		got, want := dump("sysv /usr/sbin/pkcsslotd"), golden(t, "shm/testdata/sysv-live.bin.gz")
		// Ours is registered as a process, first of all, so the stock
		// processes have the entries behind it; and the shell that logged
		// in has a session in the mount.
		const table, entry, pidAt, sessionsAt, timeAt = 4096, 4120, 4, 16, 4112
		our, _ := strconv.Atoi(strings.TrimSpace(h.ok("echo $slotd")))
		own := got[table : table+entry]
		ours := endian.LittleEndian.Uint32(own[sessionsAt+4*3:])
		if own[0] != 1 || int(endian.LittleEndian.Uint32(own[pidAt:])) != our || ours > 1 {
			t.Errorf("our own entry: %x", own[:sessionsAt+20])
		}
		for i, pid := range pids {
			e := got[table+(i+1)*entry:][:entry]
			if n := int(endian.LittleEndian.Uint32(e[pidAt:])); n != pid {
				t.Errorf("process %d of the table is %d, want %d", i+1, n, pid)
			}
			if at := time.Unix(int64(endian.LittleEndian.Uint64(e[timeAt:])), 0); time.Since(at) > time.Hour || time.Until(at) > time.Hour {
				t.Errorf("registered at %v", at)
			}
			sameFields(t, e, want[table+i*entry:][:entry], map[string]field{"process number": {"pid", pidAt, 4}, "time": {"time", timeAt, 8}})
		}
		if rest := got[table+3*entry:]; !bytes.Equal(rest, want[table+3*entry:]) {
			t.Error("the rest of the process table differs")
		}
		counters := bytes.Clone(got[:table])
		endian.LittleEndian.PutUint32(counters[4*3:], endian.LittleEndian.Uint32(counters[4*3:])-ours)
		sameFields(t, counters, want[:table], nil)
		for _, pid := range pids {
			h.ok(fmt.Sprintf("kill %d", pid))
		}
		h.ok("echo > /p11/swtok/logout")
	})
	h.endSlotd()
	h.stop()
}
