package main

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// A presence is a line of the file who.
type presence struct {
	Number     uint64       `json:"number"`
	UID        uint32       `json:"uid"`
	User       string       `json:"user"`
	PID        int          `json:"pid"`
	Command    string       `json:"command"`
	Door       string       `json:"door"`
	Unit       string       `json:"unit,omitempty"`
	Since      string       `json:"since"`
	Sessions   int          `json:"sessions"`
	Operations int          `json:"operations"`
	Logins     []loginEntry `json:"logins"`
	Calls      uint64       `json:"calls"`
	Errors     uint64       `json:"errors"`
	Took       float64      `json:"seconds"` // all calls together
	Busy       *busyEntry   `json:"busy,omitempty"`
	Lock       *lockEntry   `json:"lock,omitempty"`
	Waits      waitEntry    `json:"waits"`
}

// A busyEntry is a call of a token that has not come back.
type busyEntry struct {
	Token     string  `json:"token"`
	Does      string  `json:"does"`
	Mechanism string  `json:"mechanism"`
	Seconds   float64 `json:"seconds"`
}

// A lockEntry is a wait for the lock of a token.
type lockEntry struct {
	Token   string  `json:"token"`
	Seconds float64 `json:"seconds"`
	Holder  int     `json:"holder"` // the process that has it; 0 if that is not known
}

// A waitEntry is how many requests of the application's user wait.
type waitEntry struct {
	Processor int `json:"processor"`
	Long      int `json:"long"`
}

type loginEntry struct {
	Token string `json:"token"`
	User  string `json:"user"`
	Since string `json:"since"`
}

// parsePresence reads a line of the file who; words that it does not know are of a newer daemon.
func parsePresence(line string) (p presence, err error) {
	p.Logins = []loginEntry{}
	word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	if p.Number, err = strconv.ParseUint(word, 10, 64); err != nil {
		return p, fmt.Errorf("the file who has a line that is none of this version's: %w", err)
	}
	for rest != "" {
		name, value, ok := strings.Cut(rest, "=")
		if !ok {
			break
		}
		value, rest = cutValue(value)
		n, _ := strconv.Atoi(value)
		switch name {
		case "uid":
			p.UID, p.User = uint32(n), userName(value)
		case "pid":
			p.PID = n
		case "command":
			p.Command = value
		case "door":
			p.Door = value
		case "unit":
			p.Unit = value
		case "since":
			p.Since = value
		case "sessions":
			p.Sessions = n
		case "operations":
			p.Operations = n
		case "calls":
			p.Calls, _ = strconv.ParseUint(value, 10, 64)
		case "errors":
			p.Errors, _ = strconv.ParseUint(value, 10, 64)
		case "seconds":
			p.Took = finite(value)
		case "busy":
			p.Busy = parseBusy(value)
		case "lock":
			p.Lock = parseLock(value)
		case "waits":
			_, _ = fmt.Sscanf(value, "processor:%d,long:%d", &p.Waits.Processor, &p.Waits.Long)
		case "login":
			token, user, _ := strings.Cut(value, ":")
			user, since, _ := strings.Cut(user, ":")
			p.Logins = append(p.Logins, loginEntry{token, user, since})
		}
	}
	return p, nil
}

// parseBusy reads TOKEN:DOES:MECHANISM:SECONDS; a token's name may have colons.
func parseBusy(text string) *busyEntry {
	words := strings.Split(text, ":")
	n := len(words) - 3
	if n < 1 {
		return nil
	}
	return &busyEntry{strings.Join(words[:n], ":"), words[n], words[n+1], finite(words[n+2])}
}

// parseLock reads TOKEN:SECONDS:PID; a token's name may have colons.
func parseLock(text string) *lockEntry {
	words := strings.Split(text, ":")
	n := len(words) - 2
	if n < 1 {
		return nil
	}
	pid, _ := strconv.Atoi(words[n+1])
	return &lockEntry{strings.Join(words[:n], ":"), finite(words[n]), pid}
}

// finite is a number that JSON can have; 0 for others.
func finite(text string) float64 {
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
		return 0
	}
	return x
}

// who reads the file of that name.
func (t tree) who() ([]presence, error) {
	text, err := t.read("who")
	if err != nil {
		return nil, notMounted(err)
	}
	list := []presence{}
	sc := bufio.NewScanner(strings.NewReader(text))
	for sc.Scan() {
		p, err := parsePresence(sc.Text())
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, sc.Err()
}

func newWho(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "who",
		Short: "Show who has sessions with the daemon, and who is logged in",
		Long: `Show the applications that have sessions, one a line: a terminal, job or service on the
mount, by the leader of its POSIX session, or a program at the socket. You see your own;
root and the owner of the mount see all. The number is what p11fs kick takes. What an
application waits for is told as p11fs top does.

With --fleet it shows, of tokens that many machines have, how far this machine is, and to root
and the owner of the mount the members of etcd and the machines.`,
		Example: `  p11fs who
  p11fs who --json | jq '.[] | select(.logins != [])'`,
		Args: takes(0, 0),
	}
	mount := mountFlag(c)
	asJSON := c.Flags().Bool("json", false, "print a JSON array")
	fleet := c.Flags().Bool("fleet", false, "show instead the machines that have tokens of a fleet, and the members of etcd")
	c.RunE = func(*cobra.Command, []string) error {
		if *fleet {
			return showFleet(s, *mount, *asJSON)
		}
		t, err := findTree(*mount, os.Getenv)
		if err != nil {
			return err
		}
		list, err := t.who()
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(s, list)
		}
		w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "NUMBER\tUSER\tPID\tCOMMAND\tDOOR\tSINCE\tSESSIONS\tOPERATIONS\tLOGINS\tWAITS FOR")
		for _, p := range list {
			logins := []string{}
			for _, l := range p.Logins {
				logins = append(logins, l.Token+":"+l.User)
			}
			fmt.Fprintf(w, "%d\t%s\t%d\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", p.Number, printableLine(p.User), p.PID, printableLine(p.Command), p.Door, p.Since, p.Sessions, p.Operations, printableLine(strings.Join(logins, " ")), printableLine(p.waits()))
		}
		return w.Flush()
	}
	return c
}

func newKick(streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "kick NUMBER...",
		Short: "Close the sessions of an application, and so log it out",
		Long: `Close all sessions of applications, by their numbers in p11fs who: their logins,
operations and session objects end. They may open sessions anew, and log in again. Yours
you may close, root and the owner of the mount all.`,
		Example: `  p11fs kick 17`,
		Args:    takes(1, math.MaxInt),
	}
	mount := mountFlag(c)
	c.ValidArgsFunction = func(_ *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		t, err := findTree(*mount, os.Getenv)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		list, _ := t.who() // none where it cannot be read
		var words []cobra.Completion
		for _, p := range list {
			words = append(words, cobra.CompletionWithDesc(strconv.FormatUint(p.Number, 10), fmt.Sprintf("%s %d %s", p.User, p.PID, p.Command)))
		}
		return words, cobra.ShellCompDirectiveNoFileComp
	}
	c.RunE = func(_ *cobra.Command, args []string) error {
		t, err := findTree(*mount, os.Getenv)
		if err != nil {
			return err
		}
		for _, n := range args {
			if err := t.command("kick "+n, "", "kick", []byte(n+"\n")); err != nil {
				return err
			}
		}
		return nil
	}
	return c
}
