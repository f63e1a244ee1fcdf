//go:build real

package local

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/osds-io/osds/pkg/drivers/drivertest"
	"github.com/osds-io/osds/pkg/drivers/export"
	"github.com/osds-io/osds/pkg/model"
)

// These tests need root and a kernel with LIO and nvmet; the host of the exports
// is this one. They are for a guest that is thrown away.

// networkPool makes a configuration with one pool that is exported over a
// network, on a file system of the first data disk.
func networkPool(t *testing.T, dir, proto, keys string) string {
	t.Helper()
	disk := "/dev/vdb"
	if _, err := os.Stat(disk); err != nil || os.Geteuid() != 0 {
		t.Skip("root and a data disk ", disk, " are needed")
	}
	for _, m := range []string{"loop", "nvme-tcp", "iscsi_tcp"} {
		command(t, "modprobe", m)
	}
	command(t, "mkfs.xfs", "-q", "-f", "-m", "reflink=1", disk)
	mnt := filepath.Join(dir, "mnt")
	mount(t, disk, mnt, "xfs", 0)
	pool := filepath.Join(mnt, "pool")
	yaml := fmt.Sprintf("portals: [127.0.0.1]\nenableChapAuth: true\npool:\n  p:\n    path: %s\n    extras: {ioConnectivity: {accessProtocol: %s}}\n    %s\n",
		pool, proto, strings.ReplaceAll(keys, "\n", "\n    "))
	if err := os.WriteFile(filepath.Join(dir, "local.yaml"), []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return pool
}

// thisHost has the names of this host's initiators.
func thisHost(t testing.TB) model.Host {
	t.Helper()
	iqn, err := os.ReadFile("/etc/iscsi/initiatorname.iscsi")
	if err != nil {
		t.Skip(err)
	}
	nqn, err := os.ReadFile("/etc/nvme/hostnqn")
	if err != nil {
		t.Skip(err)
	}
	_, name, _ := strings.Cut(strings.TrimSpace(string(iqn)), "=")
	return model.Host{HostName: "consumer", Initiators: []model.Initiator{{PortName: name, Protocol: export.ISCSI},
		{PortName: strings.TrimSpace(string(nqn)), Protocol: export.NVMe}}}
}

// hold connects as a host would.
func hold(t testing.TB, c model.Connection) func() {
	t.Helper()
	if c.Type == export.NVMe {
		name := c.Data["targetNQN"].(string)
		command(t, "nvme", "connect", "-t", "tcp", "-a", c.Data["targetIP"].(string), "-s", fmt.Sprint(c.Data["targetPort"]), "-n", name, "--ctrl-loss-tmo=3", "--reconnect-delay=1")
		return func() { command(t, "nvme", "disconnect", "-n", name) }
	}
	node := []string{"iscsiadm", "-m", "node", "-T", c.Data["targetIQN"].([]any)[0].(string), "-p", c.Data["targetPortal"].([]any)[0].(string)}
	if b, _ := filepath.Glob("/run/iscsid.pid"); len(b) == 0 {
		command(t, "iscsid")
	}
	command(t, append(node, "--op", "new")...)
	for k, v := range map[string]string{"node.session.auth.authmethod": "CHAP", "node.session.auth.username": c.Data["authUserName"].(string),
		"node.session.auth.password": c.Data["authPassword"].(model.Secret).Reveal(), "node.session.timeo.replacement_timeout": "3"} {
		command(t, append(node, "--op", "update", "-n", k, "-v", v)...)
	}
	command(t, append(node, "--login")...)
	return func() {
		command(t, append(node, "--logout")...)
		command(t, append(node, "--op", "delete")...)
	}
}

func networkHarness(t *testing.T, dir, pool, proto string) drivertest.Harness {
	h := harness(dir, pool)
	h.Host, h.Protocol, h.Hold = thisHost(t), proto, hold
	h.Fill, h.Skip = false, map[string]string{"fill": "the pool is a whole disk"}
	h.Leftovers = func(id string) ([]string, error) {
		left, err := leftovers(pool, id)
		for _, pattern := range []string{"target/core/*/*" + id, "target/iscsi/*" + id, "nvmet/subsystems/*" + id} {
			got, _ := filepath.Glob("/sys/kernel/config/" + pattern)
			left = append(left, got...)
		}
		got, _ := filepath.Glob(filepath.Join(dir, "state/exports/notes", id+"*"))
		ls, lerr := findLoops(func(string) bool { return true })
		for _, l := range ls {
			if l.tag == netTag(id) {
				left = append(left, l.path())
			}
		}
		if err == nil {
			err = lerr
		}
		return append(left, got...), err
	}
	return h
}

func TestNetworkConformance(t *testing.T) {
	for _, proto := range []string{export.ISCSI, export.NVMe} {
		for _, keys := range []string{"multiAttach: true", "provisioningPolicy: Thick"} {
			t.Run(proto+"/"+strings.Fields(keys)[1], func(t *testing.T) {
				dir := t.TempDir()
				pool := networkPool(t, dir, proto, keys)
				drivertest.Run(t, networkHarness(t, dir, pool, proto))
			})
		}
	}
}

func TestNetworkCrash(t *testing.T) {
	for _, proto := range []string{export.ISCSI, export.NVMe} {
		t.Run(proto, func(t *testing.T) {
			dir := t.TempDir()
			pool := networkPool(t, dir, proto, "multiAttach: true")
			h := networkHarness(t, dir, pool, proto)
			for _, c := range []string{"create", "clone-of-volume", "clone-of-snapshot", "delete", "revert", "snapshot", "snapshot-delete"} {
				h.Skip[c] = "does not depend on the protocol"
			}
			drivertest.Crash(t, h, dir)
		})
	}
}
