package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func newEvents(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "events [TOKEN]",
		Short: "Print what happens to the tokens, one line each, as it happens",
		Long: `Print what happens to a token, or to all, one line each, until it is interrupted, as by
Ctrl-C (exit status 130): objects made, changed and gone, through whatever door; logins of
this terminal; PINs locked and unlocked; tokens that come, go, or go offline. It tells what
you may see: of private objects while you are logged in, or have a grant. What came too fast,
or was not read before a logout, is a line lost. It reads the file events of the mount.`,
		Example: `  p11fs events
  p11fs events swtok --json | jq --unbuffered -r 'select(.event == "gone") | .label'`,
		Args: takes(0, 1),
	}
	mount := mountFlag(c)
	asJSON := c.Flags().Bool("json", false, "print a JSON object for each, on a line of its own")
	c.ValidArgsFunction = completeTokens(mount)
	c.RunE = func(_ *cobra.Command, args []string) error {
		t, err := findTree(*mount, os.Getenv)
		if err != nil {
			return err
		}
		dir := t.dir
		if len(args) > 0 {
			if err := t.token(args[0]); err != nil {
				return err
			}
			dir = filepath.Join(dir, args[0])
		}
		path := filepath.Join(dir, "events")
		// os.Open would have reads not wait, and ask epoll, which never tells of this file.
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return notMounted(&os.PathError{Op: "open", Path: path, Err: err})
		}
		f := os.NewFile(uintptr(fd), path)
		defer f.Close()
		if !*asJSON {
			return copyEvents(s.out, f)
		}
		out := json.NewEncoder(s.out)
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 64<<10) // a label is cut long before
		for lines.Scan() {
			e, err := parseEvent(lines.Text())
			if err == nil {
				err = out.Encode(e)
			}
			if err != nil {
				return err
			}
		}
		return lines.Err()
	}
	return c
}

// copyEvents copies what comes when it comes: io.Copy may have the kernel wait for more.
func copyEvents(to io.Writer, from io.Reader) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// An event is a line of the file events.
type event struct {
	Time   string `json:"time"`
	Token  string `json:"token,omitempty"`
	Event  string `json:"event"`
	User   string `json:"user,omitempty"`
	Class  string `json:"class,omitempty"`
	Label  string `json:"label,omitempty"`
	ID     string `json:"id,omitempty"`
	UID    string `json:"uid,omitempty"`
	Slot   string `json:"slot,omitempty"`
	Events int    `json:"events,omitempty"` // that were lost
}

// parseEvent reads a line; words that it does not know are of a newer daemon.
func parseEvent(line string) (e event, err error) {
	words := strings.SplitN(line, " ", 4)
	if len(words) < 3 {
		return e, errors.New("the file events has a line that is none of this version's: use the daemon's own p11fs")
	}
	e = event{Time: words[0], Token: words[1], Event: words[2]}
	if e.Token == "-" {
		e.Token = ""
	}
	for rest := strings.Join(words[3:], ""); rest != ""; {
		name, value, ok := strings.Cut(rest, "=")
		if !ok {
			return e, fmt.Errorf("the file events has the word %q, which is none of this version's: use the daemon's own p11fs", rest)
		}
		value, rest = cutValue(value)
		switch name {
		case "user":
			e.User = value
		case "class":
			e.Class = value
		case "label":
			e.Label = value
		case "id":
			e.ID = value
		case "uid":
			e.UID = value
		case "slot":
			e.Slot = value
		case "events":
			e.Events, _ = strconv.Atoi(value)
		}
	}
	return e, nil
}

// cutValue cuts a value, which may be quoted, off what follows it.
func cutValue(text string) (value, rest string) {
	if quoted, err := strconv.QuotedPrefix(text); err == nil {
		value, _ = strconv.Unquote(quoted)
		return value, strings.TrimPrefix(text[len(quoted):], " ")
	}
	value, rest, _ = strings.Cut(text, " ")
	return value, rest
}
