package api

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
)

// beyond are the fields that answers have and the original's have not.
var beyond = map[string]bool{
	"taskId": true, "statusReason": true, "kind": true, "field": true, "requestId": true, "reservedCapacity": true, "provisionedLimit": true,
	"overProvisioningRatio": true, "abilities": true, "driver": true, "backend": true, "version": true, "status": true, "poolId": true,
}

var (
	idName   = regexp.MustCompile(`U[0-9]+`)
	wireTime = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$`)
)

// names are what U1, U2, ... stand for, known or found in an answer.
type names map[string]string

func (n names) fill(s string) string {
	return idName.ReplaceAllStringFunc(s, func(u string) string {
		if v, ok := n[u]; ok {
			return v
		}
		return u
	})
}

// text compares a string with its pattern, and learns the names it meets first.
func (n names) text(want, got string) error {
	if want == "T" {
		if !wireTime.MatchString(got) {
			return fmt.Errorf("%q is not a time", got)
		}
		return nil
	}
	want = n.fill(want)
	us := idName.FindAllString(want, -1)
	if len(us) == 0 {
		if want != got {
			return fmt.Errorf("%q, want %q", got, want)
		}
		return nil
	}
	m := regexp.MustCompile("^" + idName.ReplaceAllString(regexp.QuoteMeta(want), `([0-9a-f-]{36})`) + "$").FindStringSubmatch(got)
	if m == nil {
		return fmt.Errorf("%q, want %q", got, want)
	}
	for i, u := range us {
		n[u] = m[i+1]
	}
	return nil
}

// match compares an answer with what is wanted. Fields that only this API has
// are let through if they are not named in what is wanted.
func (n names) match(want, got any, at string) error {
	wrong := func() error { return fmt.Errorf("%s: %v, want %v", at, got, want) }
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return wrong()
		}
		for k, v := range w {
			if _, ok := g[k]; !ok {
				return fmt.Errorf("%s.%s is missing", at, k)
			}
			if err := n.match(v, g[k], at+"."+k); err != nil {
				return err
			}
		}
		for k := range g {
			if _, ok := w[k]; !ok && !beyond[k] {
				return fmt.Errorf("%s.%s should not be there", at, k)
			}
		}
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return wrong()
		}
		for i := range w {
			if err := n.match(w[i], g[i], at+"["+strconv.Itoa(i)+"]"); err != nil {
				return err
			}
		}
	case string:
		g, ok := got.(string)
		if !ok {
			return wrong()
		}
		if err := n.text(w, g); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
	default:
		if want != got {
			return wrong()
		}
	}
	return nil
}

// TestCaptures replays what the original API was seen to answer.
func TestCaptures(t *testing.T) {
	f, err := os.Open("testdata/captures.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var e *env
	var pool *model.Pool
	var n names
	var request string
	requests := 0
	for in := bufio.NewScanner(f); in.Scan(); {
		kind, rest, _ := strings.Cut(in.Text(), " ")
		switch kind {
		case "==":
			e = newEnv(t, func(d *Deps) { d.Store = ownStore(t) }).admin()
			pool, n = captureSetup(e, rest)
		case ">":
			request = rest
		case "<":
			e.settle(pool)
			replay(e, n, request, rest)
			requests++
		}
	}
	if requests < 80 {
		t.Fatalf("only %d captures were replayed", requests)
	}
}

func replay(e *env, n names, request, answer string) {
	e.t.Helper()
	method, rest, _ := strings.Cut(n.fill(request), " ")
	path, body, _ := strings.Cut(rest, " ")
	if path == "/" || strings.HasPrefix(path, "/v1") {
		path = "/" + path
	}
	var r *reply
	if body == "" {
		r = e.do(method, path, nil)
	} else {
		r = e.do(method, path, body)
	}
	status, wantBody, _ := strings.Cut(answer, " ")
	if strconv.Itoa(r.Status) != status {
		e.t.Fatalf("%s: status %d, want %s: %s", request, r.Status, status, r.Body)
	}
	if wantBody == "" {
		if r.Body != "" {
			e.t.Fatalf("%s: body %s, want none", request, r.Body)
		}
		return
	}
	var want, got any
	if err := json.Unmarshal([]byte(strings.ReplaceAll(wantBody, "{t}", e.tenant)), &want); err != nil {
		e.t.Fatalf("%s: bad capture: %v", request, err)
	}
	r.into(&got)
	if err := n.match(want, got, "answer"); err != nil {
		e.t.Fatalf("%s: %v\n%s", request, err, r.Body)
	}
}

// captureSetup makes what a section of the captures begins with.
func captureSetup(e *env, section string) (*model.Pool, names) {
	yes, no := true, false
	dock := &model.Dock{
		Meta: model.Meta{ID: model.NewID(), Name: "sample", Description: "Sample Test", CreatedAt: e.s.now()},
		Type: "provisioner", Status: model.StatusAvailable, Endpoint: "127.0.0.1:50050", NodeID: "vm", DriverName: "sample",
		Metadata: map[string]string{"HostReplicationDriver": "sample"},
	}
	e.commit((&db.Txn{Label: "test"}).Create(dock))
	pool := e.pool(func(p *model.Pool) {
		p.Name, p.Description, p.DockID = "sample-pool-01", "This is the first sample storage pool for testing", dock.ID
		p.MultiAttach, p.ReplicationType = true, "ArrayBased"
		p.Extras = model.PoolExtras{
			DataStorage:    model.DataStorage{ProvisioningPolicy: "Thin", Compression: &yes, Deduplication: &no},
			IOConnectivity: model.IOConnectivity{AccessProtocol: "rbd", MaxIOPS: 8000000, MinIOPS: 1000000, MaxBWS: 700, MinBWS: 100, Latency: 100},
			Advanced:       map[string]any{"diskType": "SSD", "latency": "3ms"},
		}
	})
	profile := func(name, storageType string) string {
		var p struct{ ID string }
		e.post("/profiles", map[string]any{"name": name, "storageType": storageType}).want(200).into(&p)
		return p.ID
	}
	n := names{}
	switch {
	case strings.HasPrefix(section, "hosts"):
		n["U1"], n["U4"], n["U5"] = profile("default_file", "file"), profile("default_block", "block"), pool.ID
	case strings.HasPrefix(section, "volume groups"):
		n["U3"], n["U6"] = profile("default_block", "block"), pool.ID
		for i, u := range []string{"U2", "U1", "U5"} {
			var v struct{ ID string }
			e.post("/block/volumes", map[string]any{"name": "p" + strconv.Itoa(i+1), "size": max(1, i)}).want(202).into(&v)
			n[u] = v.ID
		}
	}
	return pool, n
}
