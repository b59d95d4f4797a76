package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"p11fs/p11"
	"p11fs/tokens/swtok"
)

func newMechanisms(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "mechanisms [NAME]",
		Short: "List the mechanisms, or tell all about one",
		Long: `List the mechanisms that tokens have on this machine: name, number, sizes of keys,
uses, and the words of the parameter. With NAME, such as aes-gcm or CKM_AES_GCM, tell
all about one. With --token, list those of a token that is mounted, whose daemon may
have another cryptographic library, or a policy.`,
		Example: `  p11fs mechanisms sha256-rsa-pkcs-pss`,
		Args:    takes(0, 1),
	}
	mount := mountFlag(c)
	token := c.Flags().String("token", "", "those that the mounted `TOKEN` has")
	asJSON := c.Flags().Bool("json", false, "print the list as a JSON array")
	completeFlag(c, "token", completeTokens(mount))
	c.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, m := range swtok.Mechanisms() {
			names = append(names, m.Type.Short())
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
	c.RunE = func(_ *cobra.Command, args []string) error {
		provider := swtok.LoadProvider(slog.New(slog.DiscardHandler))
		list := swtok.NewCrypto(provider, nil).Mechanisms()
		if *token != "" {
			var err error
			if list, err = mountedMechanisms(*mount, *token); err != nil {
				return err
			}
		}
		if len(args) == 0 {
			return listMechanisms(s, list, *asJSON)
		}
		if *asJSON {
			return &usageError{err: errors.New("a list is printed as JSON: leave the name out, or --json")}
		}
		t, err := p11.ParseMechanismType(args[0])
		if err != nil {
			return &usageError{err: withLike(err, args[0], list)}
		}
		if i := slices.IndexFunc(list, func(m p11.MechanismInfo) bool { return m.Type == t }); i >= 0 {
			tellMechanism(s, list[i])
			return nil
		}
		return absentMechanism(provider, *token, t)
	}
	return c
}

// mountedMechanisms reads those of a token that is mounted.
func mountedMechanisms(mount, token string) ([]p11.MechanismInfo, error) {
	t, err := findTree(mount, os.Getenv)
	if err == nil {
		err = t.token(token)
	}
	if err != nil {
		return nil, err
	}
	text, err := t.read(token, "mechanisms")
	if err != nil {
		return nil, err
	}
	known := swtok.Mechanisms()
	var list []p11.MechanismInfo
	for line := range strings.Lines(text) {
		var name string
		var m p11.MechanismInfo
		if _, err := fmt.Sscan(line, &name, &m.MinKeySize, &m.MaxKeySize); err != nil {
			return nil, fmt.Errorf("the token's list of mechanisms: %w", err)
		}
		if m.Type, err = p11.ParseMechanismType(name); err != nil {
			return nil, err
		}
		uses := strings.Split(strings.Fields(line)[3], ",")
		for _, k := range known { // of which a token has some uses
			if k.Type != m.Type {
				continue
			}
			for bit := p11.Flags(1); bit != 0; bit <<= 1 {
				if one := (p11.MechanismInfo{Flags: k.Flags & bit}).Uses(); len(one) == 1 && slices.Contains(uses, one[0]) {
					m.Flags |= bit
				}
			}
		}
		list = append(list, m)
	}
	return list, nil
}

// withLike is the error of a mechanism that nobody knows, with those that have the word in
// their names.
func withLike(err error, word string, list []p11.MechanismInfo) error {
	word = strings.ReplaceAll(strings.TrimPrefix(strings.ToLower(word), "ckm_"), "_", "-")
	var like []string
	for _, m := range list {
		if name := m.Type.Short(); strings.Contains(name, word) {
			like = append(like, name)
		}
	}
	switch {
	case len(like) == 0 && strings.HasSuffix(err.Error(), "?"): // it suggests one
		return err
	case len(like) == 0:
		return fmt.Errorf("%w: p11fs mechanisms lists those that there are", err)
	}
	return fmt.Errorf("%w: name one of %s", err, strings.Join(like, ", "))
}

// absentMechanism says why a mechanism is not there.
func absentMechanism(p swtok.Provider, token string, t p11.MechanismType) error {
	if token != "" {
		return fmt.Errorf("the token %s has no %s: p11fs status says what its daemon lacks", token, t.Short())
	}
	for _, l := range swtok.Lacking(p) {
		if l.Type == t {
			return fmt.Errorf("%s is not there on this machine (%s): p11fs mechanisms lists those that are", t.Short(), l.Why)
		}
	}
	return errors.New(t.Short() + " is not there: p11fs mechanisms lists those that are")
}

// A listed is what a list tells of a mechanism.
type listed struct {
	Name       string   `json:"name"`
	Number     uint64   `json:"number"`
	Min        uint64   `json:"min,omitempty"` // size of keys
	Max        uint64   `json:"max,omitempty"`
	Unit       string   `json:"unit,omitempty"`
	Uses       []string `json:"uses"`
	Parameters []string `json:"parameters,omitempty"`
}

// listMechanisms prints a line for each.
func listMechanisms(s streams, list []p11.MechanismInfo, asJSON bool) error {
	if asJSON {
		all := []listed{}
		for _, m := range list {
			one := listed{Name: m.Type.Short(), Number: uint64(m.Type), Min: m.MinKeySize, Max: m.MaxKeySize, Uses: m.Uses()}
			if m.MaxKeySize > 0 {
				one.Unit = m.SizeUnit()
			}
			for _, w := range m.Type.ParamWords() {
				one.Parameters = append(one.Parameters, w.Name)
			}
			all = append(all, one)
		}
		return printJSON(s, all)
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	for _, m := range list {
		fmt.Fprintf(w, "%s\t%#x\t%s\t%s\t%s\n", m.Type.Short(), uint64(m.Type), sizes(m), strings.Join(m.Uses(), ","), m.Type.Takes())
	}
	return w.Flush()
}

// sizes are those of the keys of a mechanism.
func sizes(m p11.MechanismInfo) string {
	switch {
	case m.MaxKeySize == 0:
		return "-"
	case m.MinKeySize == m.MaxKeySize:
		return fmt.Sprintf("%d %s", m.MinKeySize, m.SizeUnit())
	}
	return fmt.Sprintf("%d-%d %s", m.MinKeySize, m.MaxKeySize, m.SizeUnit())
}

// tellMechanism prints all about one.
func tellMechanism(s streams, m p11.MechanismInfo) {
	facts, _ := p11.MechanismFacts(m.Type)
	line := func(name, text string) { fmt.Fprintf(s.out, "%-11s %s\n", name, text) }
	line("name", m.Type.Short()+" ("+m.Type.String()+")")
	line("number", fmt.Sprintf("%#x", uint64(m.Type)))
	line("uses", strings.Join(m.Uses(), ", "))
	line("keys", keysText(facts))
	line("sizes", sizes(m))
	name := "parameters"
	words := m.Type.ParamWords()
	for _, w := range words {
		line(name, w.Name+"= "+aboutWord(w))
		name = ""
	}
	if len(words) == 0 {
		line(name, strings.ReplaceAll(m.Type.Takes(), "param=", "param= all of it, as bytes"))
	}
	line("standard", m.Type.Chapter())
	name = "example"
	for text := range strings.Lines(example(m)) {
		line(name, strings.TrimSpace(text))
		name = ""
	}
}

// keysText names the types of keys that a mechanism uses or makes.
func keysText(f p11.Facts) string {
	var names []string
	for _, kt := range f.KeyTypes {
		names = append(names, kt.Short())
	}
	return cmp.Or(strings.Join(names, ", "), "-")
}

// aboutWord says what a word of a parameter may be, and what stands for it.
func aboutWord(w p11.ParamWord) string {
	text := w.Takes
	if w.About != "" {
		text = strings.TrimPrefix(text+"; "+w.About, "; ")
	}
	switch {
	case w.Needed:
		return text + "; must be given"
	case w.Absent != "":
		return text + "; if absent, " + w.Absent
	}
	return text
}
