package layers

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	maxLines   = 80
	maxNesting = 4
)

// A source is one hand-written file of the module.
type source struct {
	name string
	set  *token.FileSet
	file *ast.File
}

func (s source) line(p token.Pos) int { return s.set.Position(p).Line }

// lines is how many lines n has.
func (s source) lines(n ast.Node) int { return s.line(n.End()) - s.line(n.Pos()) + 1 }

// sources parses the module's own files.
func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{"build", "bin", "testdata", ".git"}, d.Name()):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go"):
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		if !ast.IsGenerated(file) {
			out = append(out, source{strings.TrimPrefix(path, "../../"), set, file})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 100 {
		t.Fatalf("found %d files only", len(out))
	}
	return out
}

// length is how many lines a function has that are no table: no composite value
// and no case of one statement. A test counts without its parts, which are functions
// of their own.
func (s source) length(body *ast.BlockStmt) int {
	n := s.lines(body)
	ast.Inspect(body, func(x ast.Node) bool {
		switch x := x.(type) {
		case *ast.CompositeLit:
			n -= s.lines(x) - 1
			return false
		case *ast.CaseClause:
			if len(x.Body) == 1 && s.line(x.Body[0].Pos()) == s.line(x.Body[0].End()) {
				n -= s.lines(x)
				return false
			}
		case *ast.FuncLit:
			if strings.HasSuffix(s.name, "_test.go") {
				n -= s.lines(x) - 1
				return false
			}
		}
		return true
	})
	return n
}

// nesting is how deep statements that choose or repeat stand in each other.
func nesting(n ast.Node, depth int) (deepest int) {
	deepest = depth
	ast.Inspect(n, func(x ast.Node) bool {
		if x == n {
			return true
		}
		switch x := x.(type) {
		case *ast.FuncLit:
			return false // a function of its own
		case *ast.IfStmt:
			deepest = max(deepest, nesting(x.Body, depth+1))
			for e := x.Else; e != nil; {
				if again, ok := e.(*ast.IfStmt); ok { // else if
					deepest = max(deepest, nesting(again.Body, depth+1))
					e = again.Else
					continue
				}
				deepest = max(deepest, nesting(e, depth+1))
				break
			}
			return false
		case *ast.ForStmt, *ast.RangeStmt, *ast.SwitchStmt, *ast.TypeSwitchStmt, *ast.SelectStmt:
			deepest = max(deepest, nesting(x, depth+1))
			return false
		}
		return true
	})
	return deepest
}

// tooMuch says what is too long or too deep in a file.
func (s source) tooMuch() (out []string) {
	check := func(at token.Pos, name string, body *ast.BlockStmt) {
		where := fmt.Sprintf("%s:%d: %s", s.name, s.line(at), name)
		if n := s.length(body); n > maxLines {
			out = append(out, fmt.Sprintf("%s has %d lines, more than %d, without its tables", where, n, maxLines))
		}
		if n := nesting(body, 0); n > maxNesting {
			out = append(out, fmt.Sprintf("%s is nested %d deep, more than %d", where, n, maxNesting))
		}
	}
	ast.Inspect(s.file, func(x ast.Node) bool {
		switch x := x.(type) {
		case *ast.FuncDecl:
			if x.Body != nil {
				check(x.Pos(), x.Name.Name, x.Body)
			}
		case *ast.FuncLit:
			check(x.Pos(), "a function", x.Body)
		}
		return true
	})
	return out
}

// TestFunctionsAreSmall: who reads a function sees all of it.
func TestFunctionsAreSmall(t *testing.T) {
	for _, s := range sources(t) {
		for _, what := range s.tooMuch() {
			t.Error(what)
		}
	}
}

// TestOneKeyForErrors: who looks for errors in a log finds them all under one name.
func TestOneKeyForErrors(t *testing.T) {
	for _, s := range sources(t) {
		ast.Inspect(s.file, func(x ast.Node) bool {
			call, ok := x.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !slices.Contains([]string{"Debug", "Info", "Warn", "Error", "With", "Log", "Any", "String"}, strings.TrimSuffix(method.Sel.Name, "Context")) {
				return true
			}
			for _, a := range call.Args {
				if key, ok := a.(*ast.BasicLit); ok && key.Value == `"error"` {
					t.Errorf("%s:%d: the key of an error is \"err\"", s.name, s.line(key.Pos()))
				}
			}
			return true
		})
	}
}
