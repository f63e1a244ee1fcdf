package api

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/gorilla/mux"

	"github.com/osds-io/osds/pkg/api/apicheck"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// suite checks every request and answer of this package's tests against the
// API's description.
var suite = apicheck.NewSuite()

// checked gives a client whose every request and answer is checked.
func checked(t testing.TB) *http.Client {
	return &http.Client{Transport: suite.Checker(t).Transport(nil)}
}

// unchecked is for tests with routes of their own.
func (e *env) unchecked() *env {
	c := *e
	c.client = http.DefaultClient
	return &c
}

// lenient is for tests of what the server puts up with and the description does
// not promise.
func (e *env) lenient() *env {
	c, k := *e, suite.Checker(e.t)
	k.AnyRequest = true
	c.client = &http.Client{Transport: k.Transport(nil)}
	return &c
}

// complete fails a run of all tests in which an operation of the description was
// never answered with success.
func complete(code int) int {
	for _, name := range []string{"test.run", "test.skip", "test.fuzz", "test.list"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" {
			return code // some tests only
		}
	}
	if missed := suite.Unseen(); code == 0 && len(missed) > 0 {
		fmt.Fprintln(os.Stderr, "no test got a successful answer from:", strings.Join(missed, ", "))
		return 1
	}
	return code
}

func document(t testing.TB) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(OpenAPI())
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		t.Fatal(err)
	}
	return doc
}

// Each route is in the description, and each operation of the description has a
// route.
func TestDescriptionHasEveryRoute(t *testing.T) {
	served := map[string]bool{}
	for _, r := range newEnv(t).s.Routes() {
		served[r.Method+" "+r.Path] = true
	}
	doc := document(t)
	// Nor is there a way around the list of routes.
	err := newEnv(t).s.router.Walk(func(r *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		path, err := r.GetPathTemplate()
		if err == nil && doc.Paths.Value(path) == nil {
			t.Errorf("the router has %s, which is not described", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			if key := method + " " + path; !served[key] {
				t.Errorf("described, but not served: %s", key)
			} else {
				delete(served, key)
			}
		}
	}
	for key := range served {
		t.Errorf("served, but not described: %s", key)
	}
	if doc.Paths.Len() < 30 {
		t.Errorf("only %d paths", doc.Paths.Len())
	}
}

// Whatever is sent to a server can be done with the description alone: each
// operation has an id, a summary, a tag that exists, and error bodies of one form.
func TestDescriptionIsOfOnePiece(t *testing.T) {
	doc := document(t)
	ids := map[string]bool{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			at := method + " " + path
			if op.OperationID == "" || ids[op.OperationID] || op.Summary == "" {
				t.Errorf("%s: operationId %q is missing or not unique, or there is no summary", at, op.OperationID)
			}
			ids[op.OperationID] = true
			for _, tag := range op.Tags {
				if doc.Tags.Get(tag) == nil {
					t.Errorf("%s: there is no tag %s", at, tag)
				}
			}
			for status, ref := range op.Responses.Map() {
				if status < "400" || status == "503" && op.OperationID == "readiness" {
					continue
				}
				mt := ref.Value.Content.Get("application/json")
				if mt == nil || mt.Schema.Ref != "#/components/schemas/Error" {
					t.Errorf("%s: %s is not an Error", at, status)
				}
			}
		}
	}
}

func TestDescriptionIsServed(t *testing.T) {
	e := newEnv(t)
	j := e.get("//openapi.json").want(200)
	var doc map[string]any
	j.into(&doc)
	if doc["openapi"] != "3.0.3" {
		t.Errorf("openapi %v", doc["openapi"])
	}
	y := e.get("//openapi.yaml").want(200)
	if y.Body != string(OpenAPI()) {
		t.Error("the YAML differs from the file")
	}
	a, err := openapi3.NewLoader().LoadFromData([]byte(j.Body))
	if err != nil {
		t.Fatal(err)
	}
	b := document(t)
	aj, _ := json.Marshal(a)
	bj, _ := json.Marshal(b)
	if !bytes.Equal(aj, bj) {
		t.Error("JSON and YAML say different things")
	}
}

// The checker finds what it is there to find.
func TestCheckerComplains(t *testing.T) {
	doc := newEnv(t).get("//openapi.json").Body
	type bad struct {
		name, method, path string
		status             int
		header             map[string]string
		body               string
	}
	ok := map[string]string{"Content-Type": contentJSON, "X-Request-Id": "r", "X-Osds-Revision": "1"}
	tenant := "/v1beta/t/"
	for _, c := range []bad{
		{"a route that is not described", "GET", "/v1beta/t/nope", 200, ok, `[]`},
		{"a method that is not described", "PATCH", tenant + "pools", 200, ok, `[]`},
		{"a status that is not described", "GET", tenant + "pools", 418, ok, `{"code":418,"message":"x","kind":"invalid"}`},
		{"a field that is not described", "GET", tenant + "profiles", 200, ok, `[{"id":"a","surprise":1}]`},
		{"a required field that is missing", "GET", tenant + "block/volumes", 200, ok, `[{"id":"a","createdAt":"2026-11-20T21:40:25","updatedAt":""}]`},
		{"a status value that is not one", "GET", tenant + "block/attachments/a", 200,
			map[string]string{"Content-Type": contentJSON, "X-Request-Id": "r", "X-Osds-Revision": "1", "ETag": `"3"`},
			`{"id":"a","createdAt":"2026-11-20T21:40:25","updatedAt":"","volumeId":"v","hostId":"h","status":"fine","connectionInfo":{}}`},
		{"a header that is missing", "GET", tenant + "pools", 200, map[string]string{"Content-Type": contentJSON, "X-Request-Id": "r"}, `[]`},
		{"a code that is not the status", "GET", tenant + "pools/x", 404, ok, `{"code":400,"message":"x","kind":"notFound"}`},
		{"an error without a kind", "GET", tenant + "pools/x", 404, ok, `{"code":404,"message":"x"}`},
		{"a body where there is none", "DELETE", tenant + "profiles/x", 200, ok, `{}`},
		{"an error that is not one of ours", "GET", "/a/b/c", 404, ok, `not found`},
		{"a request that should not have been accepted", "GET", tenant + "block/volumes?limit=-1", 200, ok, `[]`},
	} {
		fake := &complaints{TB: t}
		srv := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/openapi.json" {
				_, _ = w.Write([]byte(doc))
				return
			}
			for k, v := range c.header {
				w.Header().Set(k, v)
			}
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte(c.body))
		})
		check := apicheck.New(fake)
		h := serve(t, srv)
		r, _ := http.NewRequest(c.method, h+c.path, nil)
		resp, err := (&http.Client{Transport: check.Transport(nil)}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if len(fake.said) == 0 {
			t.Errorf("%s: no complaint", c.name)
		}
	}
}

// complaints collects what would fail a test.
type complaints struct {
	testing.TB
	said []string
}

func (c *complaints) Errorf(format string, args ...any) {
	c.said = append(c.said, fmt.Sprintf(format, args...))
}
func (c *complaints) Helper() {}

// Every JSON name of the wire types is in the description, so that no field is
// served undescribed.
func TestDescriptionHasEveryField(t *testing.T) {
	doc := document(t)
	for schema, names := range wireNames() {
		ref := doc.Components.Schemas[schema]
		if ref == nil {
			t.Errorf("there is no schema %s", schema)
			continue
		}
		for _, n := range names {
			if _, ok := ref.Value.Properties[n]; !ok {
				t.Errorf("schema %s has no property %s", schema, n)
			}
		}
		for n := range ref.Value.Properties {
			if !slices.Contains(names, n) {
				t.Errorf("schema %s has a property %s that the type has not", schema, n)
			}
		}
		if ap := ref.Value.AdditionalProperties.Has; ap == nil || *ap {
			t.Errorf("schema %s lets anything in", schema)
		}
	}
}

// wireNames gives the names of the fields that are written, by schema.
func wireNames() map[string][]string {
	out := map[string][]string{}
	for schema, v := range map[string]any{
		"Version": wire.VersionSpec{}, "Error": wire.ErrorSpec{}, "Dock": wire.DockSpec{}, "Pool": wire.StoragePoolSpec{}, "PoolExtras": wire.PoolExtrasSpec{},
		"DataStorage": wire.DataStorageSpec{}, "IoConnectivity": wire.IOConnectivitySpec{}, "DataProtection": wire.DataProtectionSpec{},
		"Profile": wire.ProfileSpec{}, "ProvisioningProperties": wire.ProvisioningSpec{}, "ReplicationProperties": wire.ReplicationProps{},
		"SnapshotProperties": wire.SnapshotProps{}, "Host": wire.HostSpec{}, "Initiator": wire.Initiator{}, "Volume": wire.VolumeSpec{},
		"Attachment": wire.VolumeAttachmentSpec{}, "Snapshot": wire.VolumeSnapshotSpec{}, "VolumeGroup": wire.VolumeGroupSpec{},
		"Task": wire.TaskSpec{}, "Event": wire.EventSpec{}, "Ledger": wire.LedgerSpec{}, "Debt": wire.DebtSpec{},
		"DoctorReport": wire.DoctorReport{}, "Explanation": model.Explanation{}, "PoolVerdict": model.PoolVerdict{}, "Readiness": readiness{},
	} {
		for _, name := range shapeOf(v) {
			out[schema] = append(out[schema], name)
		}
	}
	// What is only read.
	for schema, names := range map[string][]string{
		"Host": {"password"}, "VolumeGroup": {"addVolumes", "removeVolumes"}, "PoolExtras": {"customProperties"},
	} {
		out[schema] = slices.DeleteFunc(out[schema], func(n string) bool { return slices.Contains(names, n) })
	}
	return out
}

func serve(t *testing.T, h http.Handler) string {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}
