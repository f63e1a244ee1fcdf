//go:build real

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/test/harness"
)

// TestFills: what a pool's dock says of its parts that can run full is seen in the
// pool, and in the metrics of both processes.
func TestFills(t *testing.T) {
	t.Parallel()
	c := suite.NewCluster(t)
	let := c.AddLet(harness.Quick())
	b := harness.Sample("s", 100)
	b.Config += "    fills: [{of: data, used: 0.5, warn: 0.8, stop: 0.95}, {of: metadata, used: 0.71, warn: 0.7, stop: 0.9}]\n"
	dock := c.AddDock(nil, b)
	c.Start()
	a := c.Admin()
	p := a.WaitPools(1)[0]
	if p.Status != model.StatusAvailable || len(p.Fills) != 2 || p.StatusReason != "metadata 71.0 % full (warn at 70 %, stop at 90 %)" {
		t.Errorf("%+v", p)
	}
	if out := c.Ctl().OK("pool", "show", p.ID); !strings.Contains(out, "metadata 71.0 % full (warn at 70 %, stop at 90 %): warn") {
		t.Errorf("osdsctl shows\n%s", out)
	}
	page := func() (string, error) {
		r, err := http.Get(let.URL() + "/metrics")
		if err != nil {
			return "", err
		}
		defer r.Body.Close()
		text, err := io.ReadAll(r.Body)
		return string(text), err
	}
	for what, read := range map[string]func() (string, error){"osds_pool": page, "osds_dock_pool": dock.Metrics} {
		c.Until(time.Minute, "metrics of "+what, func() error {
			text, err := read()
			if err != nil {
				return err
			}
			for name, want := range map[string]string{"fill_ratio": "0.71", "watermark": "1"} {
				if !hasSample(text, what+"_"+name, `of="metadata"`, want) {
					err = errors.Join(err, fmt.Errorf("no %s_%s of %s", what, name, want))
				}
			}
			return err
		})
	}
}

// hasSample says whether a page of metrics has a value of a name with a label.
func hasSample(page, name, label, value string) bool {
	for _, l := range strings.Split(page, "\n") {
		if strings.HasPrefix(l, name+"{") && strings.Contains(l, label) && strings.HasSuffix(l, " "+value) {
			return true
		}
	}
	return false
}
