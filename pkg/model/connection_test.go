package model

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestConnectionWithoutSecrets(t *testing.T) {
	c := &Connection{Type: "iscsi", Data: map[string]any{"targetLun": 1, "authUserName": "u", "authPassword": "hush", "AuthPasswordIn": "hush2"}}
	w := c.WithoutSecrets()
	if len(w.Data) != 2 || w.Data["targetLun"] != 1 || w.Data["authUserName"] != "u" || w.Type != "iscsi" {
		t.Errorf("%#v", w.Data)
	}
	if len(c.Data) != 4 {
		t.Error("the connection itself was changed")
	}
	plain := &Connection{Type: "local", Data: map[string]any{"devicePath": "/dev/x"}}
	if plain.WithoutSecrets() != plain || (*Connection)(nil).WithoutSecrets() != nil {
		t.Error("one without secrets is not the same")
	}
	for _, s := range []string{fmt.Sprint(*c), fmt.Sprint(c), fmt.Sprintf("%+v %#v", *c, *c), fmt.Sprintf("%+v", struct{ C Connection }{*c})} {
		if strings.Contains(s, "hush") {
			t.Errorf("printed: %s", s)
		}
	}
}

func TestNewDetach(t *testing.T) {
	for _, c := range []struct {
		dock  string
		force bool
		want  Step
	}{{"", false, StepUnexport}, {"d", false, StepDetach}, {"d", true, StepUnexport}, {"", true, StepUnexport}} {
		k := NewDetach(&Attachment{DockID: c.dock, Status: StatusAvailable}, c.force, "r", time.Now())
		if k.Step != c.want || k.Force != c.force || k.Kind != TaskDelete || k.PrevStatus != StatusAvailable || !k.Active() {
			t.Errorf("%+v: %+v", c, k)
		}
	}
}

func TestInitiatorsFor(t *testing.T) {
	d := &Dock{Initiators: []Initiator{{"iqn.a:b", "iscsi"}, {"nqn.a:b", "nvmeof"}, {"iqn.a:c", "ISCSI"}}}
	if l := d.InitiatorsFor("iscsi"); len(l) != 2 || !d.Attaches() || (&Dock{}).Attaches() {
		t.Errorf("%+v", l)
	}
	if l := (&Host{}).InitiatorsFor("iscsi"); len(l) != 0 {
		t.Errorf("%+v", l)
	}
}
