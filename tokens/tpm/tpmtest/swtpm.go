// Package tpmtest starts software TPMs (swtpm) for tests.
package tpmtest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// A TPM is a software TPM of a test.
type TPM struct {
	dir     string
	version []string // the option of swtpm
	port    int      // 0: it has a socket file
	cmd     *exec.Cmd
}

// Start starts a TPM 2.0 without a past, or with the state of an archive (tar.gz) if there
// is one. It ends with the test, and leaves nothing.
func Start(t testing.TB, state []byte) *TPM {
	t.Helper()
	return start(t, state, "--tpm2")
}

// Start12 is Start for a TPM 1.2, which without a past has no owner, and so no keys.
func Start12(t testing.TB, state []byte) *TPM {
	t.Helper()
	return start(t, state)
}

func start(t testing.TB, state []byte, version ...string) *TPM {
	t.Helper()
	if _, err := exec.LookPath("swtpm"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	// The name of a socket is short.
	dir, err := os.MkdirTemp("", "tpm")
	if err != nil {
		t.Fatal(err)
	}
	s := &TPM{dir: dir, version: version}
	t.Cleanup(func() {
		s.Kill()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if state != nil {
		unpack(t, dir, state)
	}
	s.Run(t)
	return s
}

// unpack unpacks the files of an archive.
func unpack(t testing.TB, dir string, archive []byte) {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		b, err := io.ReadAll(r)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(h.Name)), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Socket is the path of its data socket.
func (s *TPM) Socket() string { return filepath.Join(s.dir, "sock") }

// Device is what package tpm20 calls it.
func (s *TPM) Device() string {
	if s.port != 0 {
		return "tcp:" + s.address()
	}
	return "unix:" + s.Socket()
}

// Listen starts it again at a port of this machine, with the port behind that for orders to
// swtpm itself, as TCG's library wants it.
func (s *TPM) Listen(t testing.TB, port int) {
	t.Helper()
	s.off(t)
	s.port = port
	s.Run(t)
}

// Restart switches it off in good order, so that the TPM counts no failure for that, and on
// again. What was loaded is gone.
func (s *TPM) Restart(t testing.TB) {
	t.Helper()
	s.off(t)
	s.Run(t)
}

func (s *TPM) off(t testing.TB) {
	t.Helper()
	s.command(t, 0x145, nil, []byte{0, 0}) // TPM2_Shutdown(CLEAR)
	s.Kill()
}

func (s *TPM) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

func (s *TPM) dial() (net.Conn, error) {
	if s.port != 0 {
		return net.Dial("tcp", s.address())
	}
	return net.Dial("unix", s.Socket())
}

// Run starts it again after Kill. The TPM's power has then been off.
func (s *TPM) Run(t testing.TB) {
	t.Helper()
	_ = os.Remove(s.Socket())
	var said bytes.Buffer
	server := []string{"--server", "type=unixio,path=" + s.Socket()}
	if s.port != 0 {
		server = []string{"--server", "type=tcp,port=" + strconv.Itoa(s.port), "--ctrl", "type=tcp,port=" + strconv.Itoa(s.port+1)}
	}
	s.cmd = exec.Command("swtpm", slices.Concat([]string{"socket", "--tpmstate", "dir=" + s.dir,
		"--flags", "not-need-init,startup-clear"}, server, s.version)...)
	s.cmd.Stdout, s.cmd.Stderr = &said, &said
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for begun := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		c, err := s.dial()
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Since(begun) > 20*time.Second {
			s.Kill()
			t.Fatalf("swtpm does not start: %v\n%s", err, &said)
		}
	}
}

// Tries sets how many failures lock it, in the place of 3: what the manufacturers of chips
// have is ten times that.
func (s *TPM) Tries(t testing.TB, n byte) {
	t.Helper()
	// TPM2_DictionaryAttackParameters.
	s.command(t, 0x13a, binary.BigEndian.AppendUint32(nil, Lockout), []byte{0, 0, 0, n, 0, 0, 3, 0xe8, 0, 0, 3, 0xe8})
}

// Kill ends it without a word, as a power cut does.
func (s *TPM) Kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// PID is its process.
func (s *TPM) PID() int { return s.cmd.Process.Pid }

// Signal sends a signal to it, such as SIGSTOP.
func (s *TPM) Signal(sig syscall.Signal) { _ = s.cmd.Process.Signal(sig) }

// Who may have a password.
const (
	Owner   uint32 = 0x40000001
	Lockout uint32 = 0x4000000a
)

// emptyPassword is an authorisation area with the password that is none.
func emptyPassword() []byte { return []byte{0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0} }

// Password gives somebody who has none a password (TPM2_HierarchyChangeAuth).
func (s *TPM) Password(t testing.TB, who uint32) {
	t.Helper()
	s.command(t, 0x129, binary.BigEndian.AppendUint32(nil, who), append([]byte{0, 8}, "password"...))
}

// Clear clears it (TPM2_Clear): all keys are lost.
func (s *TPM) Clear(t testing.TB) {
	t.Helper()
	s.command(t, 0x126, binary.BigEndian.AppendUint32(nil, Lockout), nil)
}

// Persist makes the storage key that packages make by the template on P-256 one that stays,
// at the handle that is common for that.
func (s *TPM) Persist(t testing.TB) {
	t.Helper()
	public := tpm2.Marshal(tpm2.New2B(tpm2.ECCSRKTemplate))
	// TPM2_CreatePrimary for the owner, then TPM2_EvictControl, and TPM2_FlushContext.
	made := s.command(t, 0x131, binary.BigEndian.AppendUint32(nil, Owner), append(append([]byte{0, 4, 0, 0, 0, 0}, public...), 0, 0, 0, 0, 0, 0))
	handle := made[10:14]
	s.command(t, 0x120, append(binary.BigEndian.AppendUint32(nil, Owner), handle...), []byte{0x81, 0, 0, 1})
	s.command(t, 0x165, nil, handle)
}

// command gives an order with handles, an empty password for the first of them if there is
// one, and parameters. It returns the response.
func (s *TPM) command(t testing.TB, code uint32, handles, parameters []byte) []byte {
	t.Helper()
	c, err := s.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tag, body := uint16(0x8001), parameters
	if handles != nil {
		tag, body = 0x8002, append(append(handles, emptyPassword()...), parameters...)
	}
	b := binary.BigEndian.AppendUint16(nil, tag)
	b = binary.BigEndian.AppendUint32(b, uint32(10+len(body)))
	b = append(binary.BigEndian.AppendUint32(b, code), body...)
	answer := make([]byte, 4096)
	n := 0
	if _, err = c.Write(b); err == nil {
		n, err = io.ReadAtLeast(c, answer, 10)
	}
	if err != nil || !bytes.Equal(answer[6:10], make([]byte, 4)) {
		t.Fatalf("TPM command %#x: %x, %v", code, answer[:n], err)
	}
	return answer[:n]
}
