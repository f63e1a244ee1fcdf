package api

import (
	"strings"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/db"
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
	pool, profile := e.pool(func(p *model.Pool) { p.MultiAttach = true }), e.profile()
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
	// The pool has to allow it too: it may be another driver's by now.
	p, _ := testStore.Pools.Get(pool.ID)
	single := p.Clone()
	single.MultiAttach = false
	e.commit((&db.Txn{Label: "test"}).Update(single))
	attach(e.host()).fails(400, model.KindUnsupported, "volumeId", "does not let several hosts attach")
}

// setAttachment changes an attachment's record as the controllers do.
func (e *env) setAttachment(id string, f func(*model.Attachment)) {
	e.t.Helper()
	a, ok := testStore.Attachments.Get(id)
	if !ok {
		e.t.Fatalf("no attachment %s", id)
	}
	c := a.Clone()
	f(c)
	e.commit((&db.Txn{Label: "test"}).Update(c))
}

// Secrets are for who attaches: in a GET of the attachment by its tenant or an
// administrator, and nowhere else.
func TestConnectionSecrets(t *testing.T) {
	e := newEnv(t)
	pool, h := e.pool(), e.host()
	v := e.volume(pool, e.profile())
	a := e.attachment(v, h)
	p := "/block/attachments/" + a.ID
	e.setAttachment(a.ID, func(x *model.Attachment) {
		x.Connection = &model.Connection{Type: "iscsi", Data: map[string]any{"targetLun": 1, "authUserName": "osds", "authPassword": "hushhush", "authPasswordIn": "hushhush2"}}
		x.DockID, x.Status = "d1", model.StatusCreating
	})
	if b := e.get(p).want(200).Body; strings.Contains(b, "hush") || !strings.Contains(b, `"connectionInfo":{}`) {
		t.Errorf("while it is being attached: %s", b)
	}
	f := e.follow("?resource=attachments,profiles")
	e.setAttachment(a.ID, func(x *model.Attachment) {
		x.Connection = &model.Connection{Type: "iscsi", Data: map[string]any{"targetLun": 1, "authUserName": "osds", "authPassword": "hushhush", "authPasswordIn": "hushhush2"}}
		x.DockID, x.DevicePath, x.Mountpoint, x.Status = "d1", "/dev/sdq", "/dev/sdq", model.StatusAvailable
	})
	one := e.get(p).want(200).Body
	for _, want := range []string{`"authPassword":"hushhush"`, `"authPasswordIn":"hushhush2"`, `"devicePath":"/dev/sdq"`, `"mountpoint":"/dev/sdq"`, `"dockId":"d1"`} {
		if !strings.Contains(one, want) {
			t.Errorf("the owner does not see %s: %s", want, one)
		}
	}
	if b := e.admin().get("/block/attachments/" + a.ID).want(200).Body; !strings.Contains(b, "hushhush") {
		t.Errorf("the administrator: %s", b)
	}
	e.as(unique("other")).get(p).fails(404, model.KindNotFound, "", "")
	list := e.get("/block/attachments?volumeId=" + v.ID).want(200).Body
	if strings.Contains(list, "hush") || !strings.Contains(list, `"authUserName":"osds"`) || !strings.Contains(list, "/dev/sdq") {
		t.Errorf("list: %s", list)
	}
	// What was read either way can be sent back; another secret cannot.
	if b := e.put(p, one).want(200).Body; strings.Contains(b, "hush") {
		t.Errorf("PUT: %s", b)
	}
	e.put(p, strings.Trim(strings.TrimSpace(list), "[]")).want(200)
	e.put(p, strings.Replace(one, "hushhush2", "else", 1)).fails(400, model.KindInvalid, "connectionInfo", "cannot be changed")
	if x, ok := testStore.Attachments.Get(a.ID); !ok || x.Connection.Data["authPassword"] != "hushhush" {
		t.Error("a PUT lost the secret")
	}
	for _, ev := range f.until(e.mark()) {
		if strings.Contains(string(ev.Object), "hush") {
			t.Errorf("event: %s", ev.Object)
		}
	}
	if b := e.get("/tasks?resourceId=" + a.ID).want(200).Body; strings.Contains(b, "hush") {
		t.Errorf("tasks: %s", b)
	}
}

func TestForcedDetach(t *testing.T) {
	e := newEnv(t)
	pool, h := e.pool(), e.host()
	a := e.attachment(e.volume(pool, e.profile()), h)
	e.settle(pool)
	e.setAttachment(a.ID, func(x *model.Attachment) { x.DockID = "d1" })
	p := "/block/attachments/" + a.ID
	task := func() *model.Task { x, _ := testStore.Attachments.Get(a.ID); return x.Task }
	e.del(p+"?force=maybe").fails(400, model.KindInvalid, "force", "neither true nor false")
	e.del(p + "?force=false").want(202)
	if k := task(); k.Force || k.Step != model.StepDetach || k.PrevStatus != model.StatusAvailable {
		t.Errorf("an ordinary detach: %+v", k)
	}
	first := task().ID
	e.del(p).fails(400, model.KindBusy, "", "is deleting")
	e.del(p + "?force=true").want(202) // the ordinary one does not get on
	if k := task(); !k.Force || k.Step != model.StepUnexport || k.PrevStatus != model.StatusAvailable || k.ID == first {
		t.Errorf("a forced detach: %+v", k)
	}
	var spec wire.TaskSpec
	if e.get("/tasks/" + task().ID).want(200).into(&spec); !spec.Force {
		t.Errorf("%+v", spec)
	}
	e.del(p+"?force=true").fails(400, model.KindBusy, "", "is deleting")
	// A failed one is started again as what it was.
	e.setAttachment(a.ID, func(x *model.Attachment) {
		x.Status = model.StatusErrorDeleting
		x.Task.EndWith(model.Errorf(model.KindInternal, "no"), time.Now())
	})
	e.post("/tasks/"+task().ID+"/retry", nil).want(202)
	if k := task(); !k.Force || !k.Active() {
		t.Errorf("retried: %+v", k)
	}
}

// A host that has still to see a new size can be detached, and need not be waited
// for.
func TestUnseenSize(t *testing.T) {
	e := newEnv(t)
	pool, h := e.pool(), e.host()
	a := e.attachment(e.volume(pool, e.profile()), h)
	e.settle(pool)
	p := "/block/attachments/" + a.ID
	unseen := func() *model.Task {
		e.setAttachment(a.ID, func(x *model.Attachment) {
			x.Task = model.NewTask(model.ResAttachment, model.TaskResize, x.Status, "r", time.Now())
			x.Task.NewSize, x.StatusReason = 2*model.GiB, "not seen yet"
		})
		x, _ := testStore.Attachments.Get(a.ID)
		return x.Task
	}
	k := unseen()
	var spec wire.TaskSpec
	if e.post("/tasks/"+k.ID+"/cancel", nil).want(202).into(&spec); !spec.CancelRequested || spec.Kind != model.TaskResize || spec.NewSize != 2 {
		t.Errorf("%+v", spec)
	}
	e.setAttachment(a.ID, func(x *model.Attachment) { x.Task.EndWith(model.Errorf(model.KindConflict, "cancelled"), time.Now()) })
	e.post("/tasks/"+k.ID+"/retry", nil).want(202).into(&spec)
	if spec.ID == k.ID || spec.Kind != model.TaskResize || spec.NewSize != 2 {
		t.Errorf("%+v", spec)
	}
	unseen()
	e.del(p).want(202)
	if x, _ := testStore.Attachments.Get(a.ID); x.Task.Kind != model.TaskDelete || x.StatusReason != "" {
		t.Errorf("%+v", x)
	}
}

func TestGrowFileSystem(t *testing.T) {
	e := newEnv(t)
	pool, h := e.pool(), e.host()
	v := e.volume(pool, e.profile())
	grow := func() *reply {
		t.Helper()
		return e.post("/block/volumes/"+v.ID+"/resize", map[string]any{"newSize": 20, "growFileSystem": true})
	}
	grow().fails(400, model.KindInvalid, "growFileSystem", "has 0 attachments")
	a := e.attachment(v, h)
	e.settle(pool)
	grow().fails(400, model.KindInvalid, "growFileSystem", "attaches by itself")
	e.setAttachment(a.ID, func(x *model.Attachment) { x.DockID, x.AttachMode = "d1", "ro" })
	grow().fails(400, model.KindInvalid, "growFileSystem", "is read-only")
	e.setAttachment(a.ID, func(x *model.Attachment) { x.AttachMode = "rw" })
	grow().want(202)
	if x, _ := testStore.Volumes.Get(v.ID); !x.Task.GrowFS || x.Task.NewSize != 20*model.GiB {
		t.Errorf("%+v", x.Task)
	}
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
