// Package tpmtest starts software TPMs (swtpm) for tests.
package tpmtest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A TPM is a software TPM of a test.
type TPM struct {
	dir string
	cmd *exec.Cmd
}

// Start starts a TPM without a past, or with the state of an archive (tar.gz) if there is
// one. It ends with the test, and leaves nothing.
func Start(t testing.TB, state []byte) *TPM {
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
	s := &TPM{dir: dir}
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
func (s *TPM) Device() string { return "unix:" + s.Socket() }

// Run starts it again after Kill. The TPM's power has then been off.
func (s *TPM) Run(t testing.TB) {
	t.Helper()
	_ = os.Remove(s.Socket())
	var said bytes.Buffer
	s.cmd = exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+s.dir,
		"--server", "type=unixio,path="+s.Socket(), "--flags", "not-need-init,startup-clear")
	s.cmd.Stdout, s.cmd.Stderr = &said, &said
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for begun := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		c, err := net.Dial("unix", s.Socket())
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
	c, err := net.Dial("unix", s.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// TPM2_DictionaryAttackParameters, with an empty password of the lockout.
	command := []byte{0x80, 2, 0, 0, 0, 39, 0, 0, 1, 0x3a, 0x40, 0, 0, 10, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 1, 0, 0,
		0, 0, 0, n, 0, 0, 3, 0xe8, 0, 0, 3, 0xe8}
	answer := make([]byte, 10)
	if _, err = c.Write(command); err == nil {
		_, err = io.ReadFull(c, answer)
	}
	if err != nil || !bytes.Equal(answer[6:], make([]byte, 4)) {
		t.Fatalf("the number of tries: %x, %v", answer, err)
	}
}

// Kill ends it without a word, as a power cut does.
func (s *TPM) Kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// Signal sends a signal to it, such as SIGSTOP.
func (s *TPM) Signal(sig syscall.Signal) { _ = s.cmd.Process.Signal(sig) }
