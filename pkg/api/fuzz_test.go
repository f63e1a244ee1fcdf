package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// isRefusal says whether an error is the client's fault.
func isRefusal(err error) bool {
	s := model.AsError(err).HTTPStatus()
	return s >= 400 && s < 500
}

func FuzzListQuery(f *testing.F) {
	for _, s := range []string{
		"", "limit=5&offset=2&sortKey=name&sortDir=asc", "Name=v1&name=v2&size=3&status=available", "limit=0", "limit=99999999999999999999", "offset=-1",
		"sortKey=createdAt&sortDir=DESC&createdAt=2026-11-20T21:40:25", "marker=eyJhdCI6e319", "%zz", "a;b", "multiAttach=true&durableName=6x", "limit=%31", "=&&==",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, hash, err := listQuery(raw, "t", testStore.Volumes)
		if err != nil {
			if !isRefusal(err) {
				t.Fatalf("%q: %v", raw, err)
			}
			return
		}
		if hash == "" || q.Limit < 0 || q.Limit > db.MaxPage || q.Offset < 0 || q.Tenant != "t" {
			t.Fatalf("%q: %+v", raw, q)
		}
		if p := testStore.Volumes.List(q); len(p.Items) > q.Limit {
			t.Fatalf("%q: %d rows", raw, len(p.Items))
		}
	})
}

func FuzzMarker(f *testing.F) {
	f.Add(marker{At: db.Cursor{Value: "v", ID: "a"}, Hash: "h"}.String(), "h")
	f.Add(marker{At: db.Cursor{Num: -5, ID: "b"}, Hash: ""}.String(), "")
	f.Add("e30", "")
	f.Add("bnVsbA", "")
	f.Add("!", "x")
	f.Fuzz(func(t *testing.T, s, hash string) {
		at, err := parseMarker(s, hash)
		if err != nil {
			if !isRefusal(err) {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		again, err := parseMarker(marker{*at, hash}.String(), hash)
		if err != nil || *again != *at {
			t.Fatalf("%q: %+v becomes %+v, %v", s, at, again, err)
		}
		for _, sort := range []string{"", "size", "name"} {
			testStore.Volumes.List(db.Query{Sort: sort, After: at, Limit: 10, Desc: len(s)%2 == 0})
		}
	})
}

func FuzzTaskQuery(f *testing.F) {
	for _, s := range []string{"", "state=active", "state=done&resource=volumes&resourceId=x", "limit=5&marker=e30", "offset=1", "%"} {
		f.Add(s)
	}
	e := newEnv(f)
	f.Fuzz(func(t *testing.T, raw string) { e.fuzz(t, "GET", "/tasks", raw, "") })
}

func FuzzEventPosition(f *testing.F) {
	for _, s := range []string{"1", "1.0", "0", "", ".", "9223372036854775807.2147483647", "-1", "1e5", "٣"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePosition("since", s)
		if err != nil {
			if !isRefusal(err) {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		again, err := parsePosition("since", p.String())
		if err != nil || again != p {
			t.Fatalf("%q: %+v becomes %+v, %v", s, p, again, err)
		}
		if st, ok := testStore.Stream(p.rev, p.n); ok && st == nil {
			t.Fatal("no stream")
		}
	})
}

// emptyPlanner answers with an explanation that names no pool.
type emptyPlanner struct{}

func (emptyPlanner) Explain(context.Context, *model.Volume, int) (*model.Explanation, error) {
	return &model.Explanation{Reason: "-", Pools: []model.PoolVerdict{}}, nil
}

// fuzz sends a request straight to the handler. No answer may be a fault of the
// server, and each error has a body that says so.
func (e *env) fuzz(t *testing.T, method, path, query, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, "/", strings.NewReader(body))
	r.URL = &url.URL{Path: "/v1beta/" + e.tenant + path, RawQuery: query}
	w := httptest.NewRecorder()
	e.s.ServeHTTP(w, r)
	var spec wire.ErrorSpec
	switch {
	case w.Code >= 500:
		t.Fatalf("%s?%s %q: %d %s", path, query, body, w.Code, w.Body)
	case w.Code >= 400 && (json.Unmarshal(w.Body.Bytes(), &spec) != nil || spec.Code != w.Code || spec.Message == ""):
		t.Fatalf("%s?%s %q: error body %s", path, query, body, w.Body)
	case w.Code < 400 && !json.Valid(w.Body.Bytes()):
		t.Fatalf("%s?%s %q: body %s", path, query, body, w.Body)
	}
	return w
}

func fuzzEnv(f *testing.F, strict bool) *env {
	log := logrus.New()
	log.SetLevel(logrus.PanicLevel)
	return newEnv(f, func(d *Deps) { d.Planner, d.Strict, d.Log = emptyPlanner{}, strict, logrus.NewEntry(log) })
}

// FuzzVolumeBody plans volumes, so that nothing is written.
func FuzzVolumeBody(f *testing.F) {
	for _, s := range []string{
		`{"name":"v","size":1}`, `{"Name":"v","SIZE":1e3}`, `{"name":"v","size":1,"metadata":{"a":"b"},"multiAttach":true,"availabilityZone":"z"}`,
		`{"id":"019a8f6e-51b2-7f43-b1c4-0a9d8e7f6c55","name":"v","size":1,"snapshotId":"x"}`, `{"size":9223372036854775807}`, `[]`, `null`, ``, `{"name":"\ud800"}`,
		`{"name":"v","size":1,"identifier":{"durableName":"x"}}`, `{"a":[[[[[[[[]]]]]]]]}`,
	} {
		f.Add([]byte(s))
	}
	easy, strict := fuzzEnv(f, false), fuzzEnv(f, true)
	p := easy.profile()
	std := &model.Profile{Meta: model.Meta{ID: model.NewID(), Name: defaultProfile, CreatedAt: easy.s.now()}, StorageType: "block"}
	easy.commit((&db.Txn{Label: "test"}).Put(std))
	f.Cleanup(func() { easy.commit((&db.Txn{Label: "test"}).DeleteRaw(db.Key(model.ResProfile, std.ID))) })
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, e := range []*env{easy, strict} {
			w := e.fuzz(t, "POST", "/block/volumes", "dryRun=explain", string(body))
			if w.Code == http.StatusOK || w.Code == http.StatusAccepted {
				var v wire.VolumeSpec
				if json.Unmarshal(body, &v) != nil || v.Name == "" || v.Size <= 0 || v.Size > model.MaxVolumeGB {
					t.Fatalf("accepted: %q", body)
				}
			}
		}
		easy.fuzz(t, "POST", "/block/volumes/"+p.ID+"/resize", "", string(body))
		easy.fuzz(t, "PUT", "/profiles/none", "", string(body))
	})
}

// FuzzProfileBody creates profiles, and changes one; what was made is removed.
func FuzzProfileBody(f *testing.F) {
	for _, s := range []string{
		`{"name":"p","storageType":"block"}`, `{"name":"p","storageType":"file","provisioningProperties":{"ioConnectivity":{"accessProtocol":"nfs"}}}`,
		`{"name":"p","storageType":"BLOCK","customProperties":{"capabilities:totalCapacity":">= 5","weights":{"free":1}}}`,
		`{"name":"p","storageType":"block","replicationProperties":{"replicaInfos":{"replcationBandwidth":5,"consistencyEnalbed":true}}}`,
		`{"name":"p","storageType":"block","snapshotProperties":{"schedule":{"datetime":"2019-09-07T07:02:35.389","occurrence":"Daily"}}}`,
		`{"name":"p","storageType":"block","customProperties":{"capabilities:extras.advanced.a":"<in> ^S","capabilities:b":[1,"x"],"c":{"d":null}}}`, `{}`, `{"customProperties":{"":1}}`,
	} {
		f.Add([]byte(s))
	}
	e := fuzzEnv(f, false)
	p := e.profile()
	f.Fuzz(func(t *testing.T, body []byte) {
		w := e.fuzz(t, "POST", "/profiles", "", string(body))
		if w.Code == http.StatusOK {
			var got wire.ProfileSpec
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.ID == "" || got.Name == "" {
				t.Fatalf("%q made %s", body, w.Body)
			}
			if d := httptest.NewRecorder(); got.ID != "" {
				e.s.ServeHTTP(d, httptest.NewRequest("DELETE", "/v1beta/"+e.tenant+"/profiles/"+got.ID, nil))
				if d.Code != http.StatusOK {
					t.Fatalf("%q: the profile cannot be deleted: %d %s", body, d.Code, d.Body)
				}
			}
		}
		e.fuzz(t, "PUT", "/profiles/"+p.ID, "", string(body))
	})
}
