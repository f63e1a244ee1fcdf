package client

import (
	"encoding/json"
	"sync"

	"github.com/osds-io/osds/pkg/model"
)

// maxProfiles bounds the profiles whose text is kept.
const maxProfiles = 256

// profileCache keeps the text of profiles, by id and revision: thousands of
// creates come with the same few.
type profileCache struct {
	mu sync.Mutex
	m  map[profileKey][]byte
}

type profileKey struct {
	id  string
	rev int64
}

func (c *profileCache) encode(p *model.Profile) ([]byte, error) {
	if p == nil {
		return nil, nil
	}
	key := profileKey{p.ID, p.Rev}
	if key.rev > 0 && key.id != "" { // else it was not read from the store, and may change
		c.mu.Lock()
		data := c.m[key]
		c.mu.Unlock()
		if data != nil {
			return data, nil
		}
	}
	data, err := json.Marshal(p)
	if err != nil {
		return nil, model.Errorf(model.KindInternal, "profile: %w", err)
	}
	if key.rev > 0 && key.id != "" {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.m == nil || len(c.m) >= maxProfiles {
			c.m = map[profileKey][]byte{}
		}
		c.m[key] = data
	}
	return data, nil
}
