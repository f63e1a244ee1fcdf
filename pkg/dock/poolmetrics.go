package dock

import (
	"sort"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/osds-io/osds/pkg/dock/dockpb"
)

// maxPoolMetrics bounds how many pools of a dock have metrics of their own.
const maxPoolMetrics = 1000

// poolCollector shows the pools as they were read last, when it is asked.
type poolCollector struct {
	d                                                        *Dock
	total, free, allocated, up, fill, warn, stop, waterLevel *prometheus.Desc
}

func newPoolCollector(d *Dock) *poolCollector {
	desc := func(name, help string, more ...string) *prometheus.Desc {
		return prometheus.NewDesc("osds_dock_pool_"+name, help, append([]string{"pool", "name", "backend"}, more...), nil)
	}
	return &poolCollector{
		d:         d,
		total:     desc("total_bytes", "What osds may use of the pool."),
		free:      desc("free_bytes", "What of it is free."),
		allocated: desc("allocated_bytes", "What of it is taken."),
		up:        desc("up", "1 if something can be placed in the pool."),
		fill:      desc("fill_ratio", "How full a part of the pool is that can run full by itself, 0 to 1.", "of"),
		warn:      desc("fill_warn_ratio", "The fill from which the part is to be looked after.", "of"),
		stop:      desc("fill_stop_ratio", "The fill from which nothing new is placed.", "of"),

		waterLevel: desc("watermark", "What the fill has reached: 0 none, 1 warn, 2 stop.", "of"),
	}
}

// Describe is part of prometheus.Collector.
func (c *poolCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.total, c.free, c.allocated, c.up, c.fill, c.warn, c.stop, c.waterLevel} {
		ch <- d
	}
}

// Collect is part of prometheus.Collector.
func (c *poolCollector) Collect(ch chan<- prometheus.Metric) {
	names := make([]string, 0, len(c.d.backends))
	for n := range c.d.backends {
		names = append(names, n)
	}
	sort.Strings(names)
	n := 0
	for _, b := range names {
		for _, p := range c.d.backends[b].snapshot() {
			if n++; n > maxPoolMetrics {
				return
			}
			c.pool(ch, p)
		}
	}
}

func (c *poolCollector) pool(ch chan<- prometheus.Metric, p *dockpb.Pool) {
	gauge := func(d *prometheus.Desc, v float64, more ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{p.GetId(), p.GetName(), p.GetBackend()}, more...)...)
	}
	gauge(c.total, float64(p.GetTotal()))
	gauge(c.free, float64(p.GetFree()))
	gauge(c.allocated, float64(max(p.GetTotal()-p.GetFree(), 0)))
	up := 0.0
	if p.GetUnusable() == "" {
		up = 1
	}
	gauge(c.up, up)
	for _, f := range dockpb.ToFills(p.GetFills()) {
		gauge(c.fill, f.Used, f.Of)
		if f.Warn > 0 {
			gauge(c.warn, f.Warn, f.Of)
		}
		if f.Stop > 0 {
			gauge(c.stop, f.Stop, f.Of)
		}
		gauge(c.waterLevel, float64(f.Level()), f.Of)
	}
}
