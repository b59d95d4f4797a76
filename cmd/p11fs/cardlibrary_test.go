//go:build cgo

package main

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/ccatok"
	"p11fs/tokens/ep11tok"
	"p11fs/tokens/securekey"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest"
)

// bridgeArgs is the variable that has a process of the test be p11fs with these arguments.
const bridgeArgs = "P11FS_TEST_BRIDGE"

// TestMain is the bridge in a process that a test starts as one.
func TestMain(m *testing.M) {
	args := os.Getenv(bridgeArgs)
	if args == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	s := streams{out: os.Stdout, err: os.Stderr}
	err := run(ctx, strings.Split(args, "\n"), s)
	report(s, err)
	os.Exit(exitCode(err))
}

// A bridge is a process that serves a library's cards.
type bridge struct {
	cmd *exec.Cmd
	out *bufio.Reader
}

// startBridge starts it, for a library whose own card is at another socket.
func startBridge(t *testing.T, kind, library, socket, behind string) *bridge {
	t.Helper()
	b := &bridge{cmd: exec.Command(os.Args[0])}
	args := []string{"card", "serve", "--kind", kind, "--library", library, "--socket", socket}
	b.cmd.Env = append(os.Environ(), bridgeArgs+"="+strings.Join(args, "\n"), "P11FS_CARD="+behind, "GOTRACEBACK=none")
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	b.out = bufio.NewReader(out)
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.end(syscall.SIGTERM) })
	for line := ""; !strings.Contains(line, "answer at "+socket); {
		if line, err = b.out.ReadString('\n'); err != nil {
			t.Fatalf("the bridge does not start: %q, %v", line, err)
		}
	}
	return b
}

// end ends it by a signal, if it runs.
func (b *bridge) end(s os.Signal) {
	if b.cmd.ProcessState == nil {
		_ = b.cmd.Process.Signal(s) // it may have ended
		for {
			if _, err := b.out.ReadString('\n'); err != nil {
				break
			}
		}
		_ = b.cmd.Wait() // of a process that was told to end
	}
}

// TestCardLibrary has tokens of both kinds work through a vendor's library in a process of
// its own, for which ours is: token, socket, bridge, library, socket, software card. The
// library crashes, and the token is offline until there is a bridge again.
func TestCardLibrary(t *testing.T) {
	root := t.TempDir()
	make := exec.Command("make", "-s", "-f", "cmd/libcard/build.mk", "libcard", "LIBCARD="+root, "LIBCARD_CFLAGS=-O0")
	make.Dir = "../.."
	if out, err := make.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, c := range []struct {
		card, library string
		kind          tokens.Kind
		suite         tokentest.Backend
	}{
		{"ep11", "libep11.so", ep11tok.NewKind(swtok.GoProvider(), ""), tokentest.Backend{}},
		{"cca", "libcsulcca.so", ccatok.NewKind(swtok.GoProvider(), ""), tokentest.Backend{Exchanged: p11.CKK_AES, KDF: p11.CKD_SHA256_KDF}},
	} {
		t.Run(c.card, func(t *testing.T) {
			library, at := filepath.Join(root, c.library), t.TempDir()
			behind, socket, conf := filepath.Join(at, "behind"), filepath.Join(at, "socket"), filepath.Join(at, "conf")
			serveCards(t, filepath.Join(at, "card"), behind, "--kind", c.card, "--provider", "go")
			b := startBridge(t, c.card, library, socket, behind)
			limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", b.cmd.Process.Pid))
			if core := regexp.MustCompile(`(?m)^Max core file size +0 +0 `); err != nil || !core.Match(limits) {
				t.Errorf("a core may be dumped: %v\n%s", err, limits)
			}
			if err := os.WriteFile(conf, []byte("#p11fs: card = "+socket+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			open := func(t *testing.T, dir string) tokens.Token {
				t.Helper()
				lock, err := locks.Open(filepath.Join(dir, "lock", "token"), locks.NoGroup)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = lock.Close() })
				tok, err := c.kind.Open(t.Context(), tokens.Place{
					Name: "mine", Dir: filepath.Join(dir, "token"), Lock: lock, Create: true, Group: locks.NoGroup, Config: conf,
					Log: slog.New(slog.DiscardHandler), Now: time.Now,
				})
				if err != nil {
					t.Fatal(err)
				}
				return tok
			}
			if !testing.Short() {
				t.Run("suite", func(t *testing.T) {
					c.suite.SOPIN, c.suite.Shown, c.suite.Open = tokens.DefaultSOPIN, securekey.Blobs(), open
					tokentest.Run(t, c.suite)
				})
			}
			tok := open(t, t.TempDir())
			defer tok.Close()
			if err := tok.(tokens.SelfTester).SelfTest(t.Context()); err != nil {
				t.Fatal(err)
			}
			encrypt := encrypter(t, tok)
			if err := encrypt(); err != nil {
				t.Fatal(err)
			}
			b.end(syscall.SIGSEGV) // as of a library that crashes
			if err := encrypt(); p11.RVOf(err) != p11.CKR_DEVICE_REMOVED {
				t.Errorf("without a bridge: %v", err)
			}
			if tok.(tokens.Offliner).Offline() == nil {
				t.Error("the token is online without a bridge")
			}
			startBridge(t, c.card, library, socket, behind)
			for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) { // it is asked again once a second
				err := encrypt()
				if err == nil {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("with a bridge again: %v", err)
				}
			}
		})
	}
	if r := command(t, "", "card", "serve", "--library", "/nowhere", "--socket", filepath.Join(root, "s")); r.code != exitFailure || !strings.Contains(r.err, "cannot be loaded") {
		t.Errorf("no library: %+v", r)
	}
	if r := command(t, "", "card", "serve", "--library", "/nowhere", "--dir", root); r.code != exitUsage {
		t.Errorf("a library and software cards: %+v", r)
	}
}

// encrypter makes a key, and returns what encrypts with it.
func encrypter(t *testing.T, tok tokens.Token) func() error {
	t.Helper()
	a, err := p11.ParseTemplate("class=secret-key key-type=aes value-len=16 encrypt=true")
	if err != nil {
		t.Fatal(err)
	}
	if a, err = tok.(tokens.KeyGenerator).GenerateKey(t.Context(), p11.Mechanism{Type: p11.CKM_AES_KEY_GEN}, a); err != nil {
		t.Fatal(err)
	}
	key := tokens.NewObject(tokens.NewHandle(), "", a)
	t.Cleanup(key.Drop)
	return func() error {
		op, err := tok.Begin(context.Background(), p11.CKF_ENCRYPT, p11.Mechanism{Type: p11.CKM_AES_ECB}, key)
		if err != nil {
			return err
		}
		defer op.Close()
		out, err := op.Update(context.Background(), make([]byte, 16))
		if err == nil && len(out) != 16 {
			err = fmt.Errorf("%d bytes", len(out))
		}
		return err
	}
}
