package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"p11fs/locks"
	"p11fs/mountd"
	"p11fs/tokens"
)

// hidden returns the token directories where whoever asks may not look into them.
func (e Examination) hidden() string {
	if _, err := os.ReadDir(e.Paths.Data); errors.Is(err, fs.ErrPermission) {
		return e.Paths.Data
	}
	return ""
}

// tokens looks for tokens that no daemon will open.
func (e Examination) tokens() Finding {
	f := Finding{Check: "tokens"}
	slots, _, err := e.Slots()
	if err != nil {
		return f.good("not known without a configuration") // of which another check tells
	}
	if dir := e.hidden(); dir != "" {
		return f.good("not seen: only root and the group %s may look into %s", mountd.Group, dir)
	}
	var found []string
	served := e.served()
	for _, s := range slots {
		if s.Kind == nil {
			continue
		}
		if _, err := os.Stat(s.Place.Dir); err == nil {
			found = append(found, e.called(s, served))
		}
		if s.Kind.Check != nil {
			if wrong, mend := s.Kind.Check(s.Place); wrong != "" {
				return f.wrong(mend, "%s: %s", e.called(s, served), wrong)
			}
		}
		p, st := s.Place, e.state(s) // what keeps a token closed was looked for
		switch {
		case st.RolledBack:
			f.Weak = append(f.Weak, fmt.Sprintf("%s is %s in the format of 3.12, as it was when that was rolled back: %s migrates anew, and --forget-backup with it removes that", st.Unfinished, p.Name, e.migrate(p.Name)))
		case st.Unfinished != "":
			return f.wrong(e.migrate(p.Name)+" (or with --forget-backup, to remove it)", "%s is a migration of %s that did not end", st.Unfinished, p.Name)
		}
		if s.Kind.Caveats != nil {
			f.Weak = append(f.Weak, s.Kind.Caveats(p)...)
		}
		if st.CountedOut != "" {
			return f.wrong("rm "+shellWord(st.CountedOut)+" (the counter then goes on at the time)", "the counter of %s has no number left: its file says more than any count comes to", p.Name)
		}
		if st.Backup != "" {
			f.Weak = append(f.Weak, fmt.Sprintf("%s is what %s was before its migration, with weak hashes of its PINs: %s --forget-backup", st.Backup, p.Name, e.migrate(p.Name)))
		}
		if st.Replaced != "" {
			f.Weak = append(f.Weak, fmt.Sprintf("%s is what %s was before a backup replaced it: rm -r %[1]s", st.Replaced, p.Name))
		}
	}
	return f.good("%s", strings.Join(append([]string{fmt.Sprintf("%d found", len(found))}, found...), "; "))
}

// called is how a token is called: by its name, its label, and the number of its slot, which
// is that of the daemon that serves it, if one does, and else the one that it will have.
func (e Examination) called(s mountd.Slot, served served) string {
	words := []string{}
	if st := e.state(s); st.Initialized {
		words = append(words, strconv.Quote(st.Label))
	}
	switch number, ok := served[s.Place.Dir]; {
	case ok:
		words = append(words, "slot "+number)
	case served != nil:
		words = append(words, "not served")
	default:
		words = append(words, fmt.Sprintf("slot %d", uint64(s.ID)))
	}
	return fmt.Sprintf("%s (%s)", s.Place.Name, strings.Join(words, ", "))
}

// state is what stands in the directory of a slot's token, as far as that is known.
func (e Examination) state(s mountd.Slot) tokens.DirectoryState {
	if s.Kind == nil || s.Kind.Upkeep == nil {
		return tokens.DirectoryState{}
	}
	p := s.Place
	p.Log, p.Now, p.Group = e.Log, e.Now, locks.NoGroup
	st, _ := s.Kind.Upkeep(p).State()
	return st
}

// migrate is the command that migrates a token.
func (e Examination) migrate(token string) string {
	token = shellWord(token)
	if e.Mode == mountd.System {
		return "p11fs migrate --system " + token
	}
	return "p11fs migrate " + token
}

// strength tells of tokens that could be kept better.
func (e Examination) strength() Finding {
	f := Finding{Check: "strength of the tokens"}
	slots, _, err := e.Slots()
	if err != nil || e.hidden() != "" {
		return f.good("not known")
	}
	for _, s := range slots {
		if s.Kind == nil || s.Kind.Weak == nil {
			continue
		}
		why, mend := s.Kind.Weak(s.Place)
		if why == "" {
			continue
		}
		if e.Mode == mountd.System {
			mend += " (once no program with the library of 3.8 uses it)"
		}
		f.Weak = append(f.Weak, fmt.Sprintf("%s: %s: %s", s.Place.Name, why, mend))
	}
	if f.Weak != nil {
		return f
	}
	return f.good("no token could be kept in a stronger way")
}
