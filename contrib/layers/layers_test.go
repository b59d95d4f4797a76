// Package layers checks that imports point down.
package layers

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "p11fs"

// floors lists the packages from the ground up. A package may import those on
// floors below its own, and those beside it in its own directory tree. The
// longest name that fits a package counts.
var floors = [][]string{
	{"secret", "locks", "shm", "cgroup"},
	{"p11"},
	{"p11/pqc"},
	{"p11/pkix"},
	{"tokens/tpm/desk", "tokens/icsf/icsfwire"},
	{"tokens/icsf/icsffile", "tokens/icsf/icsftest"},
	{"tokens", "tokens/icsf/icsfconn", "tokens/tpm/tpm20", "tokens/tpm/tpmtest"},
	{"tokens/keywrap", "tokens/card"},
	{"foreign"},
	{"tokens/store/format"},
	{"tokens/store", "tokens/memory", "tokens/securekey", "tokens/fleet/seal", "tokens/fleet/historytest"},
	{"tokens/fleet/etcdtest", "tokens/fleet/lease"},
	{"tokens/swtok"},
	{"tokens/card/soft"},
	{"tokens/lite", "tokens/tpm/tpm12", "tokens/card/softcca", "tokens/card/cardway", "tokens/card/cardtest"},
	{"tokens/tpm/stocktpm", "tokens/fleet/conf"},
	{"tokens/tpm", "tokens/ccatok", "tokens/ep11tok", "tokens/icsf", "tokens/fleet"},
	{"tokens/tokentest/hooks"},
	{"engine"},
	{"fs"},
	{"mountd"},
	{"cmd"},
	{"integration", "contrib"},
}

// pure is how many floors stand on the standard library and x/sys.
const pure = 2

// A rule forbids the packages at the place from to import those at and below to.
type rule struct {
	from, to string
	except   []string
	why      string
}

// never lists imports that would point down and are wrong all the same.
var never = []rule{
	{"engine", "tokens", []string{"tokens", "tokens/memory"}, "the engine knows tokens by their interface; cmd hands them in"},
	{"fs", "tokens", nil, "fs uses the engine's Go API and nothing else"},
	{"mountd", "tokens", []string{"tokens"}, "kinds of token are handed in from cmd"},
	{"tokens/store/format", "os", nil, "a format is bytes, and knows no files"},
}

const fuse = "github.com/hanwen/go-fuse"

// within says whether pkg is dir or below it.
func within(pkg, dir string) bool { return pkg == dir || strings.HasPrefix(pkg, dir+"/") }

// floor is the floor of a package of the module, and the name it is there by.
func floor(pkg string) (n int, name string) {
	n = -1
	for i, names := range floors {
		for _, s := range names {
			if within(pkg, s) && len(s) > len(name) {
				n, name = i, s
			}
		}
	}
	return n, name
}

// check says what is wrong with pkg importing imp, both as go list names them.
func check(pkg, imp string) string {
	at, place := floor(strings.TrimPrefix(pkg, module+"/"))
	if at < 0 {
		return "the package has no floor"
	}
	to, ours := strings.CutPrefix(imp, module+"/")
	for _, n := range never {
		if place == n.from && within(to, n.to) && !slices.Contains(n.except, to) {
			return n.why
		}
	}
	if ours {
		below, beside := floor(to)
		if below > at || below == at && place != beside {
			return "imports point down"
		}
		return ""
	}
	outside := strings.Contains(strings.SplitN(imp, "/", 2)[0], ".")
	switch {
	case at < pure && outside && !within(imp, "golang.org/x/sys"):
		return "the ground stands on the standard library and x/sys"
	case within(imp, fuse) && place != "fs":
		return "FUSE stops at fs"
	}
	return ""
}

func TestImportsPointDown(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %s", exit.Stderr)
		}
		t.Fatal(err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	var seen []string
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, p.ImportPath)
		for _, imp := range p.Imports {
			if why := check(p.ImportPath, imp); why != "" {
				t.Errorf("%s imports %s: %s", p.ImportPath, imp, why)
			}
		}
	}
	for _, want := range []string{"p11fs/engine", "p11fs/mountd/config"} {
		if !slices.Contains(seen, want) {
			t.Errorf("go list did not list %s", want)
		}
	}
}

// TestNoServer is that the commands link the client of etcd at most: its server is for tests, and so is what judges histories.
func TestNoServer(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", module+"/cmd/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Fields(string(out))
	if !slices.Contains(all, module+"/engine") {
		t.Error("go list did not list the engine")
	}
	for _, pkg := range all {
		if within(pkg, "go.etcd.io/etcd/server/v3") || within(pkg, module+"/tokens/fleet/etcdtest") || within(pkg, module+"/tokens/fleet/historytest") {
			t.Errorf("a command links %s", pkg)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		pkg, imp string
		ok       bool
	}{
		{"p11fs/engine", "p11fs/tokens", true},
		{"p11fs/engine", "p11fs/p11", true},
		{"p11fs/engine", "p11fs/p11/pkix", true},
		{"p11fs/engine", "p11fs/tokens/store", false},
		{"p11fs/engine", "p11fs/tokens/memory", true},
		{"p11fs/engine", "p11fs/fs", false},
		{"p11fs/engine", "github.com/hanwen/go-fuse/v2/fuse", false},
		{"p11fs/p11", "p11fs/engine", false},
		{"p11fs/p11/pkix", "p11fs/p11", true},
		{"p11fs/p11", "p11fs/p11/pkix", false},
		{"p11fs/p11", "p11fs/secret", true},
		{"p11fs/p11", "golang.org/x/crypto/cryptobyte", false},
		{"p11fs/tokens", "p11fs/tokens/store", false},
		{"p11fs/tokens/store", "p11fs/tokens/store/format", true},
		{"p11fs/tokens/store/format", "p11fs/tokens/store", false},
		{"p11fs/tokens/store/format", "os", false},
		{"p11fs/tokens/store", "p11fs/tokens/memory", false},
		{"p11fs/tokens/swtok", "p11fs/tokens/store", true},
		{"p11fs/fs", "github.com/hanwen/go-fuse/v2/fs", true},
		{"p11fs/fs", "p11fs/tokens", false},
		{"p11fs/fs", "p11fs/mountd", false},
		{"p11fs/locks", "golang.org/x/sys/unix", true},
		{"p11fs/locks", "github.com/google/btree", false},
		{"p11fs/locks", "p11fs/shm", false},
		{"p11fs/mountd", "p11fs/mountd/config", true},
		{"p11fs/mountd", "p11fs/fs", true},
		{"p11fs/mountd", "p11fs/tokens", true},
		{"p11fs/mountd/doctor", "p11fs/tokens/store", false},
		{"p11fs/cmd/p11fs", "p11fs/tokens/swtok", true},
		{"p11fs/cmd/p11fs", "github.com/hanwen/go-fuse/v2/fuse", false},
		{"p11fs/elsewhere", "fmt", false},
	} {
		if why := check(c.pkg, c.imp); (why == "") != c.ok {
			t.Errorf("%s imports %s: %q, want ok %v", c.pkg, c.imp, why, c.ok)
		}
	}
}
