package api

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/osds-io/osds/pkg/model"
)

// maxLabelled bounds how many pools and docks have metrics of their own.
const maxLabelled = 1000

// storeCollector reads the store when the metrics are asked for, so that nothing
// has to be counted along the way.
type storeCollector struct {
	s     *Server
	descs map[string]*prometheus.Desc
}

func newStoreCollector(s *Server) *storeCollector {
	c := &storeCollector{s: s, descs: map[string]*prometheus.Desc{}}
	add := func(name, help string, labels ...string) {
		c.descs[name] = prometheus.NewDesc("osds_"+name, help, labels, nil)
	}
	add("tasks", "Tasks in progress.", "resource", "kind", "state")
	add("task_oldest_seconds", "Age of the oldest task in progress.", "resource", "kind")
	add("task_idle_seconds", "Longest time that a task in progress has not been seen to advance.", "resource", "kind")
	add("tasks_ended_total", "Tasks that ended since this process began, as it saw them.", "resource", "kind", "state")
	add("records", "Records in the store.", "resource")
	add("ledger_reserved_bytes", "What is promised in a pool.", "pool", "name")
	add("ledger_limit_bytes", "What may be promised in a pool.", "pool", "name")
	add("ledger_total_bytes", "What may be used of a pool's backend.", "pool", "name")
	add("ledger_free_bytes", "What a pool's backend says is free.", "pool", "name")
	add("pool_allocated_bytes", "What is taken of a pool's backend.", "pool", "name")
	add("pool_fill_ratio", "How full a part of a pool is that can run full by itself, 0 to 1.", "pool", "name", "of")
	add("pool_watermark", "What the fill has reached: 0 none, 1 warn, 2 stop.", "pool", "name", "of")
	add("pool_up", "1 if a pool is available.", "pool", "name")
	add("dock_up", "1 if a dock is available.", "dock", "name")
	add("cache_revision", "The store's revision that the cache has reached.")
	add("cache_lag_seconds", "How long ago the cache heard from the store.")
	add("store_txns_total", "Transactions of the store since this process began.")
	add("store_changes_total", "Changes that the transactions carried.")
	add("event_streams", "Event streams that are open.")
	add("leader_epoch", "Epoch of the leader; 0 if unknown.")
	add("leading", "1 if this process runs the controllers.")
	return c
}

// Describe is part of prometheus.Collector.
func (c *storeCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect is part of prometheus.Collector.
func (c *storeCollector) Collect(ch chan<- prometheus.Metric) {
	c.tasks(ch)
	c.pools(ch)
	st := c.s.Store
	for res, n := range map[model.Resource]int{
		model.ResDock: st.Docks.Len(), model.ResPool: st.Pools.Len(), model.ResProfile: st.Profiles.Len(), model.ResHost: st.Hosts.Len(),
		model.ResVolume: st.Volumes.Len(), model.ResSnapshot: st.Snapshots.Len(), model.ResAttachment: st.Attachments.Len(),
		model.ResGroup: st.Groups.Len(), model.ResDebt: st.Debts.Len(),
	} {
		c.gauge(ch, "records", float64(n), string(res))
	}
	stats := st.Stats()
	c.counter(ch, "store_txns_total", float64(stats.Txns))
	c.counter(ch, "store_changes_total", float64(stats.Changes))
	c.gauge(ch, "cache_revision", float64(st.Rev()))
	c.gauge(ch, "cache_lag_seconds", st.Lag().Seconds())
	c.gauge(ch, "event_streams", float64(c.s.streams.open()))
	var epoch, leading float64
	if l := c.s.Leader(); l != nil {
		epoch, leading = float64(l.Epoch), oneIf(l.Instance == st.Instance())
	}
	c.gauge(ch, "leader_epoch", epoch)
	c.gauge(ch, "leading", leading)
}

func (c *storeCollector) tasks(ch chan<- prometheus.Metric) {
	now := c.s.now()
	count := map[taskKey]int{}
	oldest, idle := map[taskKey]time.Time{}, map[taskKey]time.Duration{}
	c.s.tasks.each(func(t task) {
		k := t.rec.CurrentTask()
		count[taskKey{t.rec.Res(), k.Kind, t.state(now)}]++
		key := taskKey{res: t.rec.Res(), kind: k.Kind}
		if at, ok := oldest[key]; !ok || k.CreatedAt.Before(at) {
			oldest[key] = k.CreatedAt
		}
		idle[key] = max(idle[key], k.Idle(now))
	})
	for k, n := range count {
		c.gauge(ch, "tasks", float64(n), string(k.res), string(k.kind), string(k.state))
	}
	for k, at := range oldest {
		c.gauge(ch, "task_oldest_seconds", now.Sub(at).Seconds(), string(k.res), string(k.kind))
	}
	for k, d := range idle {
		c.gauge(ch, "task_idle_seconds", d.Seconds(), string(k.res), string(k.kind))
	}
	for k, n := range c.s.tasks.ends() {
		c.counter(ch, "tasks_ended_total", float64(n), string(k.res), string(k.kind), string(k.state))
	}
}

func (c *storeCollector) pools(ch chan<- prometheus.Metric) {
	st := c.s.Store
	for i, p := range st.Pools.All() {
		if i == maxLabelled {
			break
		}
		var reserved model.Bytes
		if a, ok := st.Ledger.Get(p.ID); ok {
			reserved = a.Reserved
		}
		total, free, status := c.s.poolFigures(p)
		c.gauge(ch, "ledger_reserved_bytes", float64(reserved), p.ID, p.Name)
		c.gauge(ch, "ledger_limit_bytes", float64(p.Limit()), p.ID, p.Name)
		c.gauge(ch, "ledger_total_bytes", float64(total), p.ID, p.Name)
		c.gauge(ch, "ledger_free_bytes", float64(free), p.ID, p.Name)
		c.gauge(ch, "pool_allocated_bytes", float64(max(total-free, 0)), p.ID, p.Name)
		if c.s.PoolFills != nil {
			for _, f := range c.s.PoolFills(p) {
				c.gauge(ch, "pool_fill_ratio", f.Used, p.ID, p.Name, f.Of)
				c.gauge(ch, "pool_watermark", float64(f.Level()), p.ID, p.Name, f.Of)
			}
		}
		c.gauge(ch, "pool_up", oneIf(status == model.StatusAvailable), p.ID, p.Name)
	}
	for i, d := range st.Docks.All() {
		if i == maxLabelled {
			break
		}
		c.gauge(ch, "dock_up", oneIf(d.Status == model.StatusAvailable), d.ID, d.Name)
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (c *storeCollector) gauge(ch chan<- prometheus.Metric, name string, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(c.descs[name], prometheus.GaugeValue, v, labels...)
}

func (c *storeCollector) counter(ch chan<- prometheus.Metric, name string, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(c.descs[name], prometheus.CounterValue, v, labels...)
}
