package dock

import (
	"encoding/json"
	"sync"

	"github.com/osds-io/osds/pkg/model"
)

// maxProfiles bounds the profiles that are kept decoded.
const maxProfiles = 256

// profileCache keeps decoded profiles by their text: thousands of creates come
// with the same few. What it gives is shared and read-only.
type profileCache struct {
	mu sync.Mutex
	m  map[string]*model.Profile
}

func (p *profileCache) decode(data []byte) (*model.Profile, error) {
	if len(data) == 0 {
		return nil, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if prof := p.m[string(data)]; prof != nil {
		return prof, nil
	}
	prof := new(model.Profile)
	if err := json.Unmarshal(data, prof); err != nil {
		return nil, model.Invalid("profile", "profile: %v", err)
	}
	if p.m == nil || len(p.m) >= maxProfiles {
		p.m = map[string]*model.Profile{}
	}
	p.m[string(data)] = prof
	return prof, nil
}
