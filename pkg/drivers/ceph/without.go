//go:build !ceph

package ceph

import (
	"context"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

var _ drivers.Factory = Factory

// Factory says that this program was built without the driver. The backend stays
// out of service for this reason; the dock serves its others.
func Factory(context.Context, drivers.Config) (drivers.Driver, error) { return nil, builtIn() }

func builtIn() error {
	return model.Errorf(model.KindUnsupported, "this osdsdock was built without Ceph: install the headers of librados and librbd (packages librados-dev and librbd-dev) where it is built, and build it again; see docs/drivers/ceph.md")
}
