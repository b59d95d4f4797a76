package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
)

// A loadView is the objects that somebody sees: those of the load by key, with
// the attribute that changes, the labels of those that were there before, and how
// many there are without attributes.
type loadView struct {
	load   map[string]string
	before []string
	ghosts int
}

// mountLister is a shell function that lists all objects as stock_load.c does.
const mountLister = `mount_list() { for o in $T/by-uid/*; do
	c= l= v= a= i=
	read -r c <$o/attr/class; read -r l <$o/attr/label; { [ "$c" != data ] || read -r v <$o/value; read -r a <$o/attr/application; read -r i <$o/attr/id; } 2>/dev/null
	[ "$c" = hw-feature ] || printf '0\t%s\t%s\t%s\t%s\t%s\n' "$c" "$l" "$v" "$a" "$i"
done; }`

func parseView(text string) (v loadView, err error) {
	v.load = map[string]string{}
	for _, line := range lines(text) {
		f := strings.Split(line, "\t")
		if len(f) != 6 {
			return v, fmt.Errorf("line %q has not six fields", line)
		}
		if f[0] != "0" {
			v.ghosts++
			continue
		}
		label := f[2]
		key, _, _ := strings.Cut(label, ".")
		if !isLoadKey(key) {
			v.before = append(v.before, label)
			continue
		}
		value := f[3]
		switch place(key) {
		case 0, 1:
			value = f[4]
		case 2:
			value = f[5]
		case 3:
			value = label
		}
		if other, twice := v.load[key]; twice {
			return v, fmt.Errorf("%s is there twice, with %q and %q", key, other, value)
		}
		v.load[key] = value
	}
	slices.Sort(v.before)
	return v, nil
}

// isLoadKey tells the objects of the load from those of the token before.
func isLoadKey(key string) bool {
	name, _, dash := strings.Cut(key, "-")
	return dash && (name[0] == 'c' && strings.Contains(name, "g") || strings.HasPrefix(name, "sh")) || len(key) == 11 && key[0] == 'k' && strings.Trim(key[1:], "0123456789abcdef") == ""
}

// look adds what is listed, which was made after all work had ended, to the
// history: the state that the model ends in must be that. before are the objects
// that were there before the load.
func (l *loadTest) look(who, text string, before []string) {
	l.t.Helper()
	v, err := parseView(text)
	if err != nil {
		l.t.Errorf("%s: %v", who, err)
		return
	}
	if d := cmp.Diff(before, v.before); d != "" {
		l.t.Errorf("%s: objects of before (- before, + now):\n%s", who, d)
	}
	if l.final == nil {
		l.final = v.load
	}
	// What a stock process has no attributes of it does not tell by label.
	missing := 0
	for key := range l.final {
		if _, ok := v.load[key]; !ok {
			missing++
		}
	}
	if missing > v.ghosts {
		l.t.Errorf("%s does not list %d objects, and has %d without attributes", who, missing, v.ghosts)
	}
	created := map[string]bool{}
	at := l.lastTime()
	for _, o := range l.ops {
		if o.kind != "create" || created[o.key] {
			continue
		}
		created[o.key] = true
		value, ok := v.load[o.key]
		read := &loadOp{worker: who, kind: "read", key: o.key, call: at, back: at, result: "absent", got: value, end: true}
		if ok {
			read.result = "ok"
		}
		l.ends = append(l.ends, read)
	}
	for key := range v.load {
		if !created[key] {
			l.t.Errorf("%s: %s is there, and nobody created it", who, key)
		}
	}
	l.t.Logf("%s lists %d objects of the load, and %d without attributes", who, len(v.load), v.ghosts)
	if who[0] != 'c' && v.ghosts > 0 {
		l.t.Errorf("%s: %d objects have no attributes", who, v.ghosts)
	}
}

func (l *loadTest) lastTime() (t int64) {
	for _, o := range l.ops {
		t = max(t, o.call, o.back)
	}
	return t + 1
}

// destroyed is a line of OBJ.IDX whose object was destroyed by p11fs: a name with
// the highest bit of each byte set.
var destroyed = regexp.MustCompile(`^[^\x00-\x7f]+$`)

// checkDirectory looks through the directory of objects: no name is listed twice,
// and each file is one of an object, but for what killed processes left.
func (l *loadTest) checkDirectory(objects int) {
	l.t.Helper()
	dir := filepath.Join(l.root, "swtok/TOK_OBJ")
	index, err := os.ReadFile(filepath.Join(dir, "OBJ.IDX"))
	if err != nil {
		l.t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, n := range lines(string(index)) {
		if destroyed.MatchString(n) {
			continue
		}
		if listed[n] || !storedName.MatchString(n) {
			l.t.Errorf("OBJ.IDX has the line %q, or has it twice", n)
		}
		listed[n] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		l.t.Fatal(err)
	}
	files, stray := 0, 0
	for _, e := range entries {
		switch n := e.Name(); {
		case n == "OBJ.IDX" || n == "IDX.TMP": // the latter is stock's
		case !storedName.MatchString(n):
			l.t.Errorf("%s is left", n)
		case !listed[n]:
			stray++
		default:
			files++
			delete(listed, n)
		}
	}
	l.t.Logf("%d files of objects, %d without a line, %d lines without a file", files, stray, len(listed))
	if files != objects {
		l.t.Errorf("%d files of %d objects", files, objects)
	}
	if stray > l.kills {
		l.t.Errorf("%d files that are no objects after %d kills", stray, l.kills)
	}
}
