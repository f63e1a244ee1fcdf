//go:build ceph

package ceph

import (
	"reflect"
	"testing"
)

// Whose a client is: by what was seen of it before all else, and by an address
// only if one host alone says that it is its own.
func TestWhose(t *testing.T) {
	host := func(name string, addrs []string, clients ...string) exportEntry {
		return exportEntry{Host: name, Addrs: addrs, Clients: clients}
	}
	const bridge = "172.17.0.1"
	a := host("a", []string{"10.0.0.1", "10.1.0.1", bridge})
	for _, c := range []struct {
		name          string
		e             exportEntry
		others        map[string]exportEntry
		clients       []string
		mine, unclear []string
	}{
		{"alone", host("a", nil), nil, []string{"10.9.0.9:0/1"}, []string{"10.9.0.9:0/1"}, nil},
		{"each by one of its addresses", a, map[string]exportEntry{"x": host("b", []string{"10.0.0.2", "10.1.0.2"})},
			[]string{"10.1.0.1:0/1", "10.1.0.2:0/2"}, []string{"10.1.0.1:0/1"}, nil},
		{"an address of nobody", a, map[string]exportEntry{"x": host("b", []string{"10.0.0.2"})},
			[]string{"10.0.0.3:0/1"}, nil, []string{"10.0.0.3:0/1"}},
		{"an address of both", a, map[string]exportEntry{"x": host("b", []string{"10.0.0.2", bridge})},
			[]string{bridge + ":0/1"}, nil, []string{bridge + ":0/1"}},
		{"an address of both, seen as one's", host("a", []string{bridge}, bridge+":0/1"), map[string]exportEntry{"x": host("b", []string{bridge})},
			[]string{bridge + ":0/1", bridge + ":0/2"}, []string{bridge + ":0/1"}, []string{bridge + ":0/2"}},
		{"an address of both, seen as the other's", a, map[string]exportEntry{"x": host("b", []string{bridge}, bridge+":0/2")},
			[]string{bridge + ":0/2"}, nil, nil},
		{"two attachments of one host", a, map[string]exportEntry{"x": host("A", []string{"10.0.0.1"})},
			[]string{"10.0.0.1:0/1"}, []string{"10.0.0.1:0/1"}, nil},
		{"IPv6", host("a", []string{"fd00::1"}), map[string]exportEntry{"x": host("b", []string{"fd00::2"})},
			[]string{"[fd00::1]:0/1", "[fd00:0::2]:0/2"}, []string{"[fd00::1]:0/1"}, nil},
	} {
		mine, unclear := whose(c.clients, c.e, c.others)
		if !reflect.DeepEqual(mine, c.mine) || !reflect.DeepEqual(unclear, c.unclear) {
			t.Errorf("%s: the host's %v, unclear %v; want %v and %v", c.name, mine, unclear, c.mine, c.unclear)
		}
	}
}
