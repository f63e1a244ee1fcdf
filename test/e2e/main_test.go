//go:build real

// Package e2e runs osds as its users do: the real programs as processes, REST
// and osdsctl from outside, real block devices and file systems on top.
package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/osds-io/osds/pkg/model/wire"
	"github.com/osds-io/osds/test/harness"
)

// suite is set once by TestMain; tests only read it.
var suite *harness.Suite

func TestMain(m *testing.M) {
	os.Exit(harness.Main(m, &suite, everyOperation))
}

// everyOperation fails a complete run that left an operation of the API unused.
func everyOperation() error {
	if u := suite.API.Unseen(); len(u) > 0 {
		return fmt.Errorf("operations of the OpenAPI document that no test was answered with success: %s", strings.Join(u, ", "))
	}
	return nil
}

// one makes a cluster of one osdslet with short times and one dock, starts it,
// and gives an administrator's client with the default profile and a host.
func one(t *testing.T, backends ...func(*harness.Cluster) harness.Backend) (*harness.Cluster, *harness.API) {
	t.Helper()
	c := suite.NewCluster(t)
	c.AddLet(harness.Quick())
	var list []harness.Backend
	for _, b := range backends {
		list = append(list, b(c))
	}
	c.AddDock(nil, list...)
	c.Start()
	a := c.Admin()
	a.WaitPools(len(list))
	return c, a
}

// sample is a simulated backend of a size in GB.
func sample(name string, gb int) func(*harness.Cluster) harness.Backend {
	return func(*harness.Cluster) harness.Backend { return harness.Sample(name, gb) }
}

// local is a backend of files and loop devices.
func local(name string, gb int) func(*harness.Cluster) harness.Backend {
	return func(c *harness.Cluster) harness.Backend { return c.Local(name, gb) }
}

func errorf(format string, args ...any) error { return fmt.Errorf(format, args...) }

func profile(name string) *wire.ProfileSpec {
	return &wire.ProfileSpec{Name: name, StorageType: "block"}
}

func hostSpec(name string) *wire.HostSpec {
	return &wire.HostSpec{HostName: name, OSType: "linux", IP: "127.0.0.1", AvailabilityZones: []string{"default"}}
}
