//go:build linux

package cephlab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The daemons, by the names that Ceph knows them by.
const (
	Mon = "mon.a"
	Mgr = "mgr.a"
	OSD = "osd.0"
)

// osdSize is how large the OSD's sparse file is.
const osdSize = 24 << 30

// writeConf writes ceph.conf. What is in it is either where things are, or what
// makes one machine with one copy of everything a healthy cluster that does not
// take its time.
func (c *Cluster) writeConf() error {
	global := [][2]string{
		{"fsid", c.FSID},
		{"mon host", c.monAddrs()},
		{"mon initial members", "a"},
		// Given outright: Ceph else chooses an address of an interface.
		{"public addr", c.addr},
		{"cluster addr", c.addr},
		{"ms bind ipv6", "false"},
		{"auth cluster required", "cephx"},
		{"auth service required", "cephx"},
		{"auth client required", "cephx"},
		{"auth allow insecure global id reclaim", "false"},
		{"mon warn on insecure global id reclaim allowed", "false"},
		{"keyring", filepath.Join(c.Dir, "$cluster.$name.keyring")},
		{"run dir", filepath.Join(c.Dir, "run")},
		{"crash dir", filepath.Join(c.Dir, "crash")},
		{"log to syslog", "false"},
		{"osd pool default size", "1"},
		{"osd pool default min size", "1"},
		{"osd pool default pg num", "8"},
		{"osd pool default pgp num", "8"},
		{"osd pool default pg autoscale mode", "off"},
		{"osd crush chooseleaf type", "0"},
		{"mon allow pool size one", "true"},
		{"mon allow pool delete", "true"},
		{"mon warn on pool no redundancy", "false"},
		{"mon max pg per osd", "2000"},
		// How full the machine's own disk is says nothing about the test.
		{"mon data avail warn", "2"},
		{"mon data avail crit", "1"},
		{"paxos propose interval", "0.05"},
		{"paxos min wait", "0.01"},
		{"mgr tick period", "1"},
		{"mgr stats period", "1"},
		// An OSD that was killed is known to be down soon.
		{"osd heartbeat interval", "2"},
		{"osd heartbeat grace", "6"},
		{"osd mon report interval", "1"},
	}
	sections := []struct {
		name string
		keys [][2]string
	}{
		{"global", global},
		{"mon", [][2]string{{"mon data", c.data(Mon)}, {"mgr initial modules", ""}}},
		{"mgr", [][2]string{{"mgr data", c.data(Mgr)}, {"mgr/devicehealth/enable_monitoring", "false"}}},
		{"osd", [][2]string{
			{"osd data", c.data(OSD)},
			{"osd objectstore", "bluestore"},
			{"bluestore block size", fmt.Sprint(int64(osdSize))},
			{"bluestore block create", "true"},
			{"osd memory target", fmt.Sprint(896 << 20)},
			{"osd op num shards", "2"},
			{"osd op num threads per shard", "1"},
			{"osd class load list", "*"},
			{"osd class default list", "*"},
		}},
	}
	for _, d := range []string{Mon, Mgr, OSD} {
		// In the daemons' own sections: clients leave no logs and no sockets.
		sections = append(sections, struct {
			name string
			keys [][2]string
		}{d, [][2]string{{"log file", c.log(d)}, {"pid file", ""}, {"admin socket", filepath.Join(c.Dir, "run", d+".asok")}}})
	}
	var b strings.Builder
	for _, s := range sections {
		fmt.Fprintf(&b, "[%s]\n", s.name)
		for _, kv := range s.keys {
			fmt.Fprintf(&b, "%s = %s\n", kv[0], kv[1])
		}
	}
	return os.WriteFile(c.Conf, []byte(b.String()), 0o600)
}

// monAddrs gives the monitor's addresses for both versions of the protocol: the
// kernel's clients may speak either.
func (c *Cluster) monAddrs() string {
	return fmt.Sprintf("[v2:%s:%d,v1:%s:%d]", c.addr, c.ports[0], c.addr, c.ports[1])
}

func (c *Cluster) data(daemon string) string {
	kind, _, _ := strings.Cut(daemon, ".")
	return filepath.Join(c.Dir, kind)
}

func (c *Cluster) log(daemon string) string { return filepath.Join(c.Dir, "log", daemon+".log") }
