//go:build real

package lvm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/osds-io/osds/internal/tlsconf"
	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model/wire"
	"github.com/osds-io/osds/test/guest"
	"github.com/osds-io/osds/test/harness"
)

// limit is how long anything in the guests may take before a test gives it up:
// far beyond what it takes, which under emulation is long.
const limit = 4 * time.Minute

// The addresses of the daemons in their guests.
const (
	apiAddr      = "127.0.0.1:50040"
	registryPort = "50049"
	dockPort     = "50050"
)

// system is osds in guests: osdslet and a provisioner dock on the first, which
// also attaches, an attacher dock on the second, if there is one. The state of all
// of them is on data disks.
type system struct {
	settings
	t     *testing.T
	lab   *guest.Lab
	a     *harness.API
	store *guest.Node // the storage host
	host  *guest.Node // the consumer; the same as store where there is only one

	ca tlsconf.Pair
	// pids are the daemons', by machine and name.
	pids map[string]int
	// pools are their ids, by protocol.
	pools map[string]string
	hosts map[string]*wire.HostSpec
}

// addr is the machine's address on a network; loopback where it is alone.
func addr(n *guest.Node, i int) string {
	if len(n.Addrs) == 0 {
		return "127.0.0.1"
	}
	return n.Addrs[i]
}

// settings of the daemons.
type settings struct {
	logLevel     string
	writeThrough string
	// debt is how long a removal waits for a dock that does not answer.
	debt string
}

// usual are the settings where nothing else matters.
func usual() settings { return settings{logLevel: "debug", writeThrough: "auto", debt: "8s"} }

// newSystem boots guests and starts everything in them.
func newSystem(t *testing.T, c guest.Config) *system {
	t.Helper()
	return newSystemWith(t, c, usual())
}

func newSystemWith(t *testing.T, c guest.Config, conf settings) *system {
	t.Helper()
	c.Disks = []int{1024, 8192, 4096} // state, thick group, group of the thin pool
	s := &system{t: t, settings: conf, lab: boot(t, c), pids: map[string]int{}, pools: map[string]string{}, hosts: map[string]*wire.HostSpec{}}
	s.store, s.host = s.lab.Nodes[0], s.lab.Nodes[len(s.lab.Nodes)-1]
	t.Cleanup(s.report)
	var err error
	if s.ca, err = tlsconf.MakeCA(""); err != nil {
		t.Fatal(err)
	}
	for _, n := range s.lab.Nodes {
		s.shell(n, "mkfs.ext4 -q /dev/vdb")
	}
	s.shell(s.store, `
		pvcreate -qqy /dev/vdc /dev/vdd
		vgcreate -qq thick /dev/vdc
		vgcreate -qq group /dev/vdd
		lvcreate -qqy --type thin-pool -l 90%FREE -n thin group`)
	s.startStore()
	if s.host != s.store {
		s.startHost()
	}
	transport := &http.Transport{DialContext: s.store.DialContext, MaxIdleConnsPerHost: 16}
	t.Cleanup(transport.CloseIdleConnections)
	s.a = harness.Remote(t, world.api, client.Config{Endpoints: []string{"http://" + apiAddr}, Transport: transport, Timeout: limit})
	s.waitReady()
	for _, p := range s.a.WaitPools(2) {
		s.pools[p.Extras.IOConnectivity.AccessProtocol] = p.ID
	}
	s.a.Profile("default_block")
	for _, n := range s.lab.Nodes {
		s.hosts[n.Name] = s.register(n.Name, addr(n, 0), n.IQN, n.HostNQN)
	}
	return s
}

// register makes a host's record.
func (s *system) register(name, ip, iqn, nqn string) *wire.HostSpec {
	s.t.Helper()
	h, err := s.a.Hosts.Create(s.a.Ctx(), &wire.HostSpec{
		HostName: name, OSType: "linux", AccessMode: "agentless", IP: ip, AvailabilityZones: []string{"default"},
		Initiators: []wire.Initiator{{PortName: iqn, Protocol: "iscsi"}, {PortName: nqn, Protocol: "nvmeof"}},
	})
	if err != nil {
		s.t.Fatalf("register host %s: %v", name, err)
	}
	return h
}

// ctx is for one thing done in a guest.
func (s *system) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	s.t.Cleanup(cancel)
	return ctx
}

// shell runs a script on a machine and fails the test if it fails.
func (s *system) shell(n *guest.Node, script string) string {
	s.t.Helper()
	out, err := n.Shell(s.ctx(), script)
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// refused runs a script that must fail by itself, with a status.
func (s *system) refused(n *guest.Node, what, script string) {
	s.t.Helper()
	out, err := n.Shell(s.ctx(), script)
	var exit *guest.ExitError
	switch {
	case err == nil:
		s.t.Errorf("%s was not refused:\n%s", what, out)
	case !errors.As(err, &exit):
		s.t.Fatalf("%s: %v", what, err)
	default:
		s.t.Logf("%s was refused: %s", what, lastLine(exit.Output))
	}
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// startStore brings the storage host up: what its init system would do, and the
// daemons. Its exports are the dock's business.
func (s *system) startStore() {
	s.t.Helper()
	s.mount(s.store)
	s.certs(s.store, tlsconf.RoleLet)
	s.write(s.store, "/etc/osds/osdslet.yaml", harness.Config{
		"dataDir": "/state/osdslet", "api.listen": apiAddr, "registry.listen": "0.0.0.0:" + registryPort, "log.level": s.logLevel,
		"tls.ca": "/etc/osds/ca.pem", "tls.cert": "/etc/osds/osdslet.pem", "tls.key": "/etc/osds/osdslet.key",
		"registry.beat": "1s", "registry.lost": "6s", "controller.debt": s.debt, "controller.dockGrace": "10s",
	})
	s.daemon(s.store, "osdslet", "/share/bin/osdslet", "--config", "/etc/osds/osdslet.yaml")
	s.writeText(s.store, "/etc/osds/lvm.yaml", fmt.Sprintf(`
portals: [%s]
enableChapAuth: true
writeThrough: %s
pool:
  thick:
    multiAttach: true
    extras: {ioConnectivity: {accessProtocol: iscsi}}
  group/thin:
    multiAttach: true
    overProvisioningRatio: 20
    extras: {ioConnectivity: {accessProtocol: nvmeof}}
`, strings.Join(portals(s.store), ", "), s.writeThrough))
	s.initiators(s.store)
	s.startDock(s.store, harness.Config{
		"connector.enabled": true,
		"backends":          []map[string]any{{"name": "lvm", "driver": "lvm", "config": "/etc/osds/lvm.yaml"}},
	})
}

func portals(n *guest.Node) []string {
	if len(n.Addrs) == 0 {
		return []string{"127.0.0.1"}
	}
	return n.Addrs
}

// startHost brings the consumer up.
func (s *system) startHost() {
	s.t.Helper()
	s.mount(s.host)
	s.initiators(s.host)
	s.startDock(s.host, harness.Config{"type": "attacher"})
}

func (s *system) mount(n *guest.Node) {
	s.t.Helper()
	s.shell(n, "mount /dev/vdb /state")
}

// initiators starts what a host has beside its kernel.
func (s *system) initiators(n *guest.Node) {
	s.t.Helper()
	s.shell(n, `modprobe -a iscsi_tcp nvme_tcp dm_multipath
		cat >/etc/multipath.conf <<-E
		defaults {
			find_multipaths yes
			user_friendly_names no
			polling_interval 2
			no_path_retry 60
		}
		blacklist {
			devnode "^(vd|nvme|loop)"
		}
		E
		mkdir -p /run/multipath /var/lib/iscsi; ln -sfn /run /var/run`)
	s.daemon(n, "iscsid", "/sbin/iscsid", "-f")
	s.daemon(n, "multipathd", "/sbin/multipathd", "-d")
}

// startDock starts a machine's dock.
func (s *system) startDock(n *guest.Node, more harness.Config) {
	s.t.Helper()
	s.certs(n, tlsconf.RoleDock)
	s.write(n, "/etc/osds/osdsdock.yaml", harness.Config{
		"name": n.Name, "listen": addr(n, 0) + ":" + dockPort, "osdslets": []string{addr(s.store, 0) + ":" + registryPort},
		"stateDir": "/state/osdsdock", "admin.listen": "", "log.level": s.logLevel,
		"tls.ca": "/etc/osds/ca.pem", "tls.cert": "/etc/osds/osdsdock.pem", "tls.key": "/etc/osds/osdsdock.key",
	}.With(more))
	s.runDock(n)
}

// runDock starts the dock that is configured.
func (s *system) runDock(n *guest.Node) {
	s.t.Helper()
	s.daemon(n, "osdsdock", "/share/bin/osdsdock", "--config", "/etc/osds/osdsdock.yaml")
}

// kill ends a daemon at once.
func (s *system) kill(n *guest.Node, name string) {
	s.t.Helper()
	s.shell(n, fmt.Sprintf("kill -9 %d; while kill -0 %[1]d 2>/dev/null; do sleep 0.05; done", s.pids[n.Name+" "+name]))
}

func (s *system) daemon(n *guest.Node, name string, args ...string) {
	s.t.Helper()
	pid, err := n.Daemon(s.ctx(), s.logPath("/share", n, name), guest.Cmd{Args: args})
	if err != nil {
		s.t.Fatal(err)
	}
	s.pids[n.Name+" "+name] = pid
}

func (s *system) logPath(share string, n *guest.Node, name string) string {
	return filepath.Join(share, "log", strings.ReplaceAll(s.t.Name(), "/", "_")+"-"+n.Name+"-"+name+".log")
}

// certs makes a machine's certificate.
func (s *system) certs(n *guest.Node, role tlsconf.Role) {
	s.t.Helper()
	var ips []net.IP
	for _, p := range portals(n) {
		ips = append(ips, net.ParseIP(p))
	}
	pair, err := tlsconf.MakeCert(s.ca, tlsconf.Request{Kind: tlsconf.Both, Role: role, IPs: ips})
	if err != nil {
		s.t.Fatal(err)
	}
	s.writeText(n, "/etc/osds/ca.pem", string(s.ca.Cert))
	s.writeText(n, "/etc/osds/"+string(role)+".pem", string(pair.Cert))
	s.writeText(n, "/etc/osds/"+string(role)+".key", string(pair.Key))
}

func (s *system) write(n *guest.Node, path string, c harness.Config) {
	s.t.Helper()
	b, err := c.YAML()
	if err != nil {
		s.t.Fatal(err)
	}
	s.writeText(n, path, string(b))
}

func (s *system) writeText(n *guest.Node, path, text string) {
	s.t.Helper()
	if err := n.WriteFile(s.ctx(), path, []byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

// waitReady waits until the API is served by a leader, and both docks are there.
func (s *system) waitReady() {
	s.t.Helper()
	s.until("osdslet and the docks are ready", func() error {
		docks, err := s.a.Docks.Collect(s.a.Ctx(), client.Query{}, 0)
		if err != nil {
			return err
		}
		up := 0
		for _, d := range docks {
			if d.Status == "available" {
				up++
			}
		}
		if up != len(s.lab.Nodes) {
			return fmt.Errorf("%d docks are available", up)
		}
		return nil
	})
}

func (s *system) until(what string, f func() error) {
	s.t.Helper()
	if err := harness.Poll(limit, f); err != nil {
		s.t.Fatalf("not within %s: %s: %v", limit, what, err)
	}
}

// stuck shows what a kernel has to say, which processes wait in it for what, and
// which disks have requests that are not answered.
const stuck = `dmesg | tail -n 60
for p in /proc/[0-9]*; do
	case $(cat $p/stat 2>/dev/null) in *") D "*) echo "$p $(tr '\0' ' ' <$p/cmdline)"; cat $p/stack; ls -l $p/fd;; esac
done
cat /proc/locks
grep . /sys/block/*/inflight /sys/block/*/device/state 2>/dev/null
dmsetup info -c; dmsetup table; dmsetup status
for d in /dev/vd? $(ls /dev/dm-* /dev/sd? 2>/dev/null); do
	timeout -s KILL 5 dd if=$d of=/dev/null bs=4k count=1 iflag=direct status=none </dev/null && echo "$d answers" || echo "$d does not answer"
done
sleep 1; grep . /sys/block/*/inflight; ps axo pid,ppid,stat,wchan:30,args | grep -v '\['`

// report shows the daemons' logs of a test that failed.
func (s *system) report() {
	if !s.t.Failed() {
		return
	}
	for _, n := range s.lab.Nodes {
		out, err := n.Shell(s.ctx(), stuck)
		s.t.Logf("---- the kernel of %s\n%s%v", n.Name, out, err)
	}
	for key := range s.pids {
		node, name, _ := strings.Cut(key, " ")
		i := slices.IndexFunc(s.lab.Nodes, func(n *guest.Node) bool { return n.Name == node })
		b, err := os.ReadFile(s.logPath(world.share, s.lab.Nodes[i], name))
		if err == nil {
			s.t.Logf("---- %s of %s\n%s", name, node, harness.LogTail(b, 24<<10))
		}
	}
}

// data reads a connection's value as JSON has it.
func data[T any](t *testing.T, x *wire.VolumeAttachmentSpec, key string) T {
	t.Helper()
	var out T
	v, ok := x.ConnectionInfo.Data[key]
	if !ok {
		t.Fatalf("connectionInfo has no %s: %v", key, x.ConnectionInfo.Data)
	}
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		t.Fatalf("connectionInfo.%s: %v", key, err)
	}
	return out
}
