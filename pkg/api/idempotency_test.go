package api

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

func TestIdempotencyKey(t *testing.T) {
	e := newEnv(t)
	pool, profile := e.pool(), e.profile()
	body := map[string]any{"name": "v", "size": 1, "profileId": profile.ID}
	first := e.post("/block/volumes", body, wire.HeaderIdempotencyKey, "k1").want(202)
	if first.Header.Get(headerReplayed) != "" {
		t.Error("the first answer says that it was given before")
	}
	same := func(r *reply) {
		t.Helper()
		r.want(first.Status)
		if r.Body != first.Body || r.Header.Get("ETag") != first.Header.Get("ETag") || r.Header.Get(headerReplayed) != "true" || r.Header.Get("Content-Type") != contentJSON {
			t.Errorf("again:\n%s %s\nfirst:\n%s %s\n%v", r.Header.Get("ETag"), r.Body, first.Header.Get("ETag"), first.Body, r.Header)
		}
	}
	same(e.post("/block/volumes", body, wire.HeaderIdempotencyKey, "k1"))
	e.settle(pool)
	same(e.post("/block/volumes", body, wire.HeaderIdempotencyKey, "k1")) // as it was, not as it is
	same(newEnv(t).as(e.tenant).post("/block/volumes", body, wire.HeaderIdempotencyKey, "k1"))
	e.post("/block/volumes", map[string]any{"name": "w", "size": 1, "profileId": profile.ID}, wire.HeaderIdempotencyKey, "k1").
		fails(422, model.KindConflict, wire.HeaderIdempotencyKey, "used for another request")
	e.post("/host/hosts", map[string]any{"hostName": unique("h")}, wire.HeaderIdempotencyKey, "k1").want(422)
	var other wire.VolumeSpec
	e.as(unique("tenant")).post("/block/volumes", body, wire.HeaderIdempotencyKey, "k1").want(202).into(&other)
	if strings.Contains(first.Body, other.ID) {
		t.Error("tenants share keys")
	}
	for _, bad := range []string{"", strings.Repeat("k", 256), "k\u00e4"} {
		e.post("/block/volumes", body, wire.HeaderIdempotencyKey, bad).fails(400, model.KindInvalid, wire.HeaderIdempotencyKey, "1 to 255 printable")
	}
	e.post("/block/volumes", body, wire.HeaderIdempotencyKey, "a", wire.HeaderIdempotencyKey, "b").want(400)
	e.post("/block/volumes", body, wire.HeaderIdempotencyKey, strings.Repeat("k", 255)).want(202)
}

func TestIdempotencyOfOtherMethods(t *testing.T) {
	e := newEnv(t)
	pool, profile := e.pool(), e.profile()
	v := e.volume(pool, profile)
	p := "/block/volumes/" + v.ID
	put := e.put(p, `{"name":"n1"}`, wire.HeaderIdempotencyKey, "put").want(200)
	e.put(p, `{"name":"n2"}`).want(200)
	if again := e.put(p, `{"name":"n1"}`, wire.HeaderIdempotencyKey, "put").want(200); again.Body != put.Body {
		t.Errorf("put again: %s", again.Body)
	}
	if r := e.get(p); !strings.Contains(r.Body, `"n2"`) {
		t.Errorf("a repeated PUT was done again: %s", r.Body)
	}
	e.post(p+"/resize", `{"newSize":2}`, wire.HeaderIdempotencyKey, "grow").want(202)
	e.settle(pool)
	e.post(p+"/resize", `{"newSize":2}`, wire.HeaderIdempotencyKey, "grow").want(202)
	e.post(p+"/resize", `{"newSize":2}`).want(400)
	if r := e.del(p, wire.HeaderIdempotencyKey, "del").want(202); r.Body != "" {
		t.Errorf("delete: %s", r.Body)
	}
	e.del(p, wire.HeaderIdempotencyKey, "del").want(202)
	e.settle(pool)
	r := e.del(p, wire.HeaderIdempotencyKey, "del").want(202)
	if r.Body != "" || r.Header.Get("Content-Type") != "" || r.Header.Get(headerReplayed) != "true" {
		t.Errorf("delete again: %q %v", r.Body, r.Header)
	}
	e.del(p).want(404)
	e.del("/profiles/"+profile.ID, wire.HeaderIdempotencyKey, "prof").want(200)
	e.del("/profiles/"+profile.ID, wire.HeaderIdempotencyKey, "prof").want(200)
}

func TestFailedValidationIsNotStored(t *testing.T) {
	e := newEnv(t)
	p := e.profile()
	v := e.volume(e.pool(), p)
	body := map[string]any{"volumeId": v.ID, "name": "s"}
	e.setVolume(v.ID, func(v *model.Volume) { v.Status = model.StatusError })
	e.post("/block/snapshots", body, wire.HeaderIdempotencyKey, "k").want(400)
	e.setVolume(v.ID, func(v *model.Volume) { v.Status = model.StatusAvailable })
	e.post("/block/snapshots", body, wire.HeaderIdempotencyKey, "k").want(202)
}

func TestConcurrentIdempotencyKey(t *testing.T) {
	e := newEnv(t)
	e2 := newEnv(t).as(e.tenant) // a second server: nothing in memory is shared
	profile := e.profile()
	body := map[string]any{"name": "v", "size": 1, "profileId": profile.ID}
	for round := range 4 {
		key := unique("key")
		replies := make([]*reply, 32)
		var wg sync.WaitGroup
		for i := range replies {
			wg.Add(1)
			go func() {
				defer wg.Done()
				replies[i] = []*env{e, e2}[i%2].post("/block/volumes", body, wire.HeaderIdempotencyKey, key)
			}()
		}
		wg.Wait()
		replayed := 0
		for _, r := range replies {
			if r.Status != 202 || r.Body != replies[0].Body {
				t.Fatalf("%d %s, and %d %s", r.Status, r.Body, replies[0].Status, replies[0].Body)
			}
			if r.Header.Get(headerReplayed) == "true" {
				replayed++
			}
		}
		if replayed != len(replies)-1 {
			t.Errorf("%d of %d answers are replays", replayed, len(replies))
		}
		var vs []wire.VolumeSpec
		if e.get("/block/volumes").into(&vs); len(vs) != round+1 {
			t.Fatalf("%d volumes after %d rounds", len(vs), round+1)
		}
	}
}

func TestStoredAnswersShareALease(t *testing.T) {
	e := newEnv(t)
	for range 3 {
		e.post("/host/hosts", map[string]any{"hostName": unique("h")}, wire.HeaderIdempotencyKey, unique("k")).want(200)
	}
	first := e.s.leases.id
	if first == 0 {
		t.Fatal("no lease")
	}
	e.s.leases.made = e.s.leases.made.Add(-2 * time.Hour)
	e.post("/host/hosts", map[string]any{"hostName": unique("h")}, wire.HeaderIdempotencyKey, unique("k")).want(200)
	second := e.s.leases.id
	if second == first {
		t.Error("an old lease is used on")
	}
	// A lease that the store does not know any more is replaced.
	e.s.leases.id = 12345
	e.post("/host/hosts", map[string]any{"hostName": unique("h")}, wire.HeaderIdempotencyKey, unique("k")).want(503)
	e.post("/host/hosts", map[string]any{"hostName": unique("h")}, wire.HeaderIdempotencyKey, unique("k")).want(200)
}

// TestSameIDOnce: of many creates with the same id, one wins.
func TestSameIDOnce(t *testing.T) {
	e := newEnv(t)
	e2 := newEnv(t).as(e.tenant)
	profile := e.profile()
	id := model.NewID()
	var mu sync.Mutex
	count := map[int]int{}
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := []*env{e, e2}[i%2].post("/block/volumes", map[string]any{"id": id, "name": "v", "size": 1, "profileId": profile.ID})
			mu.Lock()
			defer mu.Unlock()
			count[r.Status]++
		}()
	}
	wg.Wait()
	if count[http.StatusAccepted] != 1 || count[http.StatusConflict] != 63 {
		t.Errorf("answers: %v", count)
	}
}

// TestProfileDeleteAgainstCreates: a profile that is gone has no volumes, and a
// volume that was accepted has its profile.
func TestProfileDeleteAgainstCreates(t *testing.T) {
	e := newEnv(t)
	e2 := newEnv(t).as(e.tenant)
	deleted, kept := 0, 0
	for range 12 {
		profile := e.profile()
		var wg sync.WaitGroup
		var mu sync.Mutex
		created := 0
		for i := range 8 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				r := []*env{e, e2}[i%2].post("/block/volumes", map[string]any{"name": "v", "size": 1, "profileId": profile.ID})
				mu.Lock()
				defer mu.Unlock()
				switch r.Status {
				case 202:
					created++
				case 400: // gone
				default:
					t.Errorf("create: %d %s", r.Status, r.Body)
				}
			}()
		}
		var status [2]int
		for i, s := range []*env{e, e2} {
			wg.Add(1)
			go func() {
				defer wg.Done()
				status[i] = s.del("/profiles/" + profile.ID).Status
			}()
		}
		wg.Wait()
		p, there := testStore.Profiles.Get(profile.ID)
		gone := status[0] == 200 || status[1] == 200
		if gone {
			deleted++
		} else {
			kept++
		}
		if gone == there || (gone && created > 0) || (!gone && created == 0) {
			t.Errorf("deletes answered %v, %d volumes were accepted, the profile exists: %v", status, created, there)
		}
		if there && p.Deleting {
			t.Error("the profile is left marked")
		}
		if n := testStore.Volumes.Count("profileId", profile.ID); n != created {
			t.Errorf("%d volumes, %d were accepted", n, created)
		}
	}
	t.Logf("%d profiles deleted, %d kept", deleted, kept)
}

// TestSnapshotAgainstVolumeDelete: no snapshot of a volume that is being
// deleted.
func TestSnapshotAgainstVolumeDelete(t *testing.T) {
	e := newEnv(t)
	e2 := newEnv(t).as(e.tenant)
	pool, profile := e.pool(), e.profile()
	for range 12 {
		v := e.volume(pool, profile)
		h := e.host()
		status := make([]int, 4)
		var wg sync.WaitGroup
		for i, f := range []func() *reply{
			func() *reply { return e.post("/block/snapshots", map[string]any{"volumeId": v.ID}) },
			func() *reply { return e2.del("/block/volumes/" + v.ID) },
			func() *reply { return e2.post("/block/attachments", map[string]any{"volumeId": v.ID, "hostId": h.ID}) },
			func() *reply { return e.del("/host/hosts/" + h.ID) },
		} {
			wg.Add(1)
			go func() {
				defer wg.Done()
				r := f()
				status[i] = r.Status
				if r.Status != 200 && r.Status != 202 && r.Status != 400 {
					t.Errorf("%s: %d %s", r.what, r.Status, r.Body)
				}
			}()
		}
		wg.Wait()
		now, _ := testStore.Volumes.Get(v.ID)
		deleting := status[1] == 202
		if deleting != (now.Status == model.StatusDeleting) {
			t.Errorf("delete answered %d, the volume is %s", status[1], now.Status)
		}
		if deleting && (status[0] == 202 || status[2] == 202) {
			t.Errorf("answers %v: a volume that is being deleted has children", status)
		}
		if status[2] == 202 && status[3] == 200 {
			t.Errorf("answers %v: a host that is gone has an attachment", status)
		}
	}
}

// TestContentionOnOneParent: many children of one parent at once are all made.
func TestContentionOnOneParent(t *testing.T) {
	e := newEnv(t)
	pool, profile := e.pool(), e.profile()
	v := e.volume(pool, profile)
	var wg sync.WaitGroup
	for range 48 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if r := e.post("/block/snapshots", map[string]any{"volumeId": v.ID}); r.Status != 202 {
				t.Errorf("%d %s", r.Status, r.Body)
			}
		}()
	}
	wg.Wait()
	if n := testStore.Snapshots.Count("volumeId", v.ID); n != 48 {
		t.Errorf("%d snapshots", n)
	}
}

// TestAttachTwiceAtOnce: a volume that is not multi-attach gets one attachment.
func TestAttachTwiceAtOnce(t *testing.T) {
	e := newEnv(t)
	e2 := newEnv(t).as(e.tenant)
	v := e.volume(e.pool(), e.profile())
	var mu sync.Mutex
	count := map[int]int{}
	var wg sync.WaitGroup
	for i := range 16 {
		h := e.host()
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := []*env{e, e2}[i%2].post("/block/attachments", map[string]any{"volumeId": v.ID, "hostId": h.ID})
			mu.Lock()
			defer mu.Unlock()
			count[r.Status]++
		}()
	}
	wg.Wait()
	if count[202] != 1 || count[400] != 15 {
		t.Errorf("answers: %v", count)
	}
}

// TestGroupDeleteAgainstSnapshots: no snapshot of a member of a group that is
// being deleted.
func TestGroupDeleteAgainstSnapshots(t *testing.T) {
	e := newEnv(t)
	e2 := newEnv(t).as(e.tenant)
	pool, profile := e.pool(), e.profile()
	for range 8 {
		g := create[wire.VolumeGroupSpec](e, "/block/volumeGroups", pool, map[string]any{"profiles": []string{profile.ID}})
		v := e.volume(pool, profile, map[string]any{"groupId": g.ID})
		var wg sync.WaitGroup
		status := make([]int, 3)
		for i, f := range []func() *reply{
			func() *reply { return e.post("/block/snapshots", map[string]any{"volumeId": v.ID}) },
			func() *reply { return e2.del("/block/volumeGroups/" + g.ID) },
			func() *reply {
				return e.post("/block/volumes", map[string]any{"name": "w", "size": 1, "profileId": profile.ID, "groupId": g.ID})
			},
		} {
			wg.Add(1)
			go func() {
				defer wg.Done()
				status[i] = f().Status
			}()
		}
		wg.Wait()
		if status[1] == 202 && (status[0] == 202 || status[2] == 202 && testStore.Volumes.Count("groupId", g.ID) != 1) {
			// A member that was being made is refused by the deletion.
			t.Errorf("answers %v", status)
		}
	}
}

// TestAbandonedMark: a server that died while it deleted a profile does not
// block it for ever.
func TestAbandonedMark(t *testing.T) {
	e := newEnv(t)
	mark := func(id string, age time.Duration) {
		t.Helper()
		p, _ := testStore.Profiles.Get(id)
		p = p.Clone()
		p.Deleting, p.UpdatedAt = true, time.Now().UTC().Add(-age)
		e.commit((&db.Txn{Label: "test"}).Update(p))
	}
	body := func(id string) map[string]any { return map[string]any{"name": "v", "size": 1, "profileId": id} }
	old := e.profile()
	mark(old.ID, 2*abandoned)
	e.post("/block/volumes", body(old.ID)).want(202)
	if p, _ := testStore.Profiles.Get(old.ID); p.Deleting {
		t.Error("the mark is still there")
	}
	put := e.profile()
	mark(put.ID, 2*abandoned)
	e.put("/profiles/"+put.ID, `{"description":"d"}`).want(200)
	if p, _ := testStore.Profiles.Get(put.ID); p.Deleting {
		t.Error("the mark is still there after a change")
	}
	fresh := e.profile()
	mark(fresh.ID, 0)
	e.put("/profiles/"+fresh.ID, `{"description":"d"}`).fails(400, model.KindBusy, "", "is being deleted")
	done := make(chan *reply)
	go func() { done <- e.post("/block/volumes", body(fresh.ID)) }()
	time.Sleep(20 * time.Millisecond)
	// Whoever comes next goes on with the deletion.
	e.del("/profiles/" + fresh.ID).want(200)
	(<-done).fails(400, model.KindInvalid, "profileId", "get profile failed")
}
