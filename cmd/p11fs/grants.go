package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"p11fs/engine/grants"
	"p11fs/mountd"
	"p11fs/p11"
)

func newGrants(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "grants",
		Short: "Check, list and explain who may use what without a login",
		Long: `Look at the files of grants (p11fs-grants(5)): yours, or with --system the machine's in
/etc/p11fs/grants.d. A daemon takes them when it starts, and at SIGHUP; what it goes by now
is in the files TOKEN/grants of its mount.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newGrantsCheck(s), newGrantsList(s), newGrantsExplain(s))
	return c
}

// onGrants makes c a command over the grants that the files have.
func onGrants(c *cobra.Command, act func(conf mountd.Config, set *grants.Set, args []string) error) *cobra.Command {
	where := placeFlags(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		mode, paths, err := where()
		if err != nil {
			return err
		}
		conf := mountd.Config{Mode: mode, Paths: paths, Log: slog.New(slog.DiscardHandler)}
		if err := setKinds(&conf, "auto"); err != nil {
			return err
		}
		set, err := conf.LoadGrants()
		if err != nil {
			return err
		}
		return act(conf, set, args)
	}
	return c
}

// A grantLine is a grant as it is printed in JSON.
type grantLine struct {
	At         string   `json:"at"`
	UID        *uint32  `json:"uid,omitempty"`
	GID        *uint32  `json:"gid,omitempty"`
	Unit       string   `json:"unit,omitempty"`
	Token      string   `json:"token"`
	Label      string   `json:"label,omitempty"`
	ID         string   `json:"id,omitempty"`
	Functions  []string `json:"functions"`
	Mechanisms []string `json:"mechanisms,omitempty"` // absent: all
	Always     bool     `json:"always_authenticate,omitempty"`
	Text       string   `json:"text"`
	If         []string `json:"if,omitempty"` // of explain: what else must be so
}

func lineOf(g *grants.Grant) grantLine {
	l := grantLine{
		At: g.At, UID: g.UID, GID: g.GID, Unit: g.Unit, Token: g.Token, Label: string(g.Label), ID: hex.EncodeToString(g.ID),
		Functions: g.FunctionNames(), Always: g.AlwaysAuthenticate, Text: g.Text,
	}
	for _, m := range g.Mechanisms {
		l.Mechanisms = append(l.Mechanisms, m.Short())
	}
	return l
}

// tellUnreached says of grants which are for users who do not reach the daemon of conf: one's own
// is reached by oneself alone.
func tellUnreached(s streams, conf mountd.Config, list []*grants.Grant) {
	if conf.Mode != mountd.User {
		return
	}
	own := uint32(os.Geteuid())
	for _, g := range list {
		if g.UID != nil && *g.UID != own && *g.UID != 0 {
			fmt.Fprintf(s.err, "p11fs: %s: your own daemon is reached by you alone, and not by the user %d: have the key in the machine's, p11fs mount --system, and the grant in /etc/p11fs/grants.d\n", printable(g.At), *g.UID)
		}
	}
}

func newGrantsCheck(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Check the files of grants as the daemon does before it takes them",
		Long: `Check all files of grants. Each mistake is a line: file, line, what is wrong and what to
write. The daemon takes all the files or none.`,
		Example: `  p11fs grants check --system && systemctl reload p11fs`,
		Args:    takes(0, 0),
	}
	asJSON := c.Flags().Bool("json", false, "print the directory and the number of grants as JSON")
	return onGrants(c, func(conf mountd.Config, set *grants.Set, _ []string) error {
		n := 0
		if set != nil {
			n = len(set.List)
		}
		switch {
		case *asJSON:
			return printJSON(s, struct {
				Dir    string `json:"dir"`
				There  bool   `json:"there"`
				Grants int    `json:"grants"`
			}{conf.Paths.Grants, set != nil, n})
		case set == nil:
			fmt.Fprintf(s.out, "%s is not there: nothing is granted\n", printable(conf.Paths.Grants))
		default:
			fmt.Fprintf(s.out, "%s: %d grants\n", printable(conf.Paths.Grants), n)
			tellUnreached(s, conf, set.List)
		}
		return nil
	})
}

func newGrantsList(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:     "list [TOKEN...]",
		Short:   "List the grants of the files, with file and line",
		Example: `  p11fs grants list --system --json | jq -r '.[].text'`,
		Args:    takes(0, math.MaxInt),
	}
	asJSON := c.Flags().Bool("json", false, "print a JSON array")
	return onGrants(c, func(_ mountd.Config, set *grants.Set, args []string) error {
		list := []grantLine{}
		for _, g := range all(set) {
			if len(args) == 0 || slices.Contains(args, g.Token) {
				list = append(list, lineOf(g))
			}
		}
		if *asJSON {
			return printJSON(s, list)
		}
		for _, g := range list {
			fmt.Fprintf(s.out, "%s: %s\n", printable(g.At), printableLine(g.Text))
		}
		return nil
	})
}

func newGrantsExplain(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "explain USER KEY",
		Short: "Say which grants let a user use a key, and if none does, what to write",
		Long: `Say which grants let a user, a name or a number, use a key: TOKEN/LABEL, LABEL, or
TOKEN/id=0x01. Where there is none, it prints a line that would, and fails. What else must
be so, such as the unit, stands behind a grant.`,
		Example: `  p11fs grants explain --system www-data swtok/web`,
		Args:    takes(2, 2),
	}
	asJSON := c.Flags().Bool("json", false, "print a JSON array of the grants")
	return onGrants(c, func(_ mountd.Config, set *grants.Set, args []string) error {
		who, err := callerNamed(args[0])
		if err != nil {
			return err
		}
		k, err := parseGrantKey(args[1])
		if err != nil {
			return err
		}
		list := []grantLine{}
		for _, g := range all(set) {
			if conditions, ok := k.by(g, who); ok {
				l := lineOf(g)
				l.If = conditions
				list = append(list, l)
			}
		}
		switch {
		case *asJSON:
			err = printJSON(s, list)
		case len(list) == 0:
			fmt.Fprintf(s.out, "no grant lets %s use %s. One that lets it sign:\n%s functions=sign\n", printable(args[0]), printable(args[1]), k.line(args[0]))
		default:
			for _, l := range list {
				also := ""
				if len(l.If) > 0 {
					also = " # if " + strings.Join(l.If, " and ")
				}
				fmt.Fprintf(s.out, "%s: %s%s\n", printable(l.At), printableLine(l.Text), printable(also))
			}
		}
		if err == nil && len(list) == 0 {
			return errSilent
		}
		return err
	})
}

func all(set *grants.Set) []*grants.Grant {
	if set == nil {
		return nil
	}
	return set.List
}

// callerNamed is a user with his groups.
func callerNamed(name string) (c grants.Caller, err error) {
	u, err := user.Lookup(name)
	if _, number := strconv.ParseUint(name, 10, 32); err != nil && number == nil {
		u, err = user.LookupId(name)
	}
	if err != nil {
		n, notNumber := strconv.ParseUint(name, 10, 32)
		if notNumber != nil {
			return c, &usageError{err: fmt.Errorf("there is no user %q: name another, or a number", name)}
		}
		return grants.Caller{UID: uint32(n), GID: ^uint32(0)}, nil
	}
	ids, err := u.GroupIds()
	if err != nil {
		return c, err
	}
	for _, id := range append(ids, u.Gid) {
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return c, err
		}
		c.Groups = append(c.Groups, uint32(n))
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	c.UID, c.GID = uint32(uid), c.Groups[len(c.Groups)-1]
	return c, err
}

// A grantKey is a key as explain is given it: what is empty may be anything.
type grantKey struct {
	token     string
	label, id []byte
}

func parseGrantKey(name string) (grantKey, error) {
	var k grantKey
	label := name
	if token, rest, ok := strings.Cut(name, "/"); ok {
		k.token, label = token, strings.TrimPrefix(rest, "objects/")
	}
	if strings.HasPrefix(label, "id=") {
		t, err := p11.ParseTemplate(label)
		if err != nil || len(t) != 1 || len(t[0].Value) == 0 {
			return k, &usageError{err: fmt.Errorf("%q is no id: write it as id=0x01", label)}
		}
		k.id = t[0].Value
		return k, nil
	}
	for _, suffix := range []string{".key", ".sec", ".pub"} {
		if l, ok := strings.CutSuffix(label, suffix); ok {
			label = l
			break
		}
	}
	if label == "" {
		return k, &usageError{err: errors.New("the key has no name: write TOKEN/LABEL or TOKEN/id=0x01")}
	}
	k.label = []byte(label)
	return k, nil
}

// by says whether a grant lets who use the key, and what else must be so.
func (k grantKey) by(g *grants.Grant, who grants.Caller) (conditions []string, ok bool) {
	if g.Unit != "" {
		who.Unit = g.Unit
		conditions = append(conditions, "it runs in unit "+g.Unit)
	}
	switch {
	case !g.For(who), k.token != "" && k.token != g.Token:
		return nil, false
	case k.label != nil && g.Label != nil && !bytes.Equal(k.label, g.Label), k.id != nil && g.ID != nil && !bytes.Equal(k.id, g.ID):
		return nil, false
	case k.id == nil && g.ID != nil:
		conditions = append(conditions, fmt.Sprintf("its id is 0x%x", g.ID))
	case k.label == nil && g.Label != nil:
		conditions = append(conditions, fmt.Sprintf("its label is %q", g.Label))
	}
	return conditions, true
}

// line is the beginning of a grant of the key.
func (k grantKey) line(who string) string {
	words := []string{"user=" + who, "token=" + k.token}
	if k.token == "" {
		words[1] = "token=TOKEN"
	}
	if k.id != nil {
		return strings.Join(append(words, fmt.Sprintf("id=0x%x", k.id)), " ")
	}
	return strings.Join(append(words, fmt.Sprint(p11.Attributes{{Type: p11.CKA_LABEL, Value: k.label}})), " ")
}
