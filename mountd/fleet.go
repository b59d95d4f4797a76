package mountd

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"p11fs/tokens"
)

// maxFleet is how long status and metrics wait for members that do not answer.
const maxFleet = time.Second

// A fleetMemory is what fleets have told, by the token's name: whoever reads status, however
// often, has each be asked once a second.
type fleetMemory struct {
	mu sync.Mutex // held while one is asked; guards by
	by map[string]toldFleet
}

type toldFleet struct {
	tokens.Fleet
	at time.Time
}

// fleet is how the fleet of a slot's token is; ok is false of one that has none.
func (d *Daemon) fleet(s *slot) (f tokens.Fleet, ok bool) {
	t, ok := s.token.(tokens.Fellow)
	if !ok {
		return f, false
	}
	d.fleets.mu.Lock()
	defer d.fleets.mu.Unlock()
	if told, ok := d.fleets.by[s.Place.Name]; ok && time.Since(told.at) < maxFleet {
		return told.Fleet, true
	}
	ctx, cancel := context.WithTimeout(context.Background(), maxFleet)
	defer cancel()
	f = t.Fleet(ctx)
	if d.fleets.by == nil {
		d.fleets.by = make(map[string]toldFleet)
	}
	d.fleets.by[s.Place.Name] = toldFleet{f, time.Now()}
	return f, true
}

// membersUp is how many members answer, with nothing wrong.
func membersUp(f tokens.Fleet) (n int) {
	for _, m := range f.Members {
		if m.Wrong == "" {
			n++
		}
	}
	return n
}

// fleetLines are those of status about the fleet of a token. Which machines there are tells
// root and the owner of the mount.
func (d *Daemon) fleetLines(s *slot, owner bool) (lines []string) {
	f, ok := d.fleet(s)
	if !ok {
		return nil
	}
	add := func(format string, args ...any) { lines = append(lines, oneLine(fmt.Sprintf(format, args...))) }
	behind, hosts := "unknown", "unknown" // while no member answers
	if f.Lag >= 0 {
		behind = strconv.FormatInt(f.Lag, 10)
	}
	if f.Hosts != nil {
		hosts = strconv.Itoa(len(f.Hosts))
	}
	add("fleet %s: change %d, revision %d, behind %s, lease %v, hosts %s, members %d of %d", s.Place.Name,
		f.Changes, f.Revision, behind, f.Lease.Round(time.Second/10), hosts, membersUp(f), len(f.Members))
	if !owner {
		return lines
	}
	for _, m := range f.Members {
		if m.Wrong != "" {
			add("member %s: %s wrong: %s"+tokens.ToMend+"%s", s.Place.Name, m.Address, m.Wrong, m.Mend)
		} else {
			add("member %s: %s good: %s", s.Place.Name, m.Address, m.State)
		}
	}
	for _, h := range f.Hosts {
		more := ""
		if h.Revision > 0 { // else nobody has asked yet what it has
			more = fmt.Sprintf(", revision %d", h.Revision)
		}
		if h.Here {
			more += ", this machine"
		}
		if h.Earlier {
			more += ", was killed, unless two machines have its name: it goes when its lease ends"
		}
		add("host %s: %s %s since %s%s", s.Place.Name, h.ID, h.Name, h.Since.UTC().Format(time.RFC3339), more)
	}
	return lines
}

// A fleetCollector collects what is known of the fleets of tokens.
type fleetCollector struct{ d *Daemon }

// A fleetNumber is a metric, and its value, which is negative while it is not known.
type fleetNumber struct {
	desc  *prometheus.Desc
	value func(tokens.Fleet) float64
}

func fleetNumbers() []fleetNumber {
	number := func(name, help string, value func(tokens.Fleet) float64) fleetNumber {
		return fleetNumber{prometheus.NewDesc("p11fs_fleet_"+name, help, []string{"token"}, nil), value}
	}
	return []fleetNumber{
		number("revision", "Revision of etcd up to which this machine has the token.", func(f tokens.Fleet) float64 { return float64(f.Revision) }),
		number("lag_revisions", "Revisions that this machine is behind.", func(f tokens.Fleet) float64 { return float64(f.Lag) }),
		number("lease_seconds", "How long this machine would use keys without contact.", func(f tokens.Fleet) float64 { return f.Lease.Seconds() }),
		number("hosts", "Machines that have the token now.", func(f tokens.Fleet) float64 {
			if f.Hosts == nil {
				return -1
			}
			return float64(len(f.Hosts))
		}),
		number("members", "Members of etcd that the configuration names.", func(f tokens.Fleet) float64 { return float64(len(f.Members)) }),
		number("members_good", "Members of etcd that answer with nothing wrong.", func(f tokens.Fleet) float64 { return float64(membersUp(f)) }),
	}
}

// Describe is prometheus.Collector.
func (c fleetCollector) Describe(to chan<- *prometheus.Desc) {
	for _, n := range fleetNumbers() {
		to <- n.desc
	}
}

// Collect is prometheus.Collector.
func (c fleetCollector) Collect(to chan<- prometheus.Metric) {
	numbers := fleetNumbers()
	for _, s := range c.d.present() {
		f, ok := c.d.fleet(s)
		if !ok {
			continue
		}
		for _, n := range numbers {
			if value := n.value(f); value >= 0 {
				to <- prometheus.MustNewConstMetric(n.desc, prometheus.GaugeValue, value, s.Place.Name)
			}
		}
	}
}
