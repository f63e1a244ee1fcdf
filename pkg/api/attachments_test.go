package api

import (
	"strings"
	"testing"

	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

func TestAttachments(t *testing.T) {
	e := newEnv(t)
	pool, profile, h := e.pool(), e.profile(), e.host()
	v := e.volume(pool, profile)
	hostBefore, _ := testStore.Hosts.Get(h.ID)
	var a wire.VolumeAttachmentSpec
	r := e.post("/block/attachments", map[string]any{"volumeId": v.ID, "hostId": h.ID, "mountpoint": "/mnt", "attachMode": "RO", "accessProtocol": "rbd",
		"connectionInfo": map[string]any{"driverVolumeType": "x"}, "metadata": map[string]string{"a": "b"}}).want(202).into(&a)
	if a.Status != "creating" || a.AttachMode != "ro" || a.AccessProtocol != "iscsi" || a.Mountpoint != "/mnt" || a.Metadata["a"] != "b" || a.TaskID == "" ||
		!strings.Contains(r.Body, `"connectionInfo":{}`) {
		t.Errorf("created: %s", r.Body)
	}
	rec, _ := testStore.Attachments.Get(a.ID)
	if rec.Task.Kind != model.TaskCreate || rec.Task.Step != model.StepExport {
		t.Errorf("task %+v", rec.Task)
	}
	if now, _ := testStore.Volumes.Get(v.ID); now.Status != model.StatusAttaching {
		t.Errorf("the volume is %s", now.Status)
	}
	if now, _ := testStore.Hosts.Get(h.ID); now.Rev == hostBefore.Rev {
		t.Error("the host was not written again")
	}
	const already = "volume is already attached to one of the host. If you want to attach to multiple host, volume multiattach must be true"
	e.post("/block/attachments", map[string]any{"volumeId": v.ID, "hostId": h.ID}).fails(400, model.KindBusy, "", already)
	e.del("/block/attachments/"+a.ID).fails(400, model.KindBusy, "", "the volume attachment status is creating; task "+a.TaskID)
	e.settle(pool)
	e.post("/block/attachments", map[string]any{"volumeId": v.ID, "hostId": e.host().ID}).fails(400, model.KindBusy, "", already)
	p := "/block/attachments/" + a.ID
	e.get(p).want(200).into(&a)
	if a.ConnectionInfo.DriverVolumeType != "iscsi" || a.Status != "available" {
		t.Errorf("%+v", a)
	}
	e.put(p, `{"mountpoint":"/dev/sdx"}`).want(200).into(&a)
	if a.Mountpoint != "/dev/sdx" || a.ConnectionInfo.DriverVolumeType != "iscsi" {
		t.Errorf("%+v", a)
	}
	e.put(p, e.get(p).Body).want(200)
	e.put(p, `{"mountpoint":""}`).want(200)
	e.put(p, `{"mountpoint":"`+strings.Repeat("m", 1025)+`"}`).fails(400, model.KindInvalid, "mountpoint", "at most 1024")
	for _, c := range []struct{ body, field string }{
		{`{"status":"error"}`, "status"}, {`{"hostId":"x"}`, "hostId"}, {`{"connectionInfo":{"driverVolumeType":"rbd"}}`, "connectionInfo"},
		{`{"attachMode":"rw"}`, "attachMode"}, {`{"metadata":{"x":"y"}}`, "metadata"},
	} {
		e.put(p, c.body).fails(400, model.KindInvalid, c.field, "cannot be changed")
	}
	e.put("/block/attachments/nope", `{"mountpoint":"x"}`).want(404)
	e.del("/host/hosts/"+h.ID).fails(400, model.KindBusy, "", "some volumes are attached to host: "+h.HostName+", please detach them first")
	e.del(p).want(202)
	e.del(p).fails(400, model.KindBusy, "", "the volume attachment status is deleting")
	if now, _ := testStore.Attachments.Get(a.ID); now.Status != model.StatusDeleting || now.Task.Kind != model.TaskDelete || now.Task.Step != model.StepUnexport {
		t.Errorf("%+v %+v", now, now.Task)
	}
	e.settle(pool)
	e.get(p).fails(404, model.KindNotFound, "", "volume attachment "+a.ID+" not found: specified volume attachment("+a.ID+") can't find")
	e.del("/host/hosts/" + h.ID).want(200)
}

func TestAttachmentIsValidated(t *testing.T) {
	e := newEnv(t)
	profile, h := e.profile(), e.host()
	west := e.volume(e.pool(func(p *model.Pool) { p.AvailabilityZone = "west" }), profile, map[string]any{"availabilityZone": "west"})
	plain := e.volume(e.pool(func(p *model.Pool) { p.Abilities = nil }), profile)
	pool := e.pool(func(p *model.Pool) { p.Extras.IOConnectivity.AccessProtocol = "rbd" })
	v := e.volume(pool, profile)
	for _, c := range []struct {
		volume, host, mode string
		kind               model.Kind
		field              string
		message            string
	}{
		{v.ID, "nope", "", "invalid", "hostId", "get host failed in create volume attachment method: specified host(nope) can't find"},
		{v.ID, "", "", "invalid", "hostId", "specified host() can't find"},
		{"nope", h.ID, "", "invalid", "volumeId", "get volume failed in create volume attachment method: specified volume(nope) can't find"},
		{v.ID, h.ID, "rx", "invalid", "attachMode", "use one of ro, rw"},
		{west.ID, h.ID, "", "invalid", "hostId", `is in availability zone "west"`},
		{plain.ID, h.ID, "", "unsupported", "volumeId", "cannot export volumes"},
	} {
		e.post("/block/attachments", map[string]any{"volumeId": c.volume, "hostId": c.host, "attachMode": c.mode}).fails(400, c.kind, c.field, c.message)
	}
	for _, st := range []model.Status{model.StatusCreating, model.StatusError, model.StatusDeleting, model.StatusExtending, model.StatusReverting} {
		e.setVolume(v.ID, func(v *model.Volume) { v.Status = st })
		e.post("/block/attachments", map[string]any{"volumeId": v.ID, "hostId": h.ID}).fails(400, model.KindBusy, "", "volume "+v.ID+" is "+string(st))
	}
	e.setVolume(v.ID, func(v *model.Volume) { v.Status = model.StatusAvailable })
	var a wire.VolumeAttachmentSpec
	if e.post("/block/attachments", map[string]any{"volumeId": v.ID, "hostId": h.ID}).want(202).into(&a); a.AccessProtocol != "rbd" || a.AttachMode != "rw" {
		t.Errorf("%+v", a)
	}
}

func TestMultiAttach(t *testing.T) {
	e := newEnv(t)
	pool, profile := e.pool(), e.profile()
	v := e.volume(pool, profile, map[string]any{"multiAttach": true})
	h1, h2 := e.host(), e.host()
	attach := func(h *wire.HostSpec) *reply {
		t.Helper()
		return e.post("/block/attachments", map[string]any{"volumeId": v.ID, "hostId": h.ID})
	}
	attach(h1).want(202)
	attach(h2).fails(400, model.KindBusy, "", "volume "+v.ID+" is attaching") // try again soon
	e.settle(pool)
	attach(h2).want(202)
	if now, _ := testStore.Volumes.Get(v.ID); now.Status != model.StatusInUse {
		t.Errorf("the volume is %s", now.Status)
	}
	attach(h1).fails(400, model.KindBusy, "", "is already attached to host "+h1.HostName)
	e.settle(pool)
}

func TestHosts(t *testing.T) {
	e := newEnv(t)
	name := unique("host")
	body := map[string]any{"hostName": name, "osType": "Linux", "accessMode": "agentless", "ip": "10.0.0.1", "port": 22, "username": "root", "password": "secret",
		"availabilityZones": []string{"default"}, "initiators": []map[string]string{{"portName": "iqn.a:b", "protocol": "ISCSI"}}}
	var h wire.HostSpec
	r := e.post("/host/hosts", body).want(200).into(&h)
	if h.OSType != "linux" || h.Initiators[0].Protocol != "iscsi" || strings.Contains(r.Body, "secret") || strings.Contains(r.Body, "password") {
		t.Errorf("%s", r.Body)
	}
	e.post("/host/hosts", body).fails(400, model.KindExists, "hostName", "the host with name "+name+" already exists in the system")
	e.as(unique("tenant")).post("/host/hosts", body).want(200) // another tenant's names are his own
	p := "/host/hosts/" + h.ID
	var got wire.HostSpec
	e.put(p, `{"ip":"10.0.0.2","password":"new","availabilityZones":["a","b"],"initiators":[]}`).want(200).into(&got)
	if got.IP != "10.0.0.2" || got.HostName != name || got.Port != 22 || len(got.AvailabilityZones) != 2 || len(got.Initiators) != 0 || got.UpdatedAt == "" {
		t.Errorf("%+v", got)
	}
	e.put(p, e.get(p).Body).want(200)
	e.put(p, `{"tenantId":"x"}`).fails(400, model.KindInvalid, "tenantId", "cannot be changed")
	for _, c := range []struct{ body, field string }{
		{`{"hostName":""}`, "hostName"}, {`{"ip":"x"}`, "ip"}, {`{"port":70000}`, "port"}, {`{"osType":"beos"}`, "osType"},
		{`{"initiators":[{"portName":"x","protocol":"iscsi"}]}`, "initiators[0].portName"}, {`{"port":"22"}`, "port"}, {`{"initiators":[{"portName":5}]}`, "initiators.portName"},
	} {
		e.put(p, c.body).fails(400, model.KindInvalid, c.field, "")
	}
	e.post("/host/hosts", `{"ip":"10.0.0.1"}`).fails(400, model.KindInvalid, "hostName", "hostName is missing")
	// A new name is reserved, and the old one free.
	e.put(p, `{"hostName":"new-`+name+`"}`).want(200)
	e.post("/host/hosts", body).want(200)
	e.put(p, `{"hostName":"`+name+`"}`).fails(400, model.KindExists, "hostName", "already exists")
	e.del(p).want(200)
	e.del(p).fails(404, model.KindNotFound, "", "host "+h.ID+" not found: specified host("+h.ID+") can't find")
	e.post("/host/hosts", map[string]any{"hostName": "new-" + name}).want(200)
	e.put("/host/hosts/nope", `{"ip":"10.0.0.1"}`).want(404)
}

// TestNamesAreTakenOnce: of many creates with the same name, one wins, whichever
// server they reach.
func TestNamesAreTakenOnce(t *testing.T) {
	e := newEnv(t)
	e2 := newEnv(t).as(e.tenant)
	for _, path := range []string{"/host/hosts", "/profiles"} {
		name := unique("same")
		status := make(chan int, 16)
		for i := range 16 {
			go func() {
				status <- []*env{e, e2}[i%2].post(path, map[string]any{"hostName": name, "name": name, "storageType": "block"}).Status
			}()
		}
		count := map[int]int{}
		for range 16 {
			count[<-status]++
		}
		if count[200] != 1 || count[400] != 15 {
			t.Errorf("%s: %v", path, count)
		}
	}
}
