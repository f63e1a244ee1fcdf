package api

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// hostnames gives the names of a list of hosts.
func hostnames(r *reply) []string {
	r.t.Helper()
	var hs []wire.HostSpec
	r.want(200).into(&hs)
	out := []string{}
	for _, h := range hs {
		out = append(out, h.HostName)
	}
	return out
}

func TestListParameters(t *testing.T) {
	e := newEnv(t).lenient()
	if r := e.get("/host/hosts").want(200); r.Body != "[]" || r.Header.Get(wire.HeaderTotalCount) != "0" {
		t.Errorf("an empty list: %s, total %s", r.Body, r.Header.Get(wire.HeaderTotalCount))
	}
	made := []string{}
	for i := range 7 {
		var h wire.HostSpec
		e.post("/host/hosts", map[string]any{"hostName": fmt.Sprintf("h%d", 7-i), "osType": []string{"linux", "windows"}[i%2], "ip": fmt.Sprintf("10.0.0.%d", i)}).want(200).into(&h)
		made = append(made, h.HostName) // ids ascend with time
	}
	sorted := slices.Sorted(slices.Values(made))
	desc := slices.Clone(sorted)
	slices.Reverse(desc)
	for _, c := range []struct {
		query string
		want  []string
	}{
		{"", made},
		{"limit=3", made[:3]},
		{"limit=3&offset=2", made[2:5]},
		{"offset=6", made[6:]},
		{"offset=7", []string{}},
		{"offset=99999999999999999999", []string{}},
		{"limit=0", []string{}},
		{"limit=99999999999999999999", made},
		{"limit=", made},
		{"sortDir=asc", made},  // counts only with a sortKey
		{"sortDir=desc", made}, //
		{"sortKey=hostName&sortDir=asc", sorted},
		{"sortKey=HOSTNAME&sortDir=ASC", sorted},
		{"sortKey=hostName", desc}, // desc is the default
		{"sortKey=hostName&sortDir=Desc&limit=2&offset=1", desc[1:3]},
		{"sortKey=createdAt&sortDir=asc", made},
		{"hostName=h3", []string{"h3"}},
		{"HostName=h3", []string{"h3"}},
		{"hostName=h3&hostName=h5&sortKey=hostName&sortDir=asc", []string{"h3", "h5"}},
		{"hostName=h3&HostName=h5&sortKey=hostName&sortDir=asc", []string{"h3", "h5"}},
		{"hostName=h3&osType=linux", []string{"h3"}},
		{"hostName=h3&osType=windows", []string{}},
		{"osType=windows&sortKey=hostName&sortDir=asc", []string{"h2", "h4", "h6"}},
		{"hostName=", []string{}},
		{"nonsense=1", made},
		{"ip=10.0.0.0", []string{"h7"}},
		{"hostName=h", []string{}}, // no substrings
	} {
		if got := hostnames(e.get("/host/hosts?" + c.query)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.query, got, c.want)
		}
	}
	for _, c := range []struct{ query, field, message string }{
		{"limit=abc", "limit", "is not a number"},
		{"limit=-1", "limit", "is not a number of 0 or more"},
		{"limit=1.5", "limit", "is not a number"},
		{"limit=%2B1", "limit", "is not a number"},
		{"offset=-1", "offset", "is not a number"},
		{"offset=x", "offset", "is not a number"},
		{"sortKey=nope", "sortKey", "use one of id, name,"},
		{"sortKey=hostName&sortDir=up", "sortDir", "neither asc nor desc"},
		{"sortDir=up", "sortDir", "neither asc nor desc"},
		{"marker=x", "marker", "not one of ours"},
		{"marker=eyJxIjoieCJ9", "marker", "another query"},
		{"hostName=%zz", "", "not well-formed"},
		{strings.Repeat("hostName=x&", 300), "hostName", "at most 256"},
	} {
		e.get("/host/hosts?"+c.query).fails(400, model.KindInvalid, c.field, c.message)
	}
}

func TestListPages(t *testing.T) {
	e := newEnv(t)
	const n = 23
	tx := &db.Txn{Label: "test"}
	for i := range n {
		tx.Create(&model.Host{Meta: model.Meta{ID: model.NewID(), TenantID: e.tenant, CreatedAt: time.Now().UTC()}, HostName: fmt.Sprintf("h%02d", i), OSType: []string{"linux", "esxi"}[i%2]})
	}
	e.commit(tx)
	for _, q := range []string{"", "sortKey=hostName&sortDir=desc", "osType=linux", "osType=linux&sortKey=hostName", "sortKey=osType&sortDir=asc"} {
		all := hostnames(e.get("/host/hosts?limit=1000&" + q))
		got, marker, pages := []string{}, "", 0
		for {
			r := e.get("/host/hosts?limit=5&" + q + "&marker=" + url.QueryEscape(marker))
			page := hostnames(r)
			got = append(got, page...)
			if total := r.Header.Get(wire.HeaderTotalCount); total != "" && total != fmt.Sprint(len(all)) {
				t.Errorf("%s: total %s, want %d", q, total, len(all))
			}
			marker = r.Header.Get(wire.HeaderNextMarker)
			if pages++; marker == "" || pages > n {
				break
			}
		}
		if !slices.Equal(got, all) || pages != (len(all)+4)/5 {
			t.Errorf("%s: %d pages give %v, want %v", q, pages, got, all)
		}
	}
	m := e.get("/host/hosts?limit=5").Header.Get(wire.HeaderNextMarker)
	e.get("/host/hosts?sortKey=hostName&marker="+m).fails(400, model.KindInvalid, "marker", "another query")
	e.get("/host/hosts?osType=linux&marker="+m).fails(400, model.KindInvalid, "marker", "another query")
	e.as(unique("other")).get("/host/hosts?marker="+m).fails(400, model.KindInvalid, "marker", "another query")
	e.get("/host/hosts?offset=1&marker="+m).fails(400, model.KindInvalid, "offset", "cannot be used together")
}

func TestLimitIsClamped(t *testing.T) {
	e := newEnv(t)
	for i := 0; i < 1010; i += 101 {
		tx := &db.Txn{Label: "test"}
		for range 101 {
			tx.Create(&model.Host{Meta: model.Meta{ID: model.NewID(), TenantID: e.tenant, CreatedAt: time.Now().UTC()}, HostName: "h"})
		}
		e.commit(tx)
	}
	r := e.get("/host/hosts?limit=5000")
	if got := len(hostnames(r)); got != db.MaxPage || r.Header.Get(wire.HeaderTotalCount) != "1010" || r.Header.Get(wire.HeaderNextMarker) == "" {
		t.Errorf("%d rows, total %s, marker %q", got, r.Header.Get(wire.HeaderTotalCount), r.Header.Get(wire.HeaderNextMarker))
	}
	if got := len(hostnames(e.get("/host/hosts"))); got != defaultLimit {
		t.Errorf("%d rows without a limit", got)
	}
}

func TestTenantsSeeOnlyTheirOwn(t *testing.T) {
	a := newEnv(t)
	b := a.as(unique("tenant"))
	pool, profile := a.pool(), a.profile()
	v := a.volume(pool, profile)
	x := a.snapshot(v)
	h := a.host()
	at := a.attachment(v, h)
	g := create[wire.VolumeGroupSpec](a, "/block/volumeGroups", pool, map[string]any{"profiles": []string{profile.ID}})
	paths := map[string]string{
		"/block/volumes": v.ID, "/block/snapshots": x.ID, "/host/hosts": h.ID, "/block/attachments": at.ID, "/block/volumeGroups": g.ID,
	}
	for path, id := range paths {
		if r := b.get(path).want(200); r.Body != "[]" {
			t.Errorf("another tenant lists %s: %s", path, r.Body)
		}
		b.get(path + "/" + id).want(404)
		b.put(path+"/"+id, `{"name":"mine"}`).want(404)
		b.del(path + "/" + id).want(404)
		a.admin().get(path + "/" + id).want(200)
		if r := a.admin().get(path + "?id=" + id).want(200); !strings.Contains(r.Body, id) {
			t.Errorf("the administrator does not list %s %s", path, id)
		}
		// Ids are one space for all tenants, and the answer says no more.
		body := map[string]any{"id": id, "name": "x", "size": 1, "profileId": profile.ID, "volumeId": v.ID, "hostId": h.ID, "hostName": "x", "profiles": []string{profile.ID}}
		r := b.post(path, body).want(409)
		if strings.Contains(r.Body, a.tenant) || !strings.Contains(r.Body, "exists already") {
			t.Errorf("%s: %s", path, r.Body)
		}
	}
	b.post("/block/volumes/"+v.ID+"/resize", `{"newSize":2}`).want(404)
	b.post("/block/snapshots/"+x.ID+"/revert", nil).want(404)
	b.get("/block/volumes/" + v.ID + "/explanation").want(404)
	b.post("/block/snapshots", map[string]any{"volumeId": v.ID}).fails(400, model.KindInvalid, "volumeId", "can't find")
	b.post("/block/volumes", map[string]any{"name": "x", "size": 1, "snapshotId": x.ID}).fails(400, model.KindInvalid, "snapshotId", "can't find")
	b.post("/block/volumes", map[string]any{"name": "x", "size": 1, "sourceVolumeId": v.ID}).fails(400, model.KindInvalid, "sourceVolumeId", "can't find")
	b.post("/block/volumes", map[string]any{"name": "x", "size": 1, "profileId": profile.ID, "groupId": g.ID}).fails(400, model.KindInvalid, "groupId", "can't find")
	b.post("/block/attachments", map[string]any{"volumeId": v.ID, "hostId": b.host().ID}).fails(400, model.KindInvalid, "volumeId", "can't find")
	b.post("/block/attachments", map[string]any{"volumeId": v.ID, "hostId": h.ID}).fails(400, model.KindInvalid, "hostId", "can't find")
	// What an administrator makes belongs to the tenant of the URL.
	var ah wire.HostSpec
	a.admin().post("/host/hosts", map[string]any{"hostName": unique("h"), "availabilityZones": []string{"default"}}).want(200).into(&ah)
	if ah.TenantID != model.AdminTenant {
		t.Errorf("the administrator's host belongs to %s", ah.TenantID)
	}
	// A tenant's volume is not shown to another tenant's host, not even by an
	// administrator's slip.
	other := b.host()
	free := a.volume(pool, profile)
	a.admin().post("/block/attachments", map[string]any{"volumeId": free.ID, "hostId": other.ID}).fails(400, model.KindInvalid, "hostId", "different tenants")
	a.admin().post("/block/attachments", map[string]any{"volumeId": free.ID, "hostId": ah.ID}).want(202)
}
