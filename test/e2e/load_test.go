//go:build real

package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
	"github.com/osds-io/osds/test/harness"
)

// TestExactlyWhatFits: of 512 volumes that are asked for at once in a pool with
// room for 100, exactly 100 are made; the others say which pool was full and by
// which rule.
func TestExactlyWhatFits(t *testing.T) {
	t.Parallel()
	_, a := one(t, sample("small", 100))
	a.Setup()
	pool := a.Pool("small-pool")
	ids := make([]string, 512)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), harness.Limit)
			defer cancel()
			spec := &wire.VolumeSpec{Name: fmt.Sprintf("v%d", i), Size: 1}
			if i%2 == 0 {
				spec.PoolID = pool.ID
			}
			v, err := a.Volumes.Create(ctx, spec)
			if err != nil {
				t.Errorf("create %d: %v", i, err)
				return
			}
			ids[i] = v.ID
		})
	}
	wg.Wait()
	a.Quiet(2 * harness.Limit)
	made, odd, why := 0, 0, ""
	for _, id := range ids {
		if odd > 3 {
			break // one is like the other
		}
		switch v := a.GetVolume(id); v.Status {
		case model.StatusAvailable:
			made++
		case model.StatusError:
			if !strings.Contains(v.StatusReason, "small-pool") || !strings.Contains(strings.ToLower(v.StatusReason), "capacity") {
				odd++
				t.Errorf("volume %s: the reason names not the pool and the rule: %q", id, v.StatusReason)
			}
			if v.PoolID != "" {
				odd++
				t.Errorf("volume %s is in error and in pool %s", id, v.PoolID)
			}
			why = id
		default:
			odd++
			t.Errorf("volume %s is %s", id, v.Status)
		}
	}
	x, err := a.VolumeExplanation(a.Ctx(), why)
	if err != nil {
		t.Fatal(err)
	}
	if x.WinnerID != "" || len(x.Pools) != 1 || x.Pools[0].PoolName != "small-pool" || !failedRule(x.Pools[0].Rules, "freeCapacity") {
		t.Errorf("the explanation: %+v", x)
	}
	if made != 100 {
		t.Errorf("%d volumes of 1 GB in a pool of 100 GB", made)
	}
	l, err := a.Ledger(a.Ctx())
	if err != nil || l[0].Reserved != 100<<30 || l[0].Reserved != l[0].Limit {
		t.Errorf("%+v %v", l, err)
	}
	a.Doctor()
}

func failedRule(rules []model.RuleResult, name string) bool {
	for _, r := range rules {
		if r.Rule == name {
			return !r.OK
		}
	}
	return false
}

// TestNothingLeaks: over 2,000 creates and deletes the processes hold as many
// files as before, and nothing is left on the backend or in the store.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	c, a := one(t, sample("s", 1000))
	a.Setup()
	files := func() map[string]int {
		out := map[string]int{}
		for _, p := range []*harness.Process{c.Lets[0].Process, c.Docks[0].Process} {
			l, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Pid()))
			if err != nil {
				t.Fatal(err)
			}
			out[p.Name] = len(l)
		}
		return out
	}
	round := func(n int) {
		t.Helper()
		var wg sync.WaitGroup
		for w := range 16 {
			wg.Go(func() {
				for i := w; i < n; i += 16 {
					ctx, cancel := context.WithTimeout(context.Background(), harness.Limit)
					err := func() error {
						v, err := a.Volumes.Create(ctx, &wire.VolumeSpec{Name: fmt.Sprintf("v%d", i), Size: 1})
						if err != nil {
							return err
						}
						if _, err := a.Wait(ctx, model.ResVolume, v.ID, client.WaitOptions{TaskID: v.TaskID}); err != nil {
							return err
						}
						if err := a.Volumes.Delete(ctx, v.ID); err != nil {
							return err
						}
						_, err = a.Wait(ctx, model.ResVolume, v.ID, client.WaitOptions{Gone: true})
						return err
					}()
					cancel()
					if err != nil {
						t.Errorf("volume %d: %v", i, err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	round(200) // connections and caches are there after this
	a.Close()
	was := files()
	began := time.Now()
	round(2000)
	t.Logf("2,000 creates and deletes in %s", time.Since(began).Round(100*time.Millisecond))
	// Connections that just ended take a moment to go.
	c.Until(harness.Limit, "the number of open files is as before", func() error {
		a.Close()
		for name, n := range files() {
			if n > was[name]+16 {
				return errorf("%s: %d, were %d", name, n, was[name])
			}
		}
		return nil
	})
	a.Doctor()
	empty(t, a)
}
