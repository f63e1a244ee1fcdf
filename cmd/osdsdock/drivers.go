package main

import (
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/drivers/ceph"
	"github.com/osds-io/osds/pkg/drivers/local"
	"github.com/osds-io/osds/pkg/drivers/lvm"
	"github.com/osds-io/osds/pkg/drivers/sample"
)

// linked are the drivers that this osdsdock can serve backends with, by the name
// that a backend's driver key takes.
func linked() map[string]drivers.Factory {
	return map[string]drivers.Factory{
		"ceph":   ceph.Factory,
		"local":  local.Factory,
		"lvm":    lvm.Factory,
		"sample": sample.Factory,
	}
}

// configChecks read a driver's own file, by the names of linked. They open
// nothing else.
func configChecks() map[string]func(path string) error {
	return map[string]func(path string) error{
		"ceph":   ceph.CheckConfig,
		"local":  local.CheckConfig,
		"lvm":    lvm.CheckConfig,
		"sample": sample.CheckConfig,
	}
}
