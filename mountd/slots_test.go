package mountd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/tokens"
)

// layout makes files below a new directory; a name that ends in a slash is a
// directory.
func layout(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		parent := filepath.Dir(path)
		if strings.HasSuffix(name, "/") {
			parent = path
		}
		if err := os.MkdirAll(parent, 0o700); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// slotsOf lists the slots that a daemon would have, a line each.
func slotsOf(t *testing.T, c Config) ([]string, error) {
	t.Helper()
	d := &Daemon{conf: c, log: slog.New(slog.DiscardHandler)}
	if err := d.loadSlots(t.Context()); err != nil {
		return nil, err
	}
	var out []string
	for _, s := range d.all() {
		line := fmt.Sprintf("%d %s", uint64(s.ID), s.Place.Name)
		if s.Kind != nil {
			rel, err := filepath.Rel(c.Paths.Data, s.Place.Dir)
			if err != nil {
				t.Fatal(err)
			}
			line += " " + rel
		}
		if s.Why != "" {
			line += "(" + s.Why + ")"
		}
		out = append(out, line)
	}
	return out, nil
}

func TestLoadSlots(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		mode  Mode
		need  bool
		want  []string
		err   string
	}{
		{name: "no data at all", want: []string{"0 swtok swtok"}},
		{name: "empty data", files: map[string]string{"data/": ""}, want: []string{"0 swtok swtok"}},
		{name: "own tokens", files: map[string]string{
			"data/office/NVTOK.DAT": "", "data/home/NVTOK.DAT": "",
			"data/notoken/file": "", "data/.lock/NVTOK.DAT": "", "data/file": "", "data/dir/NVTOK.DAT/": "", "data/new/": "",
		}, want: []string{"0 home home", "1 new new", "2 office office"}},
		{name: "own tokens under names of the tree", files: map[string]string{
			"data/slots/NVTOK.DAT": "", "data/a": "", "data/b /": "", "data/z/": "",
		}, want: []string{
			`0 (the token directory "b " must not hold control characters, or blanks at its ends: rename it)`,
			`1 (the token directory "slots" is the name of a file at the top of the tree: rename it)`, "2 z z",
		}},
		{name: "own configuration", files: map[string]string{
			"conf":                  "slot 7 {\nstdll = libpkcs11_sw.so\ntokname = a\n}\nslot 2 {\nstdll = libpkcs11_sw.so\n}\n",
			"data/office/NVTOK.DAT": "",
		}, want: []string{"7 a a", "2 swtok swtok"}},
		{name: "own configuration asked for and absent", need: true, err: "no such file"},
		{name: "system without configuration", mode: System, err: "no such file"},
		{name: "system", mode: System, files: map[string]string{
			"conf": "slot 0\n{\nstdll = libpkcs11_tpm.so\n}\nslot 3\n{\nstdll = libpkcs11_sw.so\n}\nslot 4\n{\nstdll = other.so\ntokname = other\n}\nslot 5\n{\nstdll = other.so\n}\n",
		}, want: []string{
			`0 (p11fs has no tokens for the library "libpkcs11_tpm.so")`, "3 swtok swtok",
			`4 (p11fs has no tokens for the library "other.so")`, `5 (p11fs has no tokens for the library "other.so")`,
		}},
		{name: "one directory in two slots", mode: System, files: map[string]string{
			"conf": "slot 1 {\nstdll = libpkcs11_sw.so\n}\nslot 2 {\nstdll = libpkcs11_sw.so\n}\n",
		}, want: []string{"1 swtok swtok", "2 (slot 1 has the token directory swtok already)"}},
		{name: "a mistake", mode: System, files: map[string]string{"conf": "slot 1 {\n}\n"}, err: `conf:1: slot 1 has no "stdll"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := layout(t, c.files)
			got, err := slotsOf(t, Config{
				Mode: c.mode, ConfigRequired: c.need, Kinds: kinds(),
				Paths: Paths{Config: filepath.Join(dir, "conf"), Data: filepath.Join(dir, "data")},
			})
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Fatalf("error %v, want %q", err, c.err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("slots (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPlace: a kind of token is told all that the slot says, and why it does not
// open the token stands in status. A stock program does not get a slot whose
// directory its library would ruin.
func TestPlace(t *testing.T) {
	dir := layout(t, map[string]string{
		"conf": "slot 1 {\nstdll = /lib/libelsewhere.so.3\ntokname = a\nconfname = a.conf\ntokversion = 3.27\n}\n" +
			"slot 2 {\nstdll = libelsewhere.so\nconfname = /etc/b.conf\n}\n" +
			"slot 3 {\nstdll = libpkcs11_sw.so\ntokversion = 3.12\n}\n",
	})
	var got []tokens.Place
	c := userConfig(dir)
	c.Kinds = append(kinds(), tokens.Kind{
		Name: "elsewhere", Library: "libelsewhere", Files: []string{"KEYS"},
		Open: func(_ context.Context, p tokens.Place) (tokens.Token, error) {
			if p.Lock == nil || p.Log == nil || p.Now == nil || !p.Create || p.Group != locks.NoGroup {
				t.Errorf("the place of %s is not complete: %+v", p.Name, p)
			}
			got = append(got, tokens.Place{Name: p.Name, Dir: p.Dir, Config: p.Config, Format: p.Format})
			return nil, errors.New("the card is gone")
		},
	})
	d := &Daemon{conf: c, log: slog.New(slog.DiscardHandler), now: time.Now}
	for _, step := range []func(context.Context) error{d.loadSlots, d.prepareDirectories, d.openTokens} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	defer d.Close()
	want := []tokens.Place{
		{Name: "a", Dir: filepath.Join(dir, "data/a"), Config: filepath.Join(dir, "a.conf"), Format: p11.Version{Major: 3, Minor: 27}},
		{Name: "elsewhere", Dir: filepath.Join(dir, "data/elsewhere"), Config: "/etc/b.conf"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("places (-want +got):\n%s", diff)
	}
	status := d.status(true)
	for _, line := range []string{
		"tokens 1\n", "store a failed: the card is gone\n", "store elsewhere failed: the card is gone\n",
		"store swtok " + filepath.Join(dir, "data/swtok") + "\n",
	} {
		if !strings.Contains(status, line) {
			t.Errorf("status has no %q:\n%s", line, status)
		}
	}
	if resources := d.resources(); !strings.Contains(resources, "token/a/KEYS ") || strings.Contains(resources, "token/a/NVTOK.DAT ") {
		t.Errorf("resources has other files than the kind's:\n%s", resources)
	}
	if slots := d.stockSlots(); len(slots) != 1 || slots[0].ID != 2 {
		t.Errorf("stock programs get the slots %+v, want slot 2", slots)
	}
}

// TestOwnKind: a user's own directory that is called as a kind of token is of that kind, in
// the slots and where one is to be made.
func TestOwnKind(t *testing.T) {
	dir := layout(t, map[string]string{"data/elsewhere/": "", "data/mine/": ""})
	c := userConfig(dir)
	c.Kinds = append(kinds(), tokens.Kind{Name: "elsewhere", Library: "libelsewhere"}, tokens.Kind{Name: "absent", Library: "libabsent"})
	slots, _, err := c.Slots()
	if err != nil || len(slots) != 2 || slots[0].Kind.Name != "elsewhere" || slots[0].Library != "libelsewhere.so" || slots[1].Kind.Name != "swtok" {
		t.Fatalf("%+v, %v", slots, err)
	}
	for name, want := range map[string]string{"absent": "absent", "new": "swtok", "elsewhere": "elsewhere"} {
		if s, err := c.slotOf(name, true); err != nil || s.Kind.Name != want {
			t.Errorf("%s is %+v, %v", name, s.Kind, err)
		}
	}
	c.Kinds[1].NoBackup = errors.New("a card has it")
	if _, err := c.OpenUpkeep("elsewhere", false); !errors.Is(err, c.Kinds[1].NoBackup) {
		t.Errorf("the upkeep of a kind without: %v", err)
	}
	c.Kinds[0].Made = func(dir string) bool { return dir == filepath.Join(c.Paths.Data, "elsewhere") }
	slots, _, err = c.Slots()
	if err != nil || len(slots) != 2 || slots[0].Kind.Name != "swtok" || slots[0].Place.Name != "elsewhere" {
		t.Errorf("a token that was made as another kind: %+v, %v", slots, err)
	}
	for name, want := range map[string]string{"absent": "absent", "elsewhere": "swtok"} {
		if s, err := c.slotOf(name, true); err != nil || s.Kind.Name != want {
			t.Errorf("%s is %+v, %v", name, s.Kind, err)
		}
	}
}

// TestOwnFormat: a kind says which format a user's own directories have, where no
// tokversion does.
func TestOwnFormat(t *testing.T) {
	own := p11.Version{Major: 3, Minor: 12}
	kind := kinds()[0]
	kind.OwnFormat = func(dir string) p11.Version {
		if filepath.Base(dir) == "new" {
			return own
		}
		return p11.Version{}
	}
	conf := "slot 0 {\nstdll = libpkcs11_sw.so\ntokname = new\n}\nslot 1 {\nstdll = libpkcs11_sw.so\ntokname = old\n}\n"
	said := strings.ReplaceAll(conf, "\n}", "\ntokversion = 0.0\n}")
	for _, c := range []struct {
		name  string
		mode  Mode
		files map[string]string
		want  []p11.Version
	}{
		{"directories", User, map[string]string{"data/new/NVTOK.DAT": "", "data/old/NVTOK.DAT": ""}, []p11.Version{own, {}}},
		{"configuration", User, map[string]string{"conf": conf}, []p11.Version{own, {}}},
		{"tokversion", User, map[string]string{"conf": said}, []p11.Version{{}, {}}},
		{"system", System, map[string]string{"conf": conf}, []p11.Version{{}, {}}},
	} {
		dir := layout(t, c.files)
		slots, _, err := Config{
			Mode: c.mode, Kinds: []tokens.Kind{kind},
			Paths: Paths{Config: filepath.Join(dir, "conf"), Data: filepath.Join(dir, "data")},
		}.Slots()
		if err != nil {
			t.Fatal(err)
		}
		var got []p11.Version
		for _, s := range slots {
			got = append(got, s.Place.Format)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// sick is a token that fails its self-test, or has no card to work with.
type sick struct {
	tokens.Token
	test, card error
	closed     *bool
}

func (s sick) SelfTest(context.Context) error { return s.test }
func (s sick) Offline() error                 { return s.card }
func (s sick) Away() (time.Time, error)       { return time.Unix(1e9, 0), s.card }
func (s sick) Close() error                   { *s.closed = true; return s.Token.Close() }

// TestSickTokens: a token that fails its self-test is closed and leaves its slot
// empty, one that is offline stays; the others are served as ever.
func TestSickTokens(t *testing.T) {
	dir := layout(t, map[string]string{
		"conf": "slot 1 {\nstdll = libpkcs11_sw.so\n}\nslot 2 {\nstdll = libbroken.so\n}\nslot 3 {\nstdll = libcard.so\n}\n",
	})
	good := kinds()[0]
	closed := map[string]*bool{"broken": new(bool), "card": new(bool)}
	kind := func(name string, test, card error) tokens.Kind {
		return tokens.Kind{Name: name, Library: "lib" + name, Open: func(ctx context.Context, p tokens.Place) (tokens.Token, error) {
			token, err := good.Open(ctx, p)
			return sick{token, test, card, closed[name]}, err
		}}
	}
	c := userConfig(dir)
	c.Kinds = []tokens.Kind{good, kind("broken", errors.New("self-test of RSA failed"), nil), kind("card", nil, errors.New("no card"))}
	var log bytes.Buffer
	d := &Daemon{conf: c, log: slog.New(slog.NewTextHandler(&log, nil)), now: time.Now}
	defer d.Close()
	for _, step := range []func(context.Context) error{d.loadSlots, d.prepareDirectories, d.openTokens} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	status := d.status(true)
	for _, line := range []string{
		"self-test failed: broken\n", "tokens 2\n", "store swtok " + dir, "store broken failed: self-test of RSA failed\n",
		"store card " + dir, "offline card: since 2001-09-09T01:46:40Z: no card\n",
	} {
		if !strings.Contains(status, line) {
			t.Errorf("status has no %q:\n%s", line, status)
		}
	}
	if !strings.Contains(log.String(), "self-test of RSA failed") {
		t.Errorf("the log does not say why:\n%s", log.String())
	}
	for _, s := range d.engine.Slots() {
		if want := s.ID() != 2; s.Present() != want {
			t.Errorf("slot %d has a token: %v", uint64(s.ID()), s.Present())
		}
	}
	if !*closed["broken"] || *closed["card"] {
		t.Errorf("closed: broken %v, card %v", *closed["broken"], *closed["card"])
	}
}

// TestComesLater: a token whose kind says that it may come is served as soon as it does, in
// the slot that it has; one that the daemon is to serve no more makes nothing.
func TestComesLater(t *testing.T) {
	dir := layout(t, map[string]string{"data/away/": "", "data/good/": ""})
	good := kinds()[0]
	there := make(chan struct{})
	c := userConfig(dir)
	c.Kinds = []tokens.Kind{{Name: "swtok", Library: "libpkcs11_sw", Open: func(ctx context.Context, p tokens.Place) (tokens.Token, error) {
		select {
		case <-there:
		default:
			if p.Name == "away" {
				return nil, fmt.Errorf("nobody answers (%w)", tokens.ErrAway)
			}
		}
		return good.Open(ctx, p)
	}}}
	d := &Daemon{conf: c, log: slog.New(slog.DiscardHandler), now: time.Now}
	d.slots.Store(new([]*slot))
	defer d.Close()
	for _, step := range []func(context.Context) error{d.loadSlots, d.prepareDirectories, d.openTokens} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.tryAgain(t.Context(), "away"); !errors.Is(err, tokens.ErrAway) || !strings.Contains(d.status(true), "store away failed: nobody answers") {
		t.Errorf("tried again in vain: %v\n%s", err, d.status(true))
	}
	close(there)
	if err := d.comeLater(t.Context()); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if s, err := d.engine.SlotNamed("away"); err == nil && s.Present() {
			if s.ID() != 0 || len(d.engine.Slots()) != 2 {
				t.Errorf("it is in slot %d of %d", uint64(s.ID()), len(d.engine.Slots()))
			}
			break
		}
		if time.Now().After(end) {
			t.Fatal("it does not come")
		}
	}
	if err := d.tryAgain(t.Context(), "away"); err != nil {
		t.Errorf("what is served already: %v", err)
	}
	gone := filepath.Join(dir, "data", "gone")
	if err := d.tryAgain(t.Context(), "gone"); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(gone); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a token that nobody wants has a directory: %v", err)
	}
}

func TestCheck(t *testing.T) {
	good := Config{Paths: SystemPaths("/x"), Kinds: kinds()}
	if err := good.Check(); err != nil {
		t.Errorf("got %v for a good configuration", err)
	}
	for name, change := range map[string]func(*Config){
		"kinds": func(c *Config) { c.Kinds = nil },
		"mount": func(c *Config) { c.Paths.Mount = "" },
		"data":  func(c *Config) { c.Paths.Data = "" },
	} {
		c := good
		if change(&c); c.Check() == nil {
			t.Errorf("%s: a bad configuration passed", name)
		}
	}
}

// TestVacant: a slot of the machine's configuration that a kind does not take is empty, and
// told to stock programs as any other of theirs; one that it takes, and shares with none,
// is not.
func TestVacant(t *testing.T) {
	dir := layout(t, map[string]string{"conf": "slot 1 {\nstdll = libchip.so\n}\nslot 2 {\nstdll = libchip.so\ntokname = mine\nconfname = mine.conf\n}\n"})
	c := userConfig(dir)
	c.Mode = System
	c.Kinds = append(kinds(), tokens.Kind{
		Name: "chip", Library: "libchip",
		Vacant: func(p tokens.Place) string {
			if p.Config == "" {
				return "there is no chip"
			}
			return ""
		},
		Unshared: func(p tokens.Place) bool { return p.Name == "mine" },
	})
	got, err := slotsOf(t, c)
	if diff := cmp.Diff([]string{"1 (there is no chip)", "2 mine mine"}, got); err != nil || diff != "" {
		t.Errorf("%v, slots (-want +got):\n%s", err, diff)
	}
	d := &Daemon{conf: c, log: slog.New(slog.DiscardHandler)}
	if err := d.loadSlots(t.Context()); err != nil {
		t.Fatal(err)
	}
	if slots := d.stockSlots(); len(slots) != 1 || slots[0].ID != 1 {
		t.Errorf("stock programs get the slots %+v, want slot 1", slots)
	}
	c.Mode = User
	if got, err := slotsOf(t, c); err != nil || len(got) != 2 || got[0] != "1 chip chip" {
		t.Errorf("in user mode: %v, %v", got, err)
	}
}
