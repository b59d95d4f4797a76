package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"p11fs/p11"
)

// TestMechanismsAgree compares what tells of mechanisms: the file of the mount,
// C_GetMechanismList through both modules, p11fs mechanisms with and without a token, and
// the manual page, from which status says what this machine lacks: with each library.
func TestMechanismsAgree(t *testing.T) {
	t.Parallel()
	needTools(t, "python3")
	for _, provider := range []string{"auto", "go"} {
		t.Run(provider, func(t *testing.T) { testMechanismsAgree(t, provider) })
	}
}

func testMechanismsAgree(t *testing.T, provider string) {
	t.Parallel()
	d, term := ready(t, daemonConfig{args: []string{"--provider", provider}})
	inMount := map[string]string{} // by the name, the rest of the line
	var order []string
	for _, line := range lines(term.ok("cat $T/mechanisms")) {
		name, rest, _ := strings.Cut(line, " ")
		inMount[name] = rest
		order = append(order, name)
	}

	t.Run("modules", func(t *testing.T) {
		script, err := filepath.Abs("testdata/mechanisms.py")
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range modules() {
			out := lines(term.ok("eval \"$(" + binary() + " env)\"; python3 " + script + " " + m.path(t)))
			var names []string
			for _, line := range out {
				f := strings.Fields(line)
				info := p11.MechanismInfo{}
				info.Type, _ = p11.ParseMechanismType(f[0])
				flags, err := strconv.ParseUint(f[3], 0, 64)
				if err != nil {
					t.Fatal(err)
				}
				info.Flags = p11.Flags(flags)
				name := info.Type.Short()
				names = append(names, name)
				want := strings.Join([]string{f[1], f[2], strings.Join(info.Uses(), ","), info.Type.Takes()}, " ")
				if inMount[name] != want {
					t.Errorf("%s: %s is %q, and in the mount %q", m.name, name, want, inMount[name])
				}
			}
			want := order
			if m.name == "p11-kit-client" {
				// It takes out what it does not know: hashes other than SHA-1 and the
				// early SHA-2, and most parameters.
				want = slices.DeleteFunc(slices.Clone(order), func(name string) bool { return !slices.Contains(names, name) })
			}
			if !slices.Equal(names, want) || len(names) < 30 {
				t.Errorf("%s lists %v, want %v", m.name, names, want)
			}
		}
	})

	first := func(text string) (names []string) {
		for _, line := range lines(text) {
			names = append(names, strings.Fields(line)[0])
		}
		return names
	}
	t.Run("command", func(t *testing.T) {
		for _, args := range []string{"", " --token swtok"} {
			if args == "" && provider != "auto" { // which is what this machine has
				continue
			}
			if got := first(term.ok(binary() + " mechanisms" + args)); !slices.Equal(got, order) {
				t.Errorf("p11fs mechanisms%s lists %v, the mount %v", args, got, order)
			}
		}
	})
	t.Run("page", func(t *testing.T) {
		dir := workDir(t, "man")
		term.ok(binary() + " man " + dir)
		page, err := os.ReadFile(filepath.Join(dir, "p11fs-mechanisms.7"))
		if err != nil {
			t.Fatal(err)
		}
		var lacking []string
		for _, line := range lines(term.ok("cat $P/status")) {
			if _, names, ok := strings.Cut(line, ", for "); ok && strings.HasPrefix(line, "lacks ") {
				lacking = append(lacking, strings.Fields(names)...)
			}
		}
		var described []string
		for _, m := range regexp.MustCompile(`(?m)^\.It Li (\S+)$`).FindAllSubmatch(page, -1) {
			if !slices.Contains(lacking, string(m[1])) {
				described = append(described, string(m[1]))
			}
		}
		if !slices.Equal(described, order) {
			t.Errorf("the manual page without %v has %v, the mount %v", lacking, described, order)
		}
	})
	d.stop()
}
