//go:build ceph

package ceph

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// pool is one RBD pool of the configuration.
type pool struct {
	name string
	conf poolConfig
	id   string

	mu sync.Mutex
	// away is what the pool holds that is not osds's to promise: the trash, and
	// images of others. Counted in the background.
	away model.Bytes
	// counts is what away was found from. Only the background has it.
	counts map[string]counted
	// adopted are volumes that rebuild found last, to be looked at again.
	adopted []string
	// last is the pool as it was shown last.
	last   drivers.Pool
	lastAt time.Time
	// size is how many copies of each byte there are; sizeAt when it was read.
	size   float64
	sizeAt time.Time
}

// Times of the pools' figures.
const (
	sizeEvery = time.Minute     // how often the number of copies is read
	roomAge   = 5 * time.Second // how old figures may be that a create is checked by
)

// command asks the monitors.
func (l *link) command(args map[string]any, into any) error {
	args["format"] = "json"
	b, err := json.Marshal(args)
	if err != nil {
		return err
	}
	out, _, err := l.conn.MonCommand(b)
	if err != nil {
		return err
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(out, into)
}

// clusterUse is what the monitors' "df detail" says.
type clusterUse struct {
	Pools []struct {
		Name  string  `json:"name"`
		ID    int64   `json:"id"`
		Stats poolUse `json:"stats"`
	} `json:"pools"`
}

type poolUse struct {
	Stored     int64 `json:"stored"`
	Used       int64 `json:"bytes_used"`
	MaxAvail   int64 `json:"max_avail"`
	QuotaBytes int64 `json:"quota_bytes"`
}

func (l *link) use() (map[string]poolUse, error) {
	var u clusterUse
	if err := l.command(map[string]any{"prefix": "df", "detail": "detail"}, &u); err != nil {
		return nil, fail("the pools' statistics", err)
	}
	m := make(map[string]poolUse, len(u.Pools))
	for _, p := range u.Pools {
		m[p.Name] = p.Stats
	}
	return m, nil
}

// Pools lists the pools with the cluster's own figures.
func (d *Driver) Pools(ctx context.Context) ([]drivers.Pool, error) {
	return do(ctx, d, "pools", nil, func(_ context.Context, l *link) ([]drivers.Pool, error) {
		use, err := l.use()
		if err != nil {
			return nil, err
		}
		out := make([]drivers.Pool, 0, len(d.names))
		for _, n := range d.names {
			out = append(out, d.pools[n].show(l, use))
		}
		return out, nil
	})
}

// show gives the pool by the cluster's figures.
func (p *pool) show(l *link, use map[string]poolUse) drivers.Pool {
	at := p.name
	if p.conf.DataPool != "" {
		at = p.conf.DataPool
	}
	u, ok := use[at]
	p.mu.Lock()
	defer p.mu.Unlock()
	out := drivers.Pool{ID: p.id, Name: p.name, OverProvisioning: p.conf.OverProvisioningRatio,
		AvailabilityZone: p.conf.AvailabilityZone, StorageType: p.conf.StorageType, Description: p.conf.Description,
		MultiAttach: p.conf.MultiAttach, Extras: p.conf.Extras}
	if !ok || use[p.name] == (poolUse{}) && at == p.name && !ok {
		out.Unusable = "the cluster has no pool " + at
		return out
	}
	if time.Since(p.sizeAt) > sizeEvery {
		if n, err := l.copies(at); err == nil {
			p.size, p.sizeAt = n, time.Now()
		}
	}
	free := u.MaxAvail
	if u.QuotaBytes > 0 {
		free = min(free, u.QuotaBytes-u.Stored)
	}
	out.Free = model.Bytes(max(free, 0))
	out.Total = out.Free + max(model.Bytes(u.Stored)-p.away, 0)
	if out.Free == 0 {
		out.Unusable = "the pool is full"
	}
	adv := make(map[string]any, len(p.conf.Extras.Advanced)+3)
	for k, v := range p.conf.Extras.Advanced {
		adv[k] = v
	}
	if p.size > 0 {
		adv["copies"] = p.size
	}
	out.Extras.Advanced = adv
	p.last, p.lastAt = out, time.Now()
	return out
}

// copies says how many bytes of disk each byte of a pool takes.
func (l *link) copies(pool string) (float64, error) {
	var r struct {
		Size    float64 `json:"size"`
		Profile string  `json:"erasure_code_profile"`
	}
	if err := l.command(map[string]any{"prefix": "osd pool get", "pool": pool, "var": "size"}, &r); err != nil {
		return 0, err
	}
	if err := l.command(map[string]any{"prefix": "osd pool get", "pool": pool, "var": "erasure_code_profile"}, &r); err != nil {
		return r.Size, nil // a replicated pool has none
	}
	var ec struct {
		K float64 `json:"k,string"`
		M float64 `json:"m,string"`
	}
	if err := l.command(map[string]any{"prefix": "osd erasure-code-profile get", "name": r.Profile}, &ec); err != nil || ec.K == 0 {
		return r.Size, err
	}
	return (ec.K + ec.M) / ec.K, nil
}

// room refuses a volume that is larger than all that the pool may promise, and
// any in a pool that is full. What has been promised already is the ledger's
// affair.
func (s *space) room(_ context.Context, size model.Bytes) error {
	s.mu.Lock()
	p, at := s.last, s.lastAt
	s.mu.Unlock()
	if time.Since(at) > roomAge {
		use, err := s.l.use()
		if err != nil {
			return err
		}
		p = s.show(s.l, use)
	}
	if p.Unusable != "" && p.Total == 0 {
		return model.Errorf(model.KindUnavailable, "pool %s: %s", s.name, p.Unusable)
	}
	if p.Free == 0 {
		return model.Errorf(model.KindExhausted, "pool %s is full", s.name)
	}
	if limit := float64(p.Total) * max(p.OverProvisioning, 1); float64(size) > limit {
		return model.Errorf(model.KindExhausted, "pool %s may promise %s, less than %s", s.name, model.Bytes(limit), size)
	}
	return nil
}
