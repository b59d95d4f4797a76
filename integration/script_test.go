package integration

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs the shell sessions of testdata/scripts over a real mount:
// as the user who runs the tests, and for root once more as an ordinary user.
//
// Beside the commands of testscript, a script has
//
//	mount [ARG...]       start p11fs, with a mount point of its own ($P)
//	unmount              end it, and look whether it left anything
//	unmounted            wait for it to end by itself, likewise
//	term NAME LINE       type LINE at the terminal NAME, opened when first used:
//	                     each terminal leads a POSIX session, one application
//	hangup NAME          close that terminal
//	readme FILE          write the session of the README to FILE
//
// and the variables P (mount point), T (the token's folder), O (its objects).
func TestScripts(t *testing.T) {
	t.Parallel()
	t.Run("me", func(t *testing.T) {
		t.Parallel()
		runScripts(t, nil)
	})
	t.Run("nobody", func(t *testing.T) {
		t.Parallel()
		runScripts(t, anotherUser(t, "nobody"))
	})
}

// A scriptRun is what one script has started.
type scriptRun struct {
	d     *daemon
	terms map[string]*terminal
}

const scriptKey = "p11fs"

func runScripts(t *testing.T, cred *syscall.Credential) {
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/scripts",
		WorkdirRoot:        workDir(t, "scripts"),
		RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			tb := env.T().(testing.TB)
			d := newDaemon(tb, daemonConfig{cred: cred, modern: true})
			env.Vars = append(env.Vars, d.env()...)
			env.Setenv("PATH", os.Getenv("PATH"))
			env.Setenv("LC_ALL", "C.UTF-8")
			env.Setenv("PIN", userPIN)
			env.Setenv("SOPIN", soPIN)
			env.Values[scriptKey] = &scriptRun{d: d, terms: map[string]*terminal{}}
			// Terminals start in the script's directory.
			if cred != nil {
				own(tb, env.WorkDir, cred)
			}
			return os.Chmod(env.WorkDir, 0o755)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"mount": func(ts *testscript.TestScript, neg bool, args []string) {
				d := running(ts).d
				d.c.args = args
				d.start()
			},
			"unmount":   func(ts *testscript.TestScript, neg bool, args []string) { running(ts).d.stop() },
			"unmounted": func(ts *testscript.TestScript, neg bool, args []string) { running(ts).d.ended() },
			"term":      scriptTerm,
			"hangup": func(ts *testscript.TestScript, neg bool, args []string) {
				run := running(ts)
				term := run.terms[args[0]]
				if term == nil {
					ts.Fatalf("no terminal %s", args[0])
				}
				term.close()
				delete(run.terms, args[0])
			},
			"readme": func(ts *testscript.TestScript, neg bool, args []string) {
				session, err := readmeSession()
				ts.Check(err)
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(session), 0o644))
			},
		},
	})
}

func running(ts *testscript.TestScript) *scriptRun { return ts.Value(scriptKey).(*scriptRun) }

// scriptTerm is the command term.
func scriptTerm(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: term NAME 'LINE'")
	}
	run := running(ts)
	term := run.terms[args[0]]
	if term == nil {
		tb := run.d.t
		term = newTerminal(tb, terminalConfig{
			shell: []string{"bash"}, cred: run.d.c.cred, dir: ts.Getenv("WORK"),
			env: append(run.d.env(), "PIN="+userPIN, "SOPIN="+soPIN, "WORK="+ts.Getenv("WORK")),
		})
		run.terms[args[0]] = term
	}
	r := term.run(args[1])
	_, _ = ts.Stdout().Write([]byte(r.out))
	_, _ = ts.Stderr().Write([]byte(r.err))
	switch {
	case r.status == 0 && neg:
		ts.Fatalf("unexpected success")
	case r.status != 0 && !neg:
		ts.Fatalf("ended with status %d", r.status)
	}
}

// readmeSession is the session of the README: its code blocks after the line
// that begins with "## A session", up to the next heading.
func readmeSession() (string, error) {
	b, err := os.ReadFile(filepath.Join("..", "README.md"))
	if err != nil {
		return "", err
	}
	var session strings.Builder
	in, code := false, false
	for _, line := range lines(string(b)) {
		switch {
		case !code && strings.HasPrefix(line, "## "):
			in = strings.HasPrefix(strings.ToLower(line), "## a session")
		case strings.HasPrefix(line, "```"):
			code = !code
		case in && code:
			session.WriteString(line + "\n")
		}
	}
	return session.String(), nil
}
