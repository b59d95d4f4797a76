package mountd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
)

// Version is the version of p11fs.
const Version = "0.1.0"

// status is the text of the file status: one fact a line, its name first. It
// tells what every user of the mount may know, so private objects and other
// people's logins are not in it. Which files of objects are damaged it tells root and the
// owner of the tree: the names of files count the objects.
func (d *Daemon) status(owner bool) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%s %s\n", name, fmt.Sprintf(format, args...))
	}
	st := d.engine.Stats()
	line("version", "%s", Version)
	line("provider", "%s", d.conf.Provider)
	line("mode", "%s", d.conf.Mode)
	line("mount", "%s", d.conf.Paths.Mount)
	line("uptime", "%s", d.now().Sub(d.started).Truncate(time.Second))
	if len(d.selfTestFailed) == 0 {
		line("self-test", "passed in %s", time.Duration(d.selfTested.Load()).Round(time.Microsecond))
	} else {
		line("self-test", "failed: %s", strings.Join(d.selfTestFailed, " "))
	}
	line("slot-daemon", "%s", d.slotDaemonState())
	line("slots", "%d", len(d.all()))
	line("tokens", "%d", len(d.present()))
	line("policy", "%s", d.policyState())
	line("grants", "%s", d.grantsState(owner))
	for _, l := range d.conf.Lacking() {
		line("lacks", "%s", l)
	}
	line("applications", "%d", st.Applications)
	line("sessions", "%d", st.Sessions)
	for _, s := range d.all() {
		switch {
		case s.token != nil:
			line("store", "%s %s", s.Place.Name, s.Place.Dir)
			if slot, err := d.engine.SlotNamed(s.Place.Name); err == nil {
				if since, ok := slot.Held(); ok {
					line("unlocked", "%s since %s", s.Place.Name, since.UTC().Format(time.RFC3339))
				}
			}
			if why, mend := s.weak(); why != "" {
				line("weak", "%s: %s: %s", s.Place.Name, why, mend)
			}
			var texts []string
			if s.offline() == nil { // which is found out by asking
				texts = s.describe()
			}
			if why := s.away(); why != "" {
				line("offline", "%s: %s", s.Place.Name, why)
				texts = nil
			}
			for _, text := range texts {
				line("device", "%s: %s", s.Place.Name, oneLine(text))
			}
			for _, text := range d.fleetLines(s, owner) {
				fmt.Fprintln(&b, text)
			}
			for _, text := range s.damage(owner) {
				line("damaged", "%s %s", s.Place.Name, text)
			}
		case s.err != nil:
			why := s.err.Error()
			if errors.Is(s.err, tokens.ErrAway) {
				why += tokens.ToMend + p11.AdviceOf(s.err)
			}
			line("store", "%s failed: %s", s.label(), oneLine(why))
		default:
			line("store", "%s absent: %s", s.label(), s.Why)
		}
	}
	return b.String()
}

// maxDescribe is how long status waits for a device that is at other work.
const maxDescribe = time.Second

// describe is what the token's device says of itself.
func (s *slot) describe() []string {
	t, ok := s.token.(tokens.Describer)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), maxDescribe)
	defer cancel()
	return t.Describe(ctx)
}

// maxDamage is how many damaged files of a token the status names.
const maxDamage = 20

// damage says which files of the slot's token are damaged, a line each.
func (s *slot) damage(owner bool) (lines []string) {
	i, ok := s.token.(tokens.Inspector)
	if !ok {
		return nil
	}
	all := i.Damaged()
	if len(all) > 0 && !owner {
		return []string{"files; root and the owner of the mount see which"}
	}
	for n, file := range all {
		if n == maxDamage {
			return append(lines, fmt.Sprintf("%d more files", len(all)-n))
		}
		lines = append(lines, file.File+": "+oneLine(file.Why))
	}
	return lines
}

// Lacking says in a line for each reason which mechanisms the tokens have not on this
// machine, for other reasons than a policy's.
func (c Config) Lacking() []string {
	var whys []string
	names := map[string][]string{} // by the reason
	for _, k := range c.Kinds {
		for _, l := range k.Lacking {
			why := k.Name + ": " + l.Why
			if names[why] == nil {
				whys = append(whys, why)
			}
			names[why] = append(names[why], l.Type.Short())
		}
	}
	for i, why := range whys {
		whys[i] = why + ", for " + strings.Join(names[why], " ")
	}
	return whys
}

// oneLine keeps a text on one line.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
