package mountd

import (
	"fmt"
	"strings"
	"time"
)

// Version is the version of p11fs.
const Version = "0.1.0"

// status is the text of the file status: one fact a line, its name first. It
// tells what every user of the mount may know, so private objects and other
// people's logins are not in it.
func (d *Daemon) status() string {
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
		line("self-test", "passed in %s", d.selfTested.Round(time.Microsecond))
	} else {
		line("self-test", "failed: %s", strings.Join(d.selfTestFailed, " "))
	}
	line("slot-daemon", "%s", d.slotDaemonState())
	line("slots", "%d", len(d.slots))
	line("tokens", "%d", len(d.present()))
	line("policy", "%s", d.policyState())
	for _, l := range d.conf.Lacking() {
		line("lacks", "%s", l)
	}
	line("applications", "%d", st.Applications)
	line("sessions", "%d", st.Sessions)
	for _, s := range d.slots {
		switch {
		case s.token != nil:
			line("store", "%s %s", s.Place.Name, s.Place.Dir)
			if err := s.offline(); err != nil {
				line("offline", "%s: %s", s.Place.Name, oneLine(err.Error()))
			}
		case s.err != nil:
			line("store", "%s failed: %s", s.label(), oneLine(s.err.Error()))
		default:
			line("store", "%s absent: %s", s.label(), s.Why)
		}
	}
	return b.String()
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
