package mountd

import (
	"bytes"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"
)

// metrics is the daemon's own registry: nothing of the library's default one,
// so that two daemons fit in one process.
type metrics struct{ registry *prometheus.Registry }

// newMetrics registers what is counted. stats is asked at each collection.
func newMetrics(d *Daemon, started time.Time) (*metrics, error) {
	m := &metrics{registry: prometheus.NewRegistry()}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "p11fs_info",
		Help:        "Version, cryptographic library and mode, as labels of the value 1.",
		ConstLabels: prometheus.Labels{"version": Version, "provider": d.conf.Provider, "mode": d.conf.Mode.String()},
	})
	info.Set(1)
	start := gauge("p11fs_start_time_seconds", "When the daemon started, in Unix seconds.",
		func() float64 { return float64(started.UnixNano()) / 1e9 })
	all := []prometheus.Collector{
		info, start,
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "p11fs_panics_total",
			Help: "Requests that ended in a panic and were answered EIO.",
		}, func() float64 { return float64(d.tree.Stats().Panics) }),
		gauge("p11fs_open_handles", "Open files that hold state.", func() float64 { return float64(d.tree.Stats().Handles) }),
		gauge("p11fs_slots", "Slots.", func() float64 { return float64(len(d.slots)) }),
		gauge("p11fs_tokens", "Slots with a token.", func() float64 { return float64(len(d.present())) }),
		gauge("p11fs_tokens_offline", "Tokens whose keys cannot be used now.", func() float64 {
			n := 0
			for _, s := range d.present() {
				if s.offline() != nil {
					n++
				}
			}
			return float64(n)
		}),
		gauge("p11fs_applications", "Applications: one a uid and POSIX session.",
			func() float64 { return float64(d.engine.Stats().Applications) }),
		gauge("p11fs_sessions", "Open sessions.", func() float64 { return float64(d.engine.Stats().Sessions) }),
		gauge("p11fs_session_objects", "Objects that end with their session.",
			func() float64 { return float64(d.engine.Stats().SessionObjects) }),
		gauge("p11fs_public_token_objects", "Public objects in the tokens.",
			func() float64 { return float64(d.engine.Stats().PublicObjects) }),
		gauge("p11fs_operations", "Cryptographic operations in progress.",
			func() float64 { return float64(d.engine.Stats().Operations) }),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}
	for _, c := range all {
		if err := m.registry.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	return m, nil
}

// text is the text of the file metrics, in Prometheus's exposition format.
// What cannot be collected is left out, with a comment that says why.
func (m *metrics) text() string {
	var b bytes.Buffer
	families, err := m.registry.Gather()
	if err != nil {
		fmt.Fprintf(&b, "# not complete: %s\n", oneLine(err.Error()))
	}
	for _, f := range families {
		_, _ = expfmt.MetricFamilyToText(&b, f) // a bytes.Buffer takes everything
	}
	return b.String()
}
