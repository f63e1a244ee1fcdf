package api

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// bad is a request that must be refused: with its status, and the field that the
// error names. {names} in path and body stand for records of badWorld.
type bad struct {
	method, path, body string
	status             int
	field              string
	headers            []string
}

// badWorld is a system with a record of each sort, and another tenant with
// another of each.
type badWorld struct {
	mine, theirs, strict *env
	names                *strings.Replacer
}

func newBadWorld(t *testing.T) *badWorld {
	st := ownStore(t)
	e := newEnv(t, func(d *Deps) { d.Store = st })
	w := &badWorld{mine: e, theirs: e.as(unique("other"))}
	strict := newEnv(t, func(d *Deps) { d.Store, d.Strict = st, true })
	w.strict = strict.as(e.tenant)

	pool := e.pool()
	elsewhere := e.pool(func(p *model.Pool) { p.AvailabilityZone = "elsewhere" })
	profile, second := e.profile(), e.profile()
	var file wire.ProfileSpec
	e.post("/profiles", map[string]any{"name": unique("file"), "storageType": "file"}).want(200).into(&file)
	names := []string{"{pool}", pool.ID, "{elsewhere}", elsewhere.ID, "{profile}", profile.ID, "{profileName}", profile.Name,
		"{second}", second.ID, "{secondName}", second.Name, "{file}", file.ID, "{none}", model.NewID(),
		"{long}", strings.Repeat("a", 256), "{longer}", strings.Repeat("a", 1025), "{huge}", strings.Repeat("a", 5000)}
	for _, side := range []struct {
		prefix string
		*env
	}{{"", e}, {"their", w.theirs}} {
		v := side.volume(pool, profile, map[string]any{"size": 3, "metadata": map[string]string{"own": "x"}})
		used := side.volume(pool, profile)
		h := side.host()
		s, a := side.snapshot(v), side.attachment(used, h)
		g := create[wire.VolumeGroupSpec](side.env, "/block/volumeGroups", pool, map[string]any{"name": "g", "profiles": []string{profile.ID}})
		member := side.volume(pool, profile, map[string]any{"groupId": g.ID})
		odd := side.volume(pool, second)
		busy := side.pending(profile)
		making := &wire.VolumeSnapshotSpec{}
		side.post("/block/snapshots", map[string]any{"volumeId": member.ID}).want(202).into(making)
		var lone wire.HostSpec
		side.post("/host/hosts", map[string]any{"hostName": unique("lone")}).want(200).into(&lone)
		for name, id := range map[string]string{
			"vol": v.ID, "used": used.ID, "host": h.ID, "hostName": h.HostName, "snap": s.ID, "att": a.ID, "group": g.ID, "member": member.ID,
			"odd": odd.ID, "busy": busy.ID, "making": making.ID, "lone": lone.ID, "task": busy.TaskID, "done": v.TaskID,
		} {
			names = append(names, "{"+side.prefix+name+"}", id)
		}
	}
	w.names = strings.NewReplacer(names...)
	return w
}

// counts tells how many records there are of each sort, and each record's
// revision.
func (w *badWorld) counts() map[string]int64 {
	st, out := w.mine.store, map[string]int64{}
	for _, r := range st.Volumes.All() {
		out["volume "+r.ID] = r.Rev
	}
	for _, r := range st.Snapshots.All() {
		out["snapshot "+r.ID] = r.Rev
	}
	for _, r := range st.Attachments.All() {
		out["attachment "+r.ID] = r.Rev
	}
	for _, r := range st.Groups.All() {
		out["group "+r.ID] = r.Rev
	}
	for _, r := range st.Hosts.All() {
		out["host "+r.ID] = r.Rev
	}
	for _, r := range st.Profiles.All() {
		out["profile "+r.ID] = r.Rev
	}
	for _, r := range st.Pools.All() {
		out["pool "+r.ID] = r.Rev
	}
	for _, r := range st.Docks.All() {
		out["dock "+r.ID] = r.Rev
	}
	for _, r := range st.Debts.All() {
		out["debt "+r.ID] = r.Rev
	}
	return out
}

// try sends one bad request and checks its refusal. The form of the error is
// checked against the description by the client.
func (w *badWorld) try(t *testing.T, e *env, b bad) {
	t.Helper()
	r := e.do(b.method, w.names.Replace(b.path), w.names.Replace(b.body), b.headers...)
	what := fmt.Sprintf("%s %s %.200s", b.method, b.path, b.body)
	if r.Status != b.status {
		t.Errorf("%s: status %d, want %d: %.300s", what, r.Status, b.status, r.Body)
		return
	}
	if b.method == http.MethodHead {
		return
	}
	var spec wire.ErrorSpec
	if err := json.Unmarshal([]byte(r.Body), &spec); err != nil {
		t.Errorf("%s: %v: %.300s", what, err, r.Body)
		return
	}
	if spec.Field != w.names.Replace(b.field) {
		t.Errorf("%s: field %q, want %q: %s", what, spec.Field, b.field, spec.Message)
	}
	if len(spec.Message) > 2000 {
		t.Errorf("%s: the message has %d bytes", what, len(spec.Message))
	}
}

// volume makes bodies of volumes that are right but for one field.
func badVolume(field, value string) string {
	m := map[string]json.RawMessage{"name": json.RawMessage(`"v"`), "size": json.RawMessage(`1`), "profileId": json.RawMessage(`"{profile}"`)}
	return badBody(m, field, value)
}

func badBody(m map[string]json.RawMessage, field, value string) string {
	if value == "-" {
		delete(m, field)
	} else {
		m[field] = json.RawMessage(value)
	}
	var parts []string
	for k, v := range m {
		parts = append(parts, fmt.Sprintf("%q:%s", k, v))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// badFields are values that are wrong for each field of a create.
func badFields(path string, right map[string]string, wrong []string) (out []bad) {
	for _, w := range wrong {
		parts := strings.SplitN(w, " ", 3) // field, field named in the error, value
		m := map[string]json.RawMessage{}
		for k, v := range right {
			m[k] = json.RawMessage(v)
		}
		out = append(out, bad{"POST", path, badBody(m, parts[0], parts[2]), 400, parts[1], nil})
	}
	return out
}

func TestBadInput(t *testing.T) {
	w := newBadWorld(t)
	before := w.counts()
	if len(before) < 25 {
		t.Fatalf("only %d records", len(before))
	}
	n := 0
	for name, table := range map[string][]bad{
		"volumes": badVolumes(), "bodies": badBodies(), "snapshots": badSnapshots(), "attachments": badAttachments(), "hosts": badHosts(),
		"profiles": badProfiles(), "groups": badGroups(), "queries": badQueries(), "paths": badPaths(), "headers": badHeaders(), "work": badWork(),
	} {
		t.Run(name, func(t *testing.T) {
			for _, b := range table {
				w.try(t, w.mine, b)
				n++
			}
		})
	}
	t.Run("strict", func(t *testing.T) {
		for _, b := range badStrict() {
			w.try(t, w.strict, b)
			n++
		}
	})
	if n < 150 {
		t.Errorf("only %d bad requests were sent", n)
	}
	t.Logf("%d bad requests", n)
	if after := w.counts(); !reflect.DeepEqual(before, after) {
		for k, rev := range after {
			if old, ok := before[k]; !ok || old != rev {
				t.Errorf("%s was written by a request that was refused (revision %d, before %d)", k, rev, old)
			}
		}
		for k := range before {
			if _, ok := after[k]; !ok {
				t.Errorf("%s was removed by a request that was refused", k)
			}
		}
	}
	for _, v := range w.mine.store.Volumes.All() {
		if v.Task.Active() && v.Task.Kind != model.TaskCreate {
			t.Errorf("volume %s has a task %s", v.ID, v.Task.Kind)
		}
	}
}

// A body whose length is not said beforehand is bounded all the same.
func TestEndlessBody(t *testing.T) {
	e := newEnv(t)
	check := suite.Checker(t).Handler(e.s)
	body := io.MultiReader(strings.NewReader(`{"name":"`), &endless{left: 3 << 20}, strings.NewReader(`"}`))
	r := httptest.NewRequest("POST", "/v1beta/"+e.tenant+"/block/volumes", body)
	r.ContentLength = -1
	w := httptest.NewRecorder()
	check.ServeHTTP(w, r)
	if w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d: %.200s", w.Code, w.Body)
	}
}

type endless struct{ left int }

func (x *endless) Read(p []byte) (int, error) {
	if x.left <= 0 {
		return 0, io.EOF
	}
	n := min(len(p), x.left)
	for i := range n {
		p[i] = 'x'
	}
	x.left -= n
	return n, nil
}

// A record that somebody else changed in between is not overwritten, and a key
// used twice does nothing twice: the refusals that need a request before them.
func TestBadRepeats(t *testing.T) {
	e := newEnv(t)
	profile := e.profile()
	body := func(name string) string {
		return fmt.Sprintf(`{"name":%q,"size":1,"profileId":%q}`, name, profile.ID)
	}
	e.post("/block/volumes", body("a"), "Idempotency-Key", "k").want(202)
	e.post("/block/volumes", body("b"), "Idempotency-Key", "k").fails(422, model.KindConflict, "Idempotency-Key", "another request")
	e.post("/block/volumes?dryRun=", body("a"), "Idempotency-Key", "k").fails(422, model.KindConflict, "Idempotency-Key", "another request")
	e.post("/host/hosts", `{"hostName":"h"}`, "Idempotency-Key", "k").fails(422, model.KindConflict, "Idempotency-Key", "another request")
	h := e.host()
	tag := e.get("/host/hosts/" + h.ID).Header.Get("ETag")
	e.put("/host/hosts/"+h.ID, `{"ip":"10.0.0.1"}`, "If-Match", tag).want(200)
	e.put("/host/hosts/"+h.ID, `{"ip":"10.0.0.2"}`, "If-Match", tag).fails(412, model.KindStale, "", "If-Match")
	e.del("/host/hosts/"+h.ID, "If-Match", tag).fails(412, model.KindStale, "", "If-Match")
	var vols []wire.VolumeSpec
	e.get("/block/volumes").want(200).into(&vols)
	if len(vols) != 1 {
		t.Errorf("%d volumes", len(vols))
	}
	e.commit((&db.Txn{Label: "test"}).Put(&model.Host{Meta: model.Meta{ID: h.ID, TenantID: e.tenant, CreatedAt: time.Now()}, HostName: h.HostName}))
}
