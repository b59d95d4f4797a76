package store

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
)

// whole has TestDamage spoil every byte, and TestGoldenChanged change every PIN.
var whole = flag.Bool("whole", false, "spoil every byte of a token directory in TestDamage, and change every PIN in TestGoldenChanged")

// A spoiler spoils copies of one small token directory.
type spoiler struct {
	t        *testing.T
	cfg      Config
	so, user *secret.Bytes     // PINs
	files    map[string]string // of objects, by their labels

	mu   sync.Mutex
	said map[string]int // problems, and how often
}

// TestDamage cuts each file of a token directory, of both formats, at each length, and turns
// each byte: nothing panics, what is in other files serves on, and the file is told
// as damaged, by the store and in the log, where anything of it is lost.
func TestDamage(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]format.Format{"3.8": v38(t, "swtok"), "3.12": v312(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := freshConfig(t)
			cfg.Format, cfg.noWatch = f, true
			s := initialised(t, cfg)
			login(t, s, p11.CKU_USER, testUser)
			p := &spoiler{t: t, cfg: cfg, so: pin(t, testSO), user: pin(t, testUser), files: map[string]string{}, said: map[string]int{}}
			for label, private := range map[string]bool{"public": false, "private": true} {
				p.files[label] = objectsDir + "/" + create(t, s, dataObject(label, "value", private)).Stored
			}
			_ = s.Close()
			p.all()
		})
	}
}

// all spoils each file in each way.
func (p *spoiler) all() {
	step, masks := 29, []byte{0xff}
	if *whole {
		step, masks = 1, []byte{0x01, 0x80, 0xff}
	}
	// A cut NVTOK.DAT is waited for, so there is much to wait for.
	seats, tries := make(chan struct{}, 64), 0
	var wg sync.WaitGroup
	try := func(file, how string, b []byte) {
		tries++
		seats <- struct{}{}
		wg.Go(func() {
			defer func() { <-seats }()
			p.try(file, how, b)
		})
	}
	for _, file := range []string{dataFile, soKeyFile, userKeyFile, nameKeyFile, objectsDir + "/" + indexFile, p.files["public"], p.files["private"]} {
		good := readFile(p.t, p.cfg.Dir, file)
		for at := 0; at < len(good); at = min(at+step, max(at+1, len(good)-1)) {
			try(file, fmt.Sprint("cut at ", at), good[:at])
			for _, m := range masks {
				bad := bytes.Clone(good)
				bad[at] ^= m
				try(file, fmt.Sprintf("byte %d turned by %#x", at, m), bad)
			}
		}
	}
	wg.Wait()
	p.t.Logf("%d directories", tries)
	for problem, n := range p.said {
		p.t.Errorf("%d times: %s", n, problem)
	}
}

// try opens a copy of the directory in which one file is another.
func (p *spoiler) try(file, how string, b []byte) {
	wrong := func(format string, args ...any) {
		p.mu.Lock()
		defer p.mu.Unlock()
		problem := file + ": " + fmt.Sprintf(format, args...)
		if p.said[problem]++; p.said[problem] == 1 {
			p.t.Logf("%s, %s", how, problem)
		}
	}
	defer func() {
		if r := recover(); r != nil {
			wrong("%v", r)
		}
	}()
	dir := filepath.Join(p.t.TempDir(), "swtok")
	defer os.RemoveAll(dir)
	err := os.CopyFS(dir, os.DirFS(p.cfg.Dir))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, file), b, 0o600)
	}
	if err != nil {
		wrong("%v", err)
		return
	}
	var log bytes.Buffer
	cfg := p.cfg
	cfg.Dir, cfg.Lock, cfg.Log = dir, &fakeLock{}, slog.New(slog.NewTextHandler(&log, nil))
	s, err := Open(context.Background(), cfg)
	if err != nil {
		if file != dataFile || !strings.Contains(err.Error(), dataFile) {
			wrong("the token is refused: %v", err)
		}
		return
	}
	defer s.Close()
	named := func(file string) bool {
		return slices.ContainsFunc(s.Damaged(), func(d tokens.Damage) bool { return d.File == file && d.Why != "" }) &&
			strings.Contains(log.String(), filepath.Base(file))
	}
	cut, loggedIn := strings.HasPrefix(how, "cut"), false
	for _, role := range []struct {
		user p11.UserType
		pin  *secret.Bytes
		file string
	}{{p11.CKU_SO, p.so, soKeyFile}, {p11.CKU_USER, p.user, userKeyFile}} {
		l, err := s.Login(context.Background(), role.user, role.pin)
		switch {
		case err == nil && file == role.file:
			wrong("a damaged key opens")
		case err == nil:
			loggedIn = role.user == p11.CKU_USER
			defer l.Close()
		case file == role.file && !named(file):
			wrong("the login fails, and nothing says why: %v", err)
		case file != role.file && file != dataFile:
			wrong("no login: %v", err)
		}
	}
	for label, object := range p.files {
		private := label == "private"
		found, err := s.Find(context.Background(), p11.Attributes{{Type: p11.CKA_LABEL, Value: []byte(label)}}, true)
		switch {
		case err != nil:
			wrong("no search: %v", err)
		case len(found) == 1 && file == object && (private || cut):
			wrong("a damaged object is there: %s", label)
		case len(found) == 1:
			if _, err := s.Update(context.Background(), found[0].Handle, relabel("works")); err != nil {
				wrong("the %s object does not work: %v", label, err)
			}
		case private && !loggedIn:
		case file != object && file != objectsDir+"/"+indexFile:
			wrong("the %s object is gone", label)
		case !named(object) && (file != object || private || cut): // nothing protects the bytes of public objects
			wrong("the %s object is gone, and not named as damaged", label)
		}
	}
	if file == nameKeyFile && cut && !named(file) {
		wrong("it is not named as damaged")
	}
	if _, err := s.Create(context.Background(), dataObject("new", "object", false)); err != nil {
		wrong("no new object: %v", err)
	}
	if file == nameKeyFile && len(s.Damaged()) > 0 {
		wrong("it is still damaged after a change: %v", s.Damaged())
	}
}
