// Package errortexts finds every error text of the product in its source, for a test
// that holds them to rules, and writes docs/errors.md of them.
package errortexts

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

//go:generate go test -run ^TestErrorTexts$ . -update

// An entry is one text. What is filled in stands as … in it.
type entry struct {
	at     string // file and line
	dir    string // of the package
	rv     string // CKR_ name without CKR_; empty where there is none
	errno  string
	text   string
	advice string // what to do: of the text itself, or else of the CK_RV
	prefix bool   // what stands behind it says what to do
}

// A maker is a function that makes an error of a text: its arguments' places, or -1.
type maker struct {
	text, rv, errno int
	constant        string // the CK_RV, where it is no argument
	mend            bool   // what to do is the first argument
	found           bool   // by findMakers
}

// A section of the page has the texts of packages.
type section struct {
	title string
	about string
	dirs  []string
	// plain is what to do about an error without a CK_RV that does not say so itself;
	// empty where it has to.
	plain string
}

// within is what holds of an error that becomes the reason in another.
const within = "as the error says whose reason it is"

func sections() []section {
	return []section{
		{"The tree", "From the files of the mount: the errno is the program's, and the line stands in `error`. The commands of p11fs print it, and name a command where it names a file.", []string{"fs"}, within},
		{"The rules of PKCS#11", "From any door; in the tree as above. Programs that load a module get the CK_RV alone.", []string{"engine"}, within},
		{"Tokens", "Likewise, from the token; of a token that is not served `p11fs status` and `p11fs doctor` say it too.", []string{
			"tokens",
			"tokens/card",
			"tokens/card/cardway",
			"tokens/card/cca",
			"tokens/card/ep11",
			"tokens/card/hostlib",
			"tokens/card/soft",
			"tokens/card/softcca",
			"tokens/ccatok",
			"tokens/ep11tok",
			"tokens/fleet",
			"tokens/fleet/conf",
			"tokens/fleet/lease",
			"tokens/fleet/seal",
			"tokens/icsf",
			"tokens/icsf/icsfconn",
			"tokens/icsf/icsffile",
			"tokens/icsf/icsfwire",
			"tokens/keywrap",
			"tokens/lite",
			"tokens/lite/libica",
			"tokens/memory",
			"tokens/securekey",
			"tokens/store",
			"tokens/store/format",
			"tokens/swtok",
			"tokens/swtok/libcrypto",
			"tokens/tpm",
			"tokens/tpm/desk",
			"tokens/tpm/stocktpm",
			"tokens/tpm/tpm12",
			"tokens/tpm/tpm20",
		}, within},
		{"Templates, mechanisms and parameters", "Likewise, of what was written.", []string{"p11"}, within},
		{"Keys and certificates that come in", "Likewise, of what was imported, unwrapped or copied into `certs/`.", []string{"p11/pkix", "p11/pqc"}, within},
		{"Programs at the socket", "In the daemon's log at level debug; the program gets the CK_RV.", []string{"mountd/rpc", "mountd/rpc/wire"}, "whoever wrote the client mends it"},
		{"Commands", "On standard error of the command, behind `p11fs: `.", []string{"cmd/p11fs"}, ""},
		{"Other tokens", "From `p11fs import-token`: of an object, in the line that says it was left.", []string{"foreign", "foreign/softhsm", "foreign/sqlite", "foreign/module"}, "the object stays where it is; the programs of that token say more"},
		{"When the daemon starts and ends", "On standard error of `p11fs mount`, in the log, and in `status`. A mount that fails names `p11fs doctor`.", []string{"mountd", "mountd/mountpoint", "mountd/profile", "mountd/slotd", "shm", "locks", "secret"}, "`p11fs doctor` says what is in the way"},
		{"The configuration", "With file and line, where p11fs starts, and from `p11fs doctor`.", []string{"mountd/config", "engine/grants"}, "mend that line; p11fs(5) has its form"},
		{"doctor", "From `p11fs doctor`, each with the line that mends it.", []string{"mountd/doctor"}, ""},
	}
}

// collect finds the texts of the module at root.
func collect(root string) ([]entry, error) {
	errnos, err := errnoTable(filepath.Join(root, "docs/tree.md"))
	if err != nil {
		return nil, err
	}
	var list []entry
	for _, s := range sections() {
		for _, dir := range s.dirs {
			p, err := parse(root, dir)
			if err != nil {
				return nil, err
			}
			for _, e := range p.entries() {
				list = append(list, e.completed(s, errnos))
			}
		}
	}
	return list, nil
}

// errnoTable reads which errno a CK_RV has, which a test of fs compares with the code.
func errnoTable(page string) (map[string]string, error) {
	text, err := os.ReadFile(page)
	errnos := make(map[string]string)
	row := regexp.MustCompile(`(?m)^\| (E[A-Z]+) \|[^|]*\| ([A-Z0-9_, ]+) \|$`)
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		for _, name := range strings.Split(m[2], ", ") {
			errnos[name] = m[1]
		}
	}
	return errnos, err
}

// completed fills in what follows from the text, the CK_RV and the section.
func (e entry) completed(s section, errnos map[string]string) entry {
	if why, what, ok := cutAdvice(e.text); ok && e.advice == "" && (e.errno != "" || e.rv == "" && e.dir != "mountd/config") {
		e.text, e.advice = why, what
	}
	rv, err := p11.ParseRV("CKR_" + e.rv)
	advice := s.plain
	switch {
	case err != nil && e.rv != "":
		e.rv, advice = "varies", "as the CK_RV has it"
	case err == nil:
		e.errno = cmp.Or(e.errno, errnos[e.rv], "EIO")
		if advice = rv.Advice(); e.dir == "p11/pkix" {
			advice = pkix.Advice(rv)
		}
	case e.text == "interrupted":
		advice = "start it again, if it was not you"
	case strings.Contains(e.at, "pkcsslotd.go"):
		advice = "start it as root, where there is the group pkcs11; the words are those of openCryptoki's daemon"
	}
	e.advice = cmp.Or(e.advice, advice)
	return e
}

// cutAdvice parts a text from what it says to do, behind a colon or in brackets.
func cutAdvice(text string) (why, what string, ok bool) {
	if n := strings.LastIndex(text, " ("); n > 0 && strings.HasSuffix(text, ")") && strings.Trim(text[n:], " (…)") != "" {
		return text[:n], strings.TrimSuffix(text[n+2:], ")"), true
	}
	if n := strings.LastIndex(text, ": "); n > 0 && strings.Trim(text[n:], ": …") != "" {
		return text[:n], text[n+2:], true
	}
	return text, "", false
}

// A source is a package.
type source struct {
	dir    string
	set    *token.FileSet
	files  []*ast.File
	makers map[string]maker // by name, with its package where that is another one
	// advised is what Advise adds to a call.
	advised map[ast.Expr]string
	said    map[string]string // what a function that returns constant texts only returns
}

func parse(root, dir string) (*source, error) {
	s := &source{dir: dir, set: token.NewFileSet(), advised: make(map[ast.Expr]string), said: make(map[string]string), makers: map[string]maker{
		"errors.New": {text: 0, rv: -1, errno: -1}, "fmt.Errorf": {text: 0, rv: -1, errno: -1}, "p11.Errorf": {text: 1, rv: 0, errno: -1},
	}}
	switch dir {
	case "fs":
		s.makers["refuse"] = maker{text: 2, rv: 1, errno: 0}
	case "mountd/config": // of a line
		s.makers["add"] = maker{text: 1, rv: -1, errno: -1}
	case "mountd/doctor": // which has the line that mends it first
		s.makers["wrong"], s.makers["add"] = maker{text: 1, rv: -1, errno: -1, mend: true}, maker{text: 1, rv: -1, errno: -1, mend: true}
	case "p11":
		s.makers["Errorf"] = maker{text: 1, rv: 0, errno: -1}
	}
	paths, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(s.set, path, nil, parser.SkipObjectResolution|parser.ParseComments)
		if err != nil {
			return nil, err
		}
		s.files = append(s.files, file)
	}
	if err == nil && len(s.files) == 0 {
		err = fmt.Errorf("%s: %w", dir, fs.ErrNotExist)
	}
	for s.findMakers() {
	}
	s.each(s.findSaid)
	return s, err
}

// findSaid finds functions of constant texts.
func (s *source) findSaid(n ast.Node) bool {
	f, ok := n.(*ast.FuncDecl)
	if !ok || f.Body == nil || f.Type.Results == nil || len(f.Type.Results.List) != 1 || f.Name.Name == "Error" {
		return true
	}
	var texts []string
	ast.Inspect(f.Body, func(n ast.Node) bool {
		if r, ok := n.(*ast.ReturnStmt); ok && len(r.Results) == 1 {
			texts = append(texts, s.rawOf(r.Results[0]))
		}
		return true
	})
	if texts != nil && !slices.Contains(texts, "…") {
		s.said[f.Name.Name] = strings.Join(texts, " (or, as it is) ")
	}
	return true
}

// each calls f with each node of the package that is no generated one.
func (s *source) each(f func(ast.Node) bool) {
	for _, file := range s.files {
		if !ast.IsGenerated(file) {
			ast.Inspect(file, f)
		}
	}
}

// name is how a function is called: New, p11.Errorf, or the name of a method.
func name(fun ast.Expr) string {
	switch f := fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		if x, ok := f.X.(*ast.Ident); ok && slices.Contains([]string{"errors", "fmt", "p11"}, x.Name) {
			return x.Name + "." + f.Sel.Name
		}
		return f.Sel.Name
	}
	return ""
}

// findMakers finds functions that hand a text of theirs on to one that makes errors,
// and reports whether there was a new one.
func (s *source) findMakers() (found bool) {
	s.each(func(n ast.Node) bool {
		f, ok := n.(*ast.FuncDecl)
		if !ok || f.Body == nil || s.dir == "p11" && f.Name.Name == "Errorf" {
			return true
		}
		if _, known := s.makers[f.Name.Name]; known {
			return true
		}
		params := map[string]int{}
		for _, field := range f.Type.Params.List {
			for _, p := range field.Names {
				params[p.Name] = len(params)
			}
		}
		ast.Inspect(f.Body, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			m, ok := s.makers[name(call.Fun)]
			if !ok || m.text >= len(call.Args) {
				return true
			}
			text, isParam := paramOf(params, call.Args[m.text])
			if !isParam {
				return true
			}
			made := maker{text: text, rv: -1, errno: -1, constant: m.constant, found: true}
			if m.rv >= 0 {
				made.constant = rvName(call.Args[m.rv])
				if rv, ok := paramOf(params, call.Args[m.rv]); ok {
					made.rv = rv
				}
			}
			s.makers[f.Name.Name] = made
			found = true
			return true
		})
		return true
	})
	return found
}

// paramOf is which of the parameters e is.
func paramOf(params map[string]int, e ast.Expr) (n int, ok bool) {
	if id, isName := e.(*ast.Ident); isName {
		n, ok = params[id.Name]
	}
	return n, ok
}

// rvName is the name of a CK_RV without CKR_.
func rvName(e ast.Expr) string {
	switch x := e.(type) {
	case *ast.SelectorExpr:
		return strings.TrimPrefix(x.Sel.Name, "CKR_")
	case *ast.Ident:
		return strings.TrimPrefix(x.Name, "CKR_")
	}
	return "varies"
}

// entries are the texts of the package.
func (s *source) entries() (list []entry) {
	add := func(at ast.Node, e entry) {
		e.dir = s.dir
		pos := s.set.Position(at.Pos())
		e.at = fmt.Sprintf("%s/%s:%d", s.dir, filepath.Base(pos.Filename), pos.Line)
		list = append(list, e)
	}
	sentinels := false // errors of the package, which others say more of
	s.each(func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			sentinels = false
			if s.makers[n.Name.Name].found {
				return false // its texts are those of its callers
			}
			if n.Name.Name == "Error" {
				s.typeText(n, add)
			}
		case *ast.GenDecl:
			sentinels = n.Tok == token.VAR
		case *ast.CallExpr:
			if name(n.Fun) == "p11.Advise" || s.dir == "p11" && name(n.Fun) == "Advise" {
				s.advised[n.Args[0]] = s.textOf(n.Args[1])
				return true
			}
			if e, ok := s.call(n); ok {
				e.prefix = e.prefix || sentinels && e.rv == ""
				add(n, e)
			}
		}
		return true
	})
	return list
}

// typeText is what an error type says of itself.
func (s *source) typeText(f *ast.FuncDecl, add func(ast.Node, entry)) {
	ast.Inspect(f.Body, func(n ast.Node) bool {
		if r, ok := n.(*ast.ReturnStmt); ok && len(r.Results) == 1 && strings.ContainsAny(s.textOf(r.Results[0]), "aeiou") {
			add(r, entry{text: s.textOf(r.Results[0]), rv: "varies"})
		}
		return true
	})
}

// call is the text that a call makes an error of.
func (s *source) call(n *ast.CallExpr) (entry, bool) {
	m, ok := s.makers[name(n.Fun)]
	if !ok || m.text >= len(n.Args) {
		return entry{}, false
	}
	e := entry{text: s.textOf(n.Args[m.text]), rv: m.constant, advice: s.advised[n]}
	if m.rv >= 0 {
		e.rv = rvName(n.Args[m.rv])
	}
	if m.mend {
		e.advice = s.textOf(n.Args[0])
	}
	if m.errno >= 0 {
		e.errno = strings.TrimPrefix(rvName(n.Args[m.errno]), "syscall.")
	}
	raw := s.rawOf(n.Args[m.text])
	e.prefix = strings.HasSuffix(raw, "%w") || strings.HasPrefix(raw, "%w") || strings.HasSuffix(raw, "%v") && e.rv == ""
	return e, true
}

// rawOf is a constant text, with … where it is not constant.
func (s *source) rawOf(e ast.Expr) string {
	switch x := e.(type) {
	case *ast.BasicLit:
		if text, err := strconv.Unquote(x.Value); err == nil && x.Kind == token.STRING {
			return text
		}
	case *ast.BinaryExpr:
		return s.rawOf(x.X) + s.rawOf(x.Y)
	case *ast.CallExpr:
		if name(x.Fun) == "fmt.Sprintf" {
			return s.textOf(x.Args[0])
		}
		return cmp.Or(s.said[name(x.Fun)], "…")
	}
	return "…"
}

// textOf is the text with … for what is filled in.
func (s *source) textOf(e ast.Expr) string {
	return regexp.MustCompile(`%(%|[-+#0]*(\[\d+\])?[\d*.]*[a-zA-Z])`).ReplaceAllStringFunc(s.rawOf(e), func(verb string) string {
		if verb == "%%" {
			return "%"
		}
		return "…"
	})
}

// document is docs/errors.md.
func document(list []entry) string {
	var b strings.Builder
	b.WriteString(`# Errors

Every error text of p11fs, by where it is met: what was wrong, and what to do. What is filled in stands as …. The test
of ` + "`contrib/errortexts`" + ` writes this page of the source (` + "`go generate ./contrib/errortexts`" + `), and fails while it differs.

In the tree an error is an errno, and the file ` + "`error`" + ` has the line behind it: the CK_RV, the text, and what to do.
[tree.md](tree.md#errors) says what each errno stands for.
`)
	for _, s := range sections() {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", s.title, s.about)
		var rows []string
		for _, e := range list {
			if slices.Contains(s.dirs, e.dir) && strings.Trim(e.text, "… :;,()") != "" {
				rows = append(rows, e.row())
			}
		}
		slices.Sort(rows)
		b.WriteString("\n| errno | CKR_ | what is wrong | what to do |\n|---|---|---|---|\n")
		for _, row := range slices.Compact(rows) {
			b.WriteString(row)
		}
	}
	return b.String()
}

func (e entry) row() string {
	cell := func(s string) string {
		return strings.NewReplacer("|", `\|`, "<", `\<`, "*", `\*`, "_", `\_`).Replace(s)
	}
	advice := e.advice
	if advice == "" {
		advice = "what stands behind it says"
	}
	return fmt.Sprintf("| %s | %s | %s | %s |\n", e.errno, cell(e.rv), cell(regexp.MustCompile(`(: …)+$`).ReplaceAllString(e.text, "")), cell(advice))
}
