package connector

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/osds-io/osds/pkg/model"
)

func mustAddr(t testing.TB, s string) netip.AddrPort {
	t.Helper()
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func iscsiData(change func(map[string]any)) model.Connection {
	m := map[string]any{
		"targetDiscovered": true, "targetIQN": []any{"iqn.2017-10.io.opensds:a"}, "targetPortal": []any{"10.0.0.1:3260", "10.0.0.2"},
		"targetLun": float64(1), "identity": "naa.6001405-0000000000000000000000001",
		"authMethod": "CHAP", "authUserName": "u", "authPassword": "secretsecret",
	}
	if change != nil {
		change(m)
	}
	return model.Connection{Type: "iscsi", Data: m}
}

func TestParseISCSI(t *testing.T) {
	got, err := parseConnection(iscsiData(nil))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Portals) != 2 || got.Portals[1].Addr != mustAddr(t, "10.0.0.2:3260") || got.Portals[1].Name != "iqn.2017-10.io.opensds:a" ||
		got.LUN != 1 || got.Identity != "60014050000000000000000000000001" || got.Auth.User != "u" || got.Auth.Password.Reveal() != "secretsecret" {
		t.Errorf("%+v", got)
	}
	if s := fmt.Sprintf("%v %+v %#v", got, got, got); strings.Contains(s, "secretsecret") {
		t.Error("the secret is printed")
	}
	if b, err := json.Marshal(got); err != nil || strings.Contains(string(b), "secret") {
		t.Errorf("%s, %v", b, err)
	}
	// The wire's other forms of the same.
	for what, change := range map[string]func(map[string]any){
		"one portal as a string": func(m map[string]any) {
			m["targetPortal"], m["targetIQN"] = "10.0.0.1:3260", "iqn.2017-10.io.opensds:a"
		},
		"go's own types": func(m map[string]any) {
			m["targetPortal"], m["targetLun"], m["authPassword"] = []string{"10.0.0.1:3260"}, int64(1), model.Secret("secretsecret")
		},
		"a portal group": func(m map[string]any) { m["targetPortal"] = []string{"10.0.0.1:3260,1"} },
		"twice":          func(m map[string]any) { m["targetPortal"] = []string{"10.0.0.1:3260", "10.0.0.1"} },
	} {
		g, err := parseConnection(iscsiData(change))
		if err != nil || len(g.Portals) != 1 || g.Portals[0] != got.Portals[0] || g.LUN != 1 || g.Auth != got.Auth {
			t.Errorf("%s: %+v, %v", what, g, err)
		}
	}
	g, err := parseConnection(iscsiData(func(m map[string]any) {
		m["targetPortal"] = []string{"[fd00::1]:3261", "fd00::2"}
		m["targetIQN"] = []string{"iqn.2017-10.io.opensds:a", "iqn.2017-10.io.opensds:b"}
	}))
	if err != nil || g.Portals[0].Addr.String() != "[fd00::1]:3261" || g.Portals[1].Addr.String() != "[fd00::2]:3260" || g.Portals[1].Name != "iqn.2017-10.io.opensds:b" {
		t.Errorf("%+v, %v", g, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for field, change := range map[string]func(map[string]any){
		"targetIQN":      func(m map[string]any) { m["targetIQN"] = "iqn.2017-10.io.opensds:a; reboot" },
		"targetIQN ":     func(m map[string]any) { m["targetIQN"] = "../../etc/passwd" },
		"targetIQN  ":    func(m map[string]any) { delete(m, "targetIQN") },
		"targetIQN   ":   func(m map[string]any) { m["targetIQN"] = []string{"iqn.a.b", "iqn.a.c", "iqn.a.d"} },
		"targetIQN    ":  func(m map[string]any) { m["targetIQN"] = 7 },
		"targetPortal":   func(m map[string]any) { m["targetPortal"] = "array.example.com:3260" },
		"targetPortal ":  func(m map[string]any) { m["targetPortal"] = "10.0.0.1:0" },
		"targetPortal  ": func(m map[string]any) { m["targetPortal"] = "0.0.0.0:3260" },
		"targetPortal  .": func(m map[string]any) {
			m["targetPortal"] = "-p:3260"
		},
		"targetPortal   ": func(m map[string]any) { m["targetPortal"] = make([]string, maxPortals+1) },
		"targetLun":       func(m map[string]any) { delete(m, "targetLun") },
		"targetLun ":      func(m map[string]any) { m["targetLun"] = 1.5 },
		"targetLun  ":     func(m map[string]any) { m["targetLun"] = -1 },
		"targetLun   ":    func(m map[string]any) { m["targetLun"] = "1\n" },
		"authMethod":      func(m map[string]any) { m["authMethod"] = "SRP" },
		"authPassword":    func(m map[string]any) { m["authPassword"] = "a\nnode.name = b" },
		"authUserName":    func(m map[string]any) { m["authUserName"] = "" },
		"authUserNameIn":  func(m map[string]any) { m["authUserNameIn"] = "x" },
		"identity":        func(m map[string]any) { m["identity"] = "../sda" },
	} {
		field = strings.Trim(field, " .")
		_, err := parseConnection(iscsiData(change))
		if e := model.AsError(err); e == nil || e.Kind != model.KindInvalid || e.Field != "data."+field {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, typ := range []string{"fibre_channel", "x"} {
		if _, err := parseConnection(model.Connection{Type: typ}); !model.IsKind(err, model.KindUnsupported) {
			t.Errorf("%s: %v", typ, err)
		}
	}
	if _, err := parseConnection(model.Connection{}); !model.IsKind(err, model.KindInvalid) {
		t.Error(err)
	}
}

func TestParseNVMe(t *testing.T) {
	m := map[string]any{"targetNQN": "nqn.2019-01.com.opensds:nvme:a", "targetIP": "10.0.0.1", "targetPort": "4421",
		"hostNqn": "nqn.2014-08.org.nvmexpress:uuid:x", "transporType": "tcp", "targetPortals": []any{"10.0.0.1:4421", "10.0.0.2"}}
	got, err := parseConnection(model.Connection{Type: "NVMEoF", Data: m})
	if err != nil || len(got.Portals) != 2 || got.Portals[1].Addr.String() != "10.0.0.2:4421" || got.HostNQN != m["hostNqn"] {
		t.Errorf("%+v, %v", got, err)
	}
	for key, v := range map[string]any{"targetNQN": "nqn.x,hostnqn=y", "targetIP": "x", "targetPort": 70000, "hostNqn": "a b", "targetPortals": "10.0.0.1:x"} {
		bad := map[string]any{}
		for k, w := range m {
			bad[k] = w
		}
		bad[key] = v
		if _, err := parseConnection(model.Connection{Type: "nvmeof", Data: bad}); !model.IsKind(err, model.KindInvalid) {
			t.Errorf("%s: %v", key, err)
		}
	}
	m["transporType"] = "rdma"
	if _, err := parseConnection(model.Connection{Type: "nvmeof", Data: m}); !model.IsKind(err, model.KindUnsupported) {
		t.Error(err)
	}
}

func TestParseLocal(t *testing.T) {
	for p, ok := range map[string]bool{"/dev/loop3": true, "/dev/vg/osds-1": true, "/dev/../etc/passwd": false, "/etc/passwd": false,
		"/dev/a//b": false, "": false, "/dev/": false, "/dev/a b": false} {
		_, err := parseConnection(model.Connection{Type: "local", Data: map[string]any{"devicePath": p}})
		if (err == nil) != ok {
			t.Errorf("%q: %v", p, err)
		}
	}
}

// FuzzParse checks that what passes cannot leave its place in commands, files
// and the kernel's options.
func FuzzParse(f *testing.F) {
	for _, typ := range []string{"iscsi", "nvmeof", "local"} {
		f.Add(typ, `{"targetIQN":"iqn.2017-10.io.opensds:a","targetPortal":"10.0.0.1:3260","targetLun":1,"identity":"x"}`)
		f.Add(typ, `{"targetNQN":"nqn.2019-01.com.opensds:nvme:a","targetIP":"10.0.0.1"}`)
		f.Add(typ, `{"devicePath":"/dev/loop0"}`)
	}
	f.Fuzz(func(t *testing.T, typ, js string) {
		var m map[string]any
		if json.Unmarshal([]byte(js), &m) != nil {
			return
		}
		got, err := parseConnection(model.Connection{Type: typ, Data: m})
		if err != nil {
			if k := model.KindOf(err); k != model.KindInvalid && k != model.KindUnsupported {
				t.Fatal(err)
			}
			return
		}
		words := []string{got.HostNQN, got.Identity, got.Device, got.Auth.User, got.Auth.Password.Reveal(), got.Auth.UserIn, got.Auth.PasswordIn.Reveal()}
		for _, p := range got.Portals {
			words = append(words, p.Name, p.Addr.String())
			if strings.ContainsAny(p.Name, "/,") || strings.HasPrefix(p.Name, "-") || strings.HasPrefix(p.Name, ".") {
				t.Errorf("%q", p.Name)
			}
		}
		for _, w := range words {
			if strings.ContainsAny(w, "\n\r\x00 ") {
				t.Errorf("%q", w)
			}
		}
		if strings.Contains(got.Device, "..") && strings.Contains(got.Device, "/../") {
			t.Errorf("%q", got.Device)
		}
	})
}
