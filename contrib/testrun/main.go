// Command testrun runs go test, prints what go test would print, and fails
// besides for what go test does not look at: a test skipped in CI (CI=true) that
// is not on the list of those that may be, and whatever the tests left behind:
// mounts, processes, shared memory, temporary files.
//
//	testrun [-may-skip FILE] -- [GO TEST ARGUMENT...]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "testrun:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("testrun", flag.ContinueOnError)
	list := flags.String("may-skip", "", "file with the tests that may be skipped in CI, one a line")
	if err := flags.Parse(args); err != nil {
		return err
	}
	maySkip, err := readList(*list)
	if err != nil {
		return err
	}
	// Other users run some of the tests' programs, so it is open as /tmp is. Its
	// name is short: the tests make sockets below it.
	tmp, err := os.MkdirTemp("", "p11t")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o777|os.ModeSticky); err != nil {
		return err
	}
	before := lookAround(tmp)
	res, err := goTest(ctx, tmp, flags.Args(), out)
	errs := []error{err}
	for _, s := range res.skips {
		fmt.Fprintf(out, "--- SKIP: %s %s: %s\n", s.pkg, s.test, s.reason)
		if os.Getenv("CI") == "true" && !listed(maySkip, s.test) {
			errs = append(errs, fmt.Errorf("%s was skipped, which it may not be in CI: %s", s.test, s.reason))
		}
	}
	if res.passed == 0 && len(res.skips) == 0 {
		errs = append(errs, errors.New("no test ran"))
	}
	fmt.Fprintf(out, "%d tests passed, %d failed, %d skipped\n", res.passed, res.failed, len(res.skips))
	for _, l := range leftovers(before, tmp, 5*time.Second) {
		errs = append(errs, errors.New("left behind: "+l))
	}
	return errors.Join(errs...)
}

// goTest runs go test -json and prints its events as plain go test would.
func goTest(ctx context.Context, tmp string, args []string, out io.Writer) (result, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...)
	// The tests get the time to clean up that an interrupt gives them.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return result{}, err
	}
	if err := cmd.Start(); err != nil {
		return result{}, err
	}
	res, readErr := printEvents(pipe, out)
	if readErr != nil {
		// go test must not hang on a pipe that nobody reads.
		_, _ = io.Copy(io.Discard, pipe)
	}
	waitErr := cmd.Wait()
	if waitErr != nil {
		waitErr = fmt.Errorf("go test: %w", waitErr)
	}
	return res, errors.Join(readErr, waitErr)
}

// readList reads patterns of test names, one a line; # begins a comment.
func readList(file string) ([]string, error) {
	if file == "" {
		return nil, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var patterns []string
	for line := range strings.Lines(string(b)) {
		pattern, _, _ := strings.Cut(line, "#")
		if pattern = strings.TrimSpace(pattern); pattern == "" {
			continue
		}
		if _, err := path.Match(pattern, ""); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", file, pattern, err)
		}
		patterns = append(patterns, pattern)
	}
	return patterns, nil
}

// listed says whether a pattern fits the name of a test, in which * does not
// reach over a slash.
func listed(patterns []string, test string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		ok, _ := path.Match(pattern, test)
		return ok
	})
}
