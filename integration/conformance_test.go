package integration

import (
	"bufio"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The conformance suite: PKCS#11's rules of sessions, logins and objects, each
// stated once and asked of every door. A rule talks to applications, which are
// processes that take the calls of PKCS#11 a line (testdata/conformance.py); what
// carries the calls on is the door's.

// A door is a way to the tokens.
type door struct {
	name string
	so   string // the security officer's PIN
	// open starts whatever serves the door, with one new token, and two
	// applications.
	open func(t *testing.T) (a, b *orders)
}

func doors(t testing.TB) []door {
	t.Helper()
	return append(daemonDoors(daemonConfig{stock: true}, readManifest(t).SOPIN),
		door{"opencryptoki", soPIN, func(t *testing.T) (a, b *orders) {
			h := startLiveOver(t, workDir(t, "tokens"))
			t.Cleanup(h.stop)
			return h.application("a"), h.application("b")
		}})
}

// daemonDoors are those of a daemon, which each of them has to itself.
func daemonDoors(c daemonConfig, so string) []door {
	list := []door{{"files", so, func(t *testing.T) (a, b *orders) {
		c := c // where the files keep the standard's rules
		if c.serve == nil {
			c.args = append(slices.Clone(c.args), "--open-token")
		}
		d := startDaemon(t, c)
		return newOrders(t, d, "p11io", "conformance", d.path()), newOrders(t, d, "p11io", "conformance", d.path())
	}}}
	for _, m := range modules() {
		list = append(list, door{m.name, so, func(t *testing.T) (a, b *orders) {
			needTools(t, "python3")
			d := startDaemon(t, c)
			return newOrders(t, d, "sh", "-c", moduleApplication, "sh", m.path(t)), newOrders(t, d, "sh", "-c", moduleApplication, "sh", m.path(t))
		}})
	}
	return list
}

// moduleApplication runs an application of a module that reaches the daemon
// over its socket.
const moduleApplication = `eval "$(p11fs env)"; exec python3 -B testdata/conformance.py "$1"`

// application starts one of the stock library.
func (h *liveHost) application(name string) *orders {
	h.t.Helper()
	script, err := filepath.Abs("testdata/conformance.py")
	if err != nil {
		h.t.Fatal(err)
	}
	return h.terminal.application("python3 -B "+script+" "+h.module, name)
}

// application starts a program that takes orders, under a name in the shell, and takes it
// over from the shell.
func (h *terminal) application(program, name string) *orders {
	h.t.Helper()
	dir := workDir(h.t, "application")
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	h.ok("mkfifo " + in + " " + out)
	h.ok(program + " <" + in + " >" + out + " & application" + name + "=$!")
	// In the shell's order: each open waits for the other end.
	w, err := os.OpenFile(in, os.O_WRONLY, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	r, err := os.OpenFile(out, os.O_RDONLY, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		_ = w.Close()
		h.ok("wait $application" + name)
		_ = r.Close()
	})
	kill := func() error {
		_ = w.Close()
		return r.Close()
	}
	return &orders{h.t, kill, w, bufio.NewReader(r)}
}

// A tokenRule is one that every token keeps.
type tokenRule struct {
	name  string
	cites string // where PKCS#11 says it
	run   func(r *rig)

	// wraps is the mechanism with which a key of AES wraps, where ECB does not.
	wraps string
	// files says why the rule cannot be put as files; then they do not run it.
	files string
	// stock says why the rule is not put to openCryptoki's library.
	stock string
	// deviates are the doors that keep the rule in another way, by name.
	deviates map[string]deviation
}

// A deviation is what a door does that is not what PKCS#11 asks for.
type deviation struct {
	why string
	// are the answers that differ, by the words of the rule's step.
	are map[string]string
}

// stock is a deviation of openCryptoki's library.
func stock(why string, are map[string]string) map[string]deviation {
	return map[string]deviation{"opencryptoki": {why, are}}
}

// and adds a deviation of another door.
func and(list map[string]deviation, door, why string, are map[string]string) map[string]deviation {
	list = maps.Clone(list)
	if list == nil {
		list = map[string]deviation{}
	}
	list[door] = deviation{why, are}
	return list
}

func conformanceRules() []tokenRule {
	return slices.Concat(sessionRules(), loginRules(), visibilityRules(), templateRules(), attributeRules(), usageRules(), deriveRules(), operationRules(), programRules())
}

// TestConformance asks each rule of each door. The expected answers are the same
// but for the deviations that a rule names, and those are exact too.
func TestConformance(t *testing.T) {
	t.Parallel()
	conform(t, doors(t), slices.Concat(conformanceRules(), pqcRules()))
}

func conform(t *testing.T, doors []door, rules []tokenRule) {
	errnos := docErrnos(t)
	for _, d := range doors {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			a, b := d.open(t)
			so := d.so
			for _, c := range rules {
				if d.name == "files" && c.files != "" || d.name == "opencryptoki" && c.stock != "" {
					continue
				}
				// One after the other: they share the token, which each has
				// to itself.
				t.Run(c.name, func(t *testing.T) {
					r := &rig{t: t, so: so, rule: c, errnos: errnos, dev: c.deviates[d.name], met: map[string]bool{}}
					r.a, r.b = &application{r, a}, &application{r, b}
					r.reset()
					c.run(r)
					so = r.so
					for step := range r.dev.are {
						if !r.met[step] {
							t.Errorf("the deviation %q is of no step", step)
						}
					}
				})
			}
		})
	}
}

// TestConformanceCovers keeps the table itself in order: names are unique,
// every rule cites the standard, and most of them run as files.
func TestConformanceCovers(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, d := range doors(t) {
		known[d.name] = true
	}
	names := map[string]bool{}
	asFiles := 0
	rules := slices.Concat(conformanceRules(), pqcRules())
	for _, c := range rules {
		if names[c.name] {
			t.Errorf("two rules are called %q", c.name)
		}
		names[c.name] = true
		if !strings.HasPrefix(c.cites, "§") {
			t.Errorf("%s: cites %q", c.name, c.cites)
		}
		if c.files == "" {
			asFiles++
		}
		for d, dev := range c.deviates {
			if !known[d] || dev.why == "" || len(dev.are) == 0 {
				t.Errorf("%s: the deviation of %q lacks a door, a reason or an answer", c.name, d)
			}
		}
	}
	if len(rules) < 60 || 4*asFiles < 3*len(rules) {
		t.Errorf("%d rules, of which %d run as files: want 60 and three quarters", len(rules), asFiles)
	}
}

// docErrnos is the table of docs/tree.md: the errno of each CK_RV.
func docErrnos(t testing.TB) map[string]string {
	t.Helper()
	b, err := os.ReadFile("../docs/tree.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(b), "| errno | means | return values |")
	errnos := map[string]string{}
	for _, line := range lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 {
			continue
		}
		for _, name := range strings.Split(cells[3], ",") {
			errnos["CKR_"+strings.TrimSpace(name)] = strings.TrimSpace(cells[1])
		}
	}
	if len(errnos) < 50 {
		t.Fatalf("docs/tree.md tells the errno of %d return values", len(errnos))
	}
	return errnos
}
