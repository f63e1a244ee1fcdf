package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/osds-io/osds/pkg/model"
)

var update = flag.Bool("update", false, "write the golden files anew")

const (
	volID  = "2f868bc2-0a5b-49a2-a660-d4e6212cac50"
	volID2 = "7c1d1f7e-0a5b-49a2-a660-d4e6212cac51"
	profID = "626765b9-0c41-4fd9-801f-0ae17382ac4c"
	hostID = "f27facc7-8f17-474a-b57b-5b1760e01d0b"
	poolID = "084bf71e-a102-11e7-88a8-e31fe6d52248"
	snapID = "3769855c-a102-11e7-b772-17b880d2f537"
	attID  = "f2dda3d2-bf79-11e7-8665-f750b088f63e"
	grpID  = "3769855c-a102-11e7-b772-17b880d2f555"
	dockID = "08a43707-2537-568b-acd5-315d2f37e3ae"
	taskID = "0199f3a0-0000-7000-8000-000000000001"
)

const vol1 = `{"id":"` + volID + `","createdAt":"2026-11-20T21:35:59","updatedAt":"","tenantId":"e93b","name":"vol1","description":"desc","size":1,
"availabilityZone":"default","status":"available","profileId":"` + profID + `","AttachStatus":""}`

const vol2 = `{"id":"` + volID2 + `","createdAt":"2026-11-20T21:36:59","updatedAt":"2026-11-20T21:37:00","tenantId":"e93b","name":"vol2","size":2048,
"availabilityZone":"zone \u001b[2J2","status":"error","poolId":"` + poolID + `","profileId":"` + profID + `","metadata":{"lvPath":"/dev/vg/<x>&","n":"1"},
"AttachStatus":"","multiAttach":true,"identifier":{"durableName":"6abc","durableNameFormat":"NAA"},"statusReason":"no pool fits","taskId":"` + taskID + `"}`

const volCreating = `{"id":"` + volID + `","createdAt":"2026-11-20T21:35:59","updatedAt":"","tenantId":"e93b","name":"vol1","description":"desc","size":1,
"availabilityZone":"default","status":"creating","profileId":"` + profID + `","AttachStatus":""}`

const profile1 = `{"id":"` + profID + `","createdAt":"2026-11-20T21:40:25","updatedAt":"","name":"default_block","storageType":"block",
"provisioningProperties":{"dataStorage":{"compression":false,"deduplication":false},"ioConnectivity":{}},
"replicationProperties":{"dataProtection":{"isIsolated":false},"replicaInfos":{}},
"snapshotProperties":{"schedule":{},"retention":{},"topology":{}},
"dataProtectionProperties":{"dataProtection":{"isIsolated":false}},"customProperties":{"capabilities:totalCapacity":">= 150","n":5}}`

const host1 = `{"id":"` + hostID + `","createdAt":"2026-11-20T21:40:25","updatedAt":"","tenantId":"e93b","hostName":"h1","osType":"linux",
"accessMode":"agentless","ip":"1.2.3.4","availabilityZones":["default"],"initiators":[{"portName":"iqn.a:b","protocol":"iscsi"}]}`

const pool1 = `{"id":"` + poolID + `","createdAt":"2026-11-20T21:39:18","updatedAt":"","name":"sample-pool-01","description":"a pool","status":"available",
"dockId":"` + dockID + `","availabilityZone":"default","totalCapacity":100,"freeCapacity":90,"multiAttach":true,"storageType":"block",
"extras":{"dataStorage":{"provisioningPolicy":"Thin","compression":true,"deduplication":false},"ioConnectivity":{"accessProtocol":"rbd","maxIOPS":8000000},
"dataProtection":{"isIsolated":false},"advanced":{"diskType":"SSD","latency":"3ms"}},
"reservedCapacity":40,"provisionedLimit":150,"overProvisioningRatio":1.5,"driver":"lvm","abilities":["expand","snapshot"]}`

const dock1 = `{"id":"` + dockID + `","createdAt":"2026-11-20T21:39:18","updatedAt":"","type":"provisioner","name":"sample","description":"Sample Test",
"endpoint":"127.0.0.1:50050","nodeId":"vm","driverName":"sample","metadata":{"HostReplicationDriver":"sample"}}`

const snap1 = `{"id":"` + snapID + `","createdAt":"2026-11-20T21:40:25","updatedAt":"","tenantId":"e93b","name":"s1","description":"d","profileId":"` + profID + `",
"size":3,"status":"available","volumeId":"` + volID + `","metadata":{"a":"b"}}`

const att1 = `{"id":"` + attID + `","createdAt":"2026-11-20T21:40:25","updatedAt":"","tenantId":"e93b","hostId":"` + hostID + `","volumeId":"` + volID + `",
"status":"available","mountpoint":"/mnt","attachMode":"rw","accessProtocol":"iscsi","connectionInfo":{"driverVolumeType":"iscsi","data":{"targetLun":1,"authPassword":"chap-secret"}}}`

const grp1 = `{"id":"` + grpID + `","createdAt":"2026-11-20T21:40:25","updatedAt":"","name":"g1","status":"available","tenantId":"e93b","description":"gd",
"profiles":["` + profID + `"],"availabilityZone":"default","poolId":"` + poolID + `"}`

const task1 = `{"id":"` + taskID + `","resource":"volumes","resourceId":"` + volID + `","kind":"create","state":"waiting","step":"provision","attempts":3,
"lastError":"dock not reachable","errorKind":"unavailable","nextRetry":"2026-11-20T21:41:00","createdAt":"2026-11-20T21:40:25","owner":"let-1",
"steps":[{"step":"place","at":"2026-11-20T21:40:26"}],"resourceName":"vol1","resourceStatus":"creating"}`

const plan1 = `{"at":"2026-11-20T21:40:25Z","size":10,"profileId":"` + profID + `","profileName":"gold","winnerId":"` + poolID + `","winnerName":"fast",
"reason":"it has the most free space","considered":3,"fitting":1,"omitted":1,"pools":[
{"poolId":"` + poolID + `","poolName":"fast","fits":true,"rules":[{"rule":"freeCapacity","want":">= 10 GB","have":"90 GB","ok":true}],"score":1.4,
 "weights":[{"weigher":"free","value":0.9,"weight":1},{"weigher":"spread","value":0.25,"weight":2}]},
{"poolId":"p2","poolName":"slow","fits":false,"rules":[{"rule":"extras.dataStorage.provisioningPolicy","want":"Thin","have":"Thick","ok":false},
 {"rule":"extras.advanced.diskType","want":"SSD","have":"","ok":false,"note":"the pool does not state it"}],"change":["set provisioningPolicy to Thin"]}]}`

// canned are answers by method and path below the tenant.
type canned map[string]string

func cannedAnswers() canned {
	return canned{
		"GET //":                                   `[{"description":"v1beta version","name":"v1beta","status":"CURRENT","updatedAt":"2017-07-10T14:36:58.014Z"}]`,
		"GET //v1beta":                             `{"description":"v1beta version","name":"v1beta","status":"CURRENT","updatedAt":"2017-07-10T14:36:58.014Z"}`,
		"GET /docks":                               "[" + dock1 + "]",
		"GET /docks/" + dockID:                     dock1,
		"GET /pools":                               "[" + pool1 + "]",
		"GET /pools/" + poolID:                     pool1,
		"GET /availabilityZones":                   `["default","zone2"]`,
		"GET /profiles":                            "[" + profile1 + "]",
		"GET /profiles/" + profID:                  profile1,
		"POST /profiles":                           profile1,
		"PUT /profiles/" + profID:                  profile1,
		"DELETE /profiles/" + profID:               "",
		"GET /host/hosts":                          "[" + host1 + "]",
		"GET /host/hosts/" + hostID:                host1,
		"PUT /host/hosts/" + hostID:                host1,
		"POST /host/hosts":                         host1,
		"GET /block/volumes":                       "[" + vol1 + "," + vol2 + "]",
		"GET /block/volumes/" + volID:              vol1,
		"GET /block/volumes/" + volID2:             vol2,
		"POST /block/volumes":                      volCreating,
		"PUT /block/volumes/" + volID:              vol1,
		"POST /block/snapshots":                    snap1,
		"GET /block/snapshots":                     "[" + snap1 + "]",
		"GET /block/snapshots/" + snapID:           snap1,
		"PUT /block/snapshots/" + snapID:           snap1,
		"GET /block/attachments":                   "[" + att1 + "]",
		"GET /block/attachments/" + attID:          att1,
		"PUT /block/attachments/" + attID:          att1,
		"POST /block/attachments":                  att1,
		"DELETE /block/attachments/" + attID:       "",
		"POST /block/volumes/" + volID + "/resize": vol1,
		"GET /block/volumeGroups":                  "[" + grp1 + "]",
		"GET /block/volumeGroups/" + grpID:         grp1,
		"PUT /block/volumeGroups/" + grpID:         grp1,
		"POST /block/volumeGroups":                 grp1,
		"GET /tasks":                               "[" + task1 + "]",
		"GET /tasks/" + taskID:                     task1,
		"POST /tasks/" + taskID + "/retry":         task1,
		"POST /tasks/" + taskID + "/cancel":        task1,
		"GET /ledger": `[{"poolId":"` + poolID + `","poolName":"sample-pool-01","reserved":43486543872,"limit":161061273600,"total":107374182400,
"free":96636764160,"volumes":42949672960,"snapshots":536870912,"debts":0}]`,
		"GET /debts": `[{"id":"d1","createdAt":"2026-11-20T21:40:25","updatedAt":"","dockId":"` + dockID + `","poolId":"` + poolID + `","resource":"volumes",
"objectId":"` + volID + `","reserved":1073741824,"reason":"dock away"}]`,
		"GET /doctor": `{"at":"2026-11-20T21:40:25","ok":false,"checks":[{"name":"ledger","ok":true,"checked":4},
{"name":"orphans","ok":false,"checked":9,"counterExamples":["pool a: volume x","pool a: volume y"],"omitted":7},{"name":"ghosts","ok":false,"error":"dock away"}]}`,
		"GET /profiles/" + profID + "/customProperties":      `{"capabilities:totalCapacity":">= 150","n":5}`,
		"POST /profiles/" + profID + "/customProperties":     `{"k":true}`,
		"DELETE /profiles/" + profID + "/customProperties/k": "",
		"GET /block/volumes/" + volID + "/explanation":       plan1,
	}
}

// server plays canned answers; a handler, where there is one, comes first.
type server struct {
	*httptest.Server
	mu   sync.Mutex
	reqs []string // "METHOD path?query body"
	head []http.Header
}

func (s *server) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.reqs...)
}

func serve(t *testing.T, answers canned, handle func(w http.ResponseWriter, r *http.Request, path string) bool) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		path, ok := strings.CutPrefix(r.URL.Path, "/v1beta/"+model.AdminTenant)
		if !ok {
			path = "/" + r.URL.Path
		}
		line := r.Method + " " + path
		full := line
		if r.URL.RawQuery != "" {
			full += "?" + r.URL.RawQuery
		}
		s.mu.Lock()
		s.reqs = append(s.reqs, strings.TrimSpace(full+" "+string(body)))
		s.head = append(s.head, r.Header.Clone())
		s.mu.Unlock()
		if handle != nil && handle(w, r, path) {
			return
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		answer, ok := answers[line]
		switch {
		case strings.Contains(r.URL.RawQuery, "dryRun=explain"):
			_, _ = io.WriteString(w, plan1)
		case !ok:
			w.WriteHeader(404)
			id := path[strings.LastIndex(path, "/")+1:]
			_, _ = fmt.Fprintf(w, `{"code":404,"message":"volume %s not found: specified volume(%s) can't find"}`, id, id)
		case r.Method == "POST" || r.Method == "DELETE":
			w.WriteHeader(202)
			_, _ = io.WriteString(w, answer)
		default:
			_, _ = io.WriteString(w, answer)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

type result struct {
	code     int
	out, err string
}

func runWith(ctx context.Context, env map[string]string, stdin string, args ...string) result {
	var out, errb bytes.Buffer
	code := Run(ctx, Env{Args: args, Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errb,
		Getenv: func(k string) string { return env[k] }, Version: "1.2.3"})
	return result{code, out.String(), errb.String()}
}

func (s *server) run(t *testing.T, args ...string) result {
	return runWith(t.Context(), map[string]string{"OPENSDS_ENDPOINT": s.URL}, "", args...)
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs\n--- got\n%s--- want\n%s", path, got, want)
	}
}

func TestOutputs(t *testing.T) {
	s := serve(t, cannedAnswers(), nil)
	for name, line := range map[string]string{
		"version-list": "version list", "version-show": "version show v1beta",
		"dock-list": "dock list", "dock-show": "dock show " + dockID, "dock-list-wide": "dock list -o wide",
		"pool-list": "pool list", "pool-list-wide": "pool list -o wide", "pool-show": "pool show " + poolID, "pool-list-yaml": "pool list -o yaml",
		"pool-explain": "pool explain", "pool-explain-one": "pool explain sample-pool-01", "pool-explain-json": "pool explain " + poolID + " -o json",
		"zone-list": "availabilityzone list", "zone-list-json": "az list -o json",
		"profile-list": "profile list", "profile-show": "profile show " + profID, "profile-list-wide": "profile list -o wide",
		"custom-list": "profile customproperty list " + profID,
		"host-list":   "host list", "host-show": "host show " + hostID, "host-list-wide": "host list -o wide", "host-show-yaml": "host show " + hostID + " -o yaml",
		"volume-list": "volume list", "volume-list-wide": "volume list -o wide", "volume-list-json": "volume list -o json",
		"volume-list-yaml": "volume list -o yaml", "volume-list-name": "volume list -o name",
		"volume-show": "volume show " + volID2, "volume-show-json": "volume show " + volID2 + " -o json", "volume-show-yaml": "volume show " + volID2 + " -o yaml",
		"volume-show-name": "volume show " + volID + " -o name", "volume-create": "volume create 1 -n vol1 -d desc -a default",
		"volume-plan": "volume plan 10 -p gold-" + profID + " --metadata a=b", "volume-plan-wide": "volume plan 10 -o wide",
		"volume-plan-json": "volume plan 10 -o json", "volume-plan-name": "volume plan 10 -o name", "volume-explain": "volume explain " + volID,
		"snapshot-list": "volume snapshot list", "snapshot-show": "volume snapshot show " + snapID,
		"attachment-list": "volume attachment list", "attachment-show": "volume attachment show " + attID, "attachment-list-wide": "volume attachment list -o wide",
		"group-list": "volume group list", "group-show": "volume group show " + grpID, "group-list-wide": "volume group list -o wide",
		"task-list": "task list", "task-list-wide": "task list -o wide", "task-show": "task show " + taskID, "debt-list": "debt list",
	} {
		line = strings.ReplaceAll(line, "gold-", "")
		r := s.run(t, strings.Fields(line)...)
		if r.code != 0 || r.err != "" {
			t.Errorf("%s: code %d, %s", line, r.code, r.err)
		}
		golden(t, name, r.out)
		if strings.HasSuffix(line, "json") && !json.Valid([]byte(r.out)) {
			t.Errorf("%s: not JSON", line)
		}
		if strings.Contains(r.out, "chap-secret") {
			t.Errorf("%s: a table shows a password", line)
		}
		if strings.Contains(r.out, "\x1b") {
			t.Errorf("%s: an escape sequence reaches the terminal", line)
		}
	}
}

// TestOriginalLook: what the original prints for the same records.
func TestOriginalLook(t *testing.T) {
	a := cannedAnswers()
	a["GET /block/volumes"] = "[" + vol1 + "]"
	s := serve(t, a, nil)
	for line, want := range map[string]string{
		"version list": `
+--------+---------+--------------------------+
| Name   | Status  | UpdatedAt                |
+--------+---------+--------------------------+
| v1beta | CURRENT | 2017-07-10T14:36:58.014Z |
+--------+---------+--------------------------+
`,
		"volume list": `
+--------------------------------------+------+-------------+------+------------------+-----------+--------------------------------------+
| Id                                   | Name | Description | Size | AvailabilityZone | Status    | ProfileId                            |
+--------------------------------------+------+-------------+------+------------------+-----------+--------------------------------------+
| 2f868bc2-0a5b-49a2-a660-d4e6212cac50 | vol1 | desc        | 1    | default          | available | 626765b9-0c41-4fd9-801f-0ae17382ac4c |
+--------------------------------------+------+-------------+------+------------------+-----------+--------------------------------------+
`,
		"host list": `
+--------------------------------------+----------+--------+------------+---------+-------------------+
| Id                                   | HostName | OsType | AccessMode | IP      | AvailabilityZones |
+--------------------------------------+----------+--------+------------+---------+-------------------+
| f27facc7-8f17-474a-b57b-5b1760e01d0b | h1       | linux  | agentless  | 1.2.3.4 | [default]         |
+--------------------------------------+----------+--------+------------+---------+-------------------+
`,
	} {
		if r := s.run(t, strings.Fields(line)...); r.out != want[1:] {
			t.Errorf("%s\n got\n%s\nwant\n%s", line, r.out, want[1:])
		}
	}
	r := s.run(t, "volume", "show", "nope")
	if r.code != ExitRefused || r.out != "" || r.err != "ERROR: volume nope not found: specified volume(nope) can't find\n" {
		t.Errorf("%+v", r)
	}
}

func TestRequests(t *testing.T) {
	s := serve(t, cannedAnswers(), nil)
	file := filepath.Join(t.TempDir(), "p.json")
	if err := os.WriteFile(file, []byte(`{"name":"gold","storageType":"block","replicationProperties":{"replicaInfos":{"replcationBandwidth":5}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		args []string
		want string // the last request
	}{
		{[]string{"volume", "list"}, "GET /block/volumes?limit=50&sortDir=desc&sortKey=id"},
		{[]string{"volume", "list", "--status", "error", "--name", "a b", "--limit", "3", "--offset", "4", "--sortKey", "name", "--sortDir", "asc"},
			"GET /block/volumes?limit=3&name=a+b&offset=4&sortDir=asc&sortKey=name&status=error"},
		{[]string{"dock", "list", "--endpoint", "h:1"}, "GET /docks?endpoint=h%3A1&limit=50&sortDir=desc&sortKey=id"},
		{[]string{"volume", "create", "1", "-n", "v", "-d", "d", "-a", "az1", "-l", poolID, "-s", snapID, "-p", profID},
			`POST /block/volumes {"availabilityZone":"az1","description":"d","name":"v","poolId":"` + poolID + `","profileId":"` + profID + `","size":1,"snapshotId":"` + snapID + `"}`},
		{[]string{"volume", "create", "1TiB", "-n", "v", "-p", "default_block", "-l", "sample-pool-01", "--multi-attach", "--metadata", "a=b=c", "-c"},
			`POST /block/volumes {"metadata":{"a":"b=c"},"multiAttach":true,"name":"v","poolId":"` + poolID + `","profileId":"` + profID + `","size":1024,"snapshotFromCloud":true}`},
		{[]string{"volume", "clone", volID, "-n", "c"}, `POST /block/volumes {"name":"c","size":1,"sourceVolumeId":"` + volID + `"}`},
		{[]string{"volume", "clone", volID, "-n", "c", "--size", "5"}, `POST /block/volumes {"name":"c","size":5,"sourceVolumeId":"` + volID + `"}`},
		{[]string{"volume", "update", volID, "-n", "new", "-d", ""}, `PUT /block/volumes/` + volID + ` {"description":"","name":"new"}`},
		{[]string{"volume", "plan", "10GB"}, `POST /block/volumes?dryRun=explain {"name":"plan","size":10}`},
		{[]string{"volume", "snapshot", "create", volID, "-n", "s", "-p", profID},
			`POST /block/snapshots {"name":"s","profileId":"` + profID + `","volumeId":"` + volID + `"}`},
		{[]string{"volume", "snapshot", "update", snapID, "-n", "s2"}, `PUT /block/snapshots/` + snapID + ` {"name":"s2"}`},
		{[]string{"volume", "attachment", "create", volID, "h1", "--mode", "ro"},
			`POST /block/attachments {"attachMode":"ro","hostId":"` + hostID + `","volumeId":"` + volID + `"}`},
		{[]string{"volume", "attachment", "update", attID, `{"mountpoint":"/x"}`}, `PUT /block/attachments/` + attID + ` {"mountpoint":"/x"}`},
		{[]string{"volume", "attachment", "delete", attID}, `DELETE /block/attachments/` + attID},
		{[]string{"volume", "attachment", "delete", attID, "--force"}, `DELETE /block/attachments/` + attID + `?force=true`},
		{[]string{"volume", "extend", volID, "3", "--grow-fs"}, `POST /block/volumes/` + volID + `/resize {"newSize":3,"growFileSystem":true}`},
		{[]string{"volume", "attachment", "update", attID, "--mountpoint", "/y"}, `PUT /block/attachments/` + attID + ` {"mountpoint":"/y"}`},
		{[]string{"volume", "group", "create", "-n", "g", "--profiles", "default_block," + profID},
			`POST /block/volumeGroups {"name":"g","profiles":["` + profID + `","` + profID + `"]}`},
		{[]string{"volume", "group", "update", grpID, "-a", volID + "," + volID2, "-r", "x"},
			`PUT /block/volumeGroups/` + grpID + ` {"addVolumes":["` + volID + `","` + volID2 + `"],"removeVolumes":["x"]}`},
		{[]string{"profile", "create", `{"name":"gold","storageType":"block","customProperties":{"a":"b"}}`},
			`POST /profiles {"customProperties":{"a":"b"},"name":"gold","storageType":"block"}`},
		{[]string{"profile", "create", "-f", file},
			`POST /profiles {"name":"gold","replicationProperties":{"dataProtection":{},"replicaInfos":{"replicationBandwidth":5}},"storageType":"block"}`},
		{[]string{"profile", "update", "default_block", "-d", "x", "--custom", "k=<is> true", "--custom", "n=5"},
			`PUT /profiles/` + profID + ` {"customProperties":{"k":"\u003cis\u003e true","n":5},"description":"x"}`},
		{[]string{"profile", "customproperty", "add", profID, "k=true", `s="5"`}, `POST /profiles/` + profID + `/customProperties {"k":true,"s":"5"}`},
		{[]string{"profile", "customproperty", "remove", profID, "k"}, `DELETE /profiles/` + profID + `/customProperties/k`},
		{[]string{"profile", "delete", profID}, `DELETE /profiles/` + profID},
		{[]string{"host", "create", "h1", "--ip", "10.0.0.1", "--initiator", "iqn.a:b", "--initiator", "10000090fa1b2c3d"},
			`POST /host/hosts {"accessMode":"agentless","availabilityZones":["default"],"hostName":"h1","initiators":[{"portName":"iqn.a:b","protocol":"iscsi"},` +
				`{"portName":"10000090fa1b2c3d","protocol":"fibre_channel"}],"ip":"10.0.0.1","osType":"linux"}`},
		{[]string{"host", "update", "h1", "--ip", "10.0.0.2"}, `PUT /host/hosts/` + hostID + ` {"ip":"10.0.0.2"}`},
		{[]string{"host", "update", hostID, "--availabilityZones", "a,b", "--initiator", "nqn.x:y"},
			`PUT /host/hosts/` + hostID + ` {"availabilityZones":["a","b"],"initiators":[{"portName":"nqn.x:y","protocol":"nvmeof"}]}`},
		{[]string{"host", "initiator", "add", hostID, "iqn.c:d", "iscsi"},
			`PUT /host/hosts/` + hostID + ` {"initiators":[{"portName":"iqn.a:b","protocol":"iscsi"},{"portName":"iqn.c:d","protocol":"iscsi"}]}`},
		{[]string{"host", "initiator", "remove", "h1", "iqn.a:b"}, `PUT /host/hosts/` + hostID + ` {"initiators":[]}`},
		{[]string{"task", "list", "--state", "active", "--resource", "volume", "--resourceId", volID},
			"GET /tasks?limit=50&resource=volumes&resourceId=" + volID + "&state=active"},
		{[]string{"task", "retry", taskID}, "POST /tasks/" + taskID + "/retry"},
		{[]string{"task", "cancel", taskID}, "POST /tasks/" + taskID + "/cancel"},
	} {
		r := s.run(t, x.args...)
		reqs := s.requests()
		if r.code != 0 || reqs[len(reqs)-1] != x.want {
			t.Errorf("%v: code %d %s\n got %s\nwant %s", x.args, r.code, r.err, reqs[len(reqs)-1], x.want)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	s := serve(t, cannedAnswers(), nil)
	for line, want := range map[string]string{
		"volume":                                      "needs a subcommand",
		"volume creat":                                `did you mean "create"?`,
		"bogus":                                       `unknown command "bogus" for "osdsctl"`,
		"volume replication list --x":                 "replications are not in this version of osds yet",
		"fileshare create 1":                          "file shares are not in this version of osds yet",
		"volume create":                               "takes 1 argument(s), not 0",
		"volume create 1":                             "give one with --name",
		"volume create x -n v":                        "not a number of GB",
		"volume create 0 -n v":                        "invalid volume size: 0",
		"volume create 10MB -n v":                     "sizes are whole GB",
		"volume create 1.5GB -n v":                    "sizes are whole GB",
		"volume create 999999999999 -n v":             "more than the largest size",
		"volume create 1 -n a/b":                      "invalid volume name",
		"volume create 1 -n v --metadata x":           "not of the form key=value",
		"volume create 1 -n v --bogus":                "unknown flag: --bogus",
		"volume list --limit x":                       "invalid argument",
		"volume list --limit -1":                      "must not be negative",
		"volume list --sortDir up":                    "is not asc or desc",
		"volume list -o xml":                          `--output "xml" is not one of`,
		"volume show a b":                             "takes 1 argument(s), not 2",
		"volume show a/b":                             "not a valid id",
		"volume delete":                               "takes at least 1 argument(s), not 0",
		"volume update " + volID:                      "nothing to change: give at least one of --name",
		"volume extend " + volID + " x":               "not a number of GB",
		"volume group create -n g":                    "give them with --profiles",
		"volume attachment create a b --mode x":       "is not one of the allowed values: use one of ro, rw",
		"volume attachment update a":                  "nothing to change",
		"host create -- -x":                           "hostName",
		"host create h1 --osType beos":                "use one of linux, windows, esxi",
		"host create h1 --ip 1.2.3":                   "is not an IPv4 or IPv6 address",
		"host create h1 --initiator zzz":              "protocol is missing",
		"host initiator add h1 iqn.x:y nvmeof":        "is not an NVMe name",
		"host update h1":                              "nothing to change",
		"profile create":                              "the profile is missing",
		"profile create {":                            "the profile is not understood",
		`profile create {"nam":"x"}`:                  `unknown field "nam"`,
		`profile create {"name":5}`:                   "name is a number, and must be a string",
		`profile create {"name":"x"}`:                 "is invalid storagetype",
		`profile create {"name":"x"}{}`:               "there is more after the JSON object",
		"profile create -f /does/not/exist":           "cannot read the profile",
		"profile update " + profID:                    "nothing to change",
		"profile customproperty add " + profID + " x": "not of the form key=value",
		"task list --resource spoon":                  `--resource "spoon" is not one of`,
		"event watch --resource spoon":                `--resource "spoon" is not one of`,
		"completion tcsh":                             "is not one of bash, zsh, fish",
		"volume list --server ftp://x":                "is not of the form http://host:port",
		"volume list --ca /does/not/exist":            "cannot read the CA file",
		"volume list --tenant ../x":                   "tenant id",
	} {
		r := s.run(t, strings.Fields(line)...)
		if r.code != ExitUsage || !strings.Contains(r.err, want) || !strings.HasPrefix(r.err, "ERROR: ") && line != "volume" {
			t.Errorf("%s: code %d\n%s\nwant %q", line, r.code, r.err, want)
		}
		if line != "volume" && r.out != "" {
			t.Errorf("%s: errors belong on standard error: %s", line, r.out)
		}
	}
	if n := len(s.requests()); n != 0 {
		t.Errorf("%d requests were sent for wrong command lines: %v", n, s.requests())
	}
}

func TestServerRefuses(t *testing.T) {
	code, body := 0, ""
	s := serve(t, nil, func(w http.ResponseWriter, _ *http.Request, _ string) bool {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
		return true
	})
	for _, x := range []struct {
		code       int
		body, want string
	}{
		{400, `{"code":400,"message":"create volume failed: invalid volume size: 0","field":"size","kind":"invalid","requestId":"r1"}`,
			"ERROR: create volume failed: invalid volume size: 0\n  field: size\n"},
		{507, `{"code":507,"message":"pool is full","kind":"exhausted","requestId":"r1"}`,
			"ERROR: pool is full\n  fix: see the pools with 'osdsctl pool explain', and what fits with 'osdsctl volume plan'\n  request id: r1\n"},
		{500, `{"code":500,"message":"oh \u001b[31mno","requestId":"r1"}`, "ERROR: oh ?[31mno\n  request id: r1\n"},
		{503, `{"code":503,"message":"the store is full","kind":"unavailable","requestId":"r2"}`,
			"ERROR: the store is full\n  fix: nothing was done: repeat it when the server is well again; its /readyz and its log say more\n  request id: r2\n"},
		{401, `{"code":401,"message":"token expired"}`, "ERROR: token expired\n  fix: set OSDS_TOKEN to a valid token\n"},
	} {
		code, body = x.code, x.body
		r := s.run(t, "volume", "show", volID)
		if r.code != ExitRefused || r.err != x.want || r.out != "" {
			t.Errorf("%d: code %d\n%s\nwant\n%s", x.code, r.code, r.err, x.want)
		}
	}
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	r := runWith(t.Context(), nil, "", "volume", "list", "--server", addr)
	if r.code != ExitUnreachable || !strings.Contains(r.err, "cannot reach the server at http://"+addr) || !strings.Contains(r.err, "fix: is the server running") {
		t.Errorf("%+v", r)
	}
}

func TestUntrustedServer(t *testing.T) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	r := runWith(t.Context(), nil, "", "volume", "list", "--server", s.URL)
	if r.code != ExitUnreachable || !strings.Contains(r.err, "certificate") || !strings.Contains(r.err, "fix: name the authority of the server's certificate with OSDS_CACERT") {
		t.Errorf("%+v", r)
	}
}

func TestEnvironment(t *testing.T) {
	a := serve(t, cannedAnswers(), nil)
	b := serve(t, cannedAnswers(), nil)
	check := func(want *server, env map[string]string, args ...string) {
		t.Helper()
		before := len(want.requests())
		r := runWith(t.Context(), env, "", append(args, "volume", "list")...)
		if r.code != 0 || len(want.requests()) != before+1 {
			t.Errorf("%v %v: %+v", env, args, r)
		}
	}
	check(a, map[string]string{"OPENSDS_ENDPOINT": a.URL})
	check(b, map[string]string{"OPENSDS_ENDPOINT": a.URL, "OSDS_ENDPOINT": b.URL})
	check(a, map[string]string{"OSDS_ENDPOINT": b.URL}, "--server", a.URL)
	check(a, map[string]string{"OSDS_ENDPOINT": "http://127.0.0.1:1, " + a.URL})
	check(a, map[string]string{"OSDS_ENDPOINT": a.URL, "OPENSDS_AUTH_STRATEGY": "noauth"})
	check(a, map[string]string{"OSDS_ENDPOINT": a.URL, "OPENSDS_AUTH_STRATEGY": "keystone", "OSDS_TOKEN": "tok"})
	if h := a.head[len(a.head)-1]; h.Get("X-Auth-Token") != "tok" || h.Get("User-Agent") != "osdsctl/1.2.3 osds-client/1" {
		t.Errorf("%v", h)
	}
	for _, env := range []map[string]string{{"OPENSDS_AUTH_STRATEGY": "keystone"}, {"OPENSDS_AUTH_STRATEGY": "magic"}} {
		if r := runWith(t.Context(), env, "", "volume", "list"); r.code != ExitUsage || !strings.Contains(r.err, "OPENSDS_AUTH_STRATEGY") {
			t.Errorf("%+v", r)
		}
	}
	r := runWith(t.Context(), map[string]string{"OSDS_ENDPOINT": a.URL, "OPENSDS_TENANT_ID": "other"}, "", "volume", "list")
	if reqs := a.requests(); r.code != ExitRefused || !strings.HasPrefix(reqs[len(reqs)-1], "GET //v1beta/other/block/volumes") {
		t.Errorf("%+v %v", r, reqs[len(reqs)-1])
	}
}

func TestMoreRows(t *testing.T) {
	pages := 0
	s := serve(t, nil, func(w http.ResponseWriter, r *http.Request, _ string) bool {
		w.Header().Set("X-Osds-Total-Count", "2")
		pages++
		if r.URL.Query().Get("marker") == "" {
			w.Header().Set("X-Osds-Next-Marker", "m")
			_, _ = io.WriteString(w, "["+vol1+"]")
			return true
		}
		_, _ = io.WriteString(w, "["+vol2+"]")
		return true
	})
	r := s.run(t, "volume", "list", "--limit", "1", "-o", "name")
	if r.out != volID+"\n" || r.err != "1 of 2 shown: use --all for all, or a larger --limit\n" || pages != 1 {
		t.Errorf("%+v", r)
	}
	if r = s.run(t, "volume", "list", "--all", "-o", "name"); r.out != volID+"\n"+volID2+"\n" || r.err != "" {
		t.Errorf("%+v", r)
	}
}

func TestDoctor(t *testing.T) {
	s := serve(t, cannedAnswers(), nil)
	r := s.run(t, "doctor")
	if r.code != ExitFailed || r.err != "ERROR: not all is well\n" {
		t.Errorf("%+v", r)
	}
	golden(t, "doctor", r.out)
	if r = s.run(t, "doctor", "-o", "name"); r.out != "orphans\nghosts\n" {
		t.Errorf("%+v", r)
	}
	well := serve(t, canned{"GET /doctor": `{"at":"","ok":true,"checks":[]}`}, nil)
	if r = well.run(t, "doctor"); r.code != 0 {
		t.Errorf("%+v", r)
	}
}

func TestPlanWithoutPool(t *testing.T) {
	s := serve(t, nil, func(w http.ResponseWriter, _ *http.Request, _ string) bool {
		_, _ = io.WriteString(w, `{"at":"2026-11-20T21:40:25Z","size":10,"reason":"no pool has 10 GB left","considered":2,"fitting":0,"pools":[]}`)
		return true
	})
	r := s.run(t, "volume", "plan", "10")
	if r.code != ExitFailed || !strings.Contains(r.out, "Placed in: nowhere") || !strings.Contains(r.err, "no pool has 10 GB left") {
		t.Errorf("%+v", r)
	}
}

func TestLedgerIsForAdministrators(t *testing.T) {
	s := serve(t, cannedAnswers(), func(w http.ResponseWriter, _ *http.Request, path string) bool {
		if path == "/ledger" {
			w.WriteHeader(403)
			_, _ = io.WriteString(w, `{"code":403,"message":"operation is not permitted"}`)
			return true
		}
		return false
	})
	r := s.run(t, "pool", "explain")
	if r.code != 0 {
		t.Errorf("%+v", r)
	}
	golden(t, "pool-explain-user", r.out)
}

func TestInitiatorRace(t *testing.T) {
	puts := 0
	s := serve(t, cannedAnswers(), func(w http.ResponseWriter, r *http.Request, _ string) bool {
		if r.Method == "GET" {
			w.Header().Set("ETag", fmt.Sprintf(`"%d"`, puts+1))
			return false
		}
		if puts++; puts == 1 {
			w.WriteHeader(412)
			_, _ = io.WriteString(w, `{"code":412,"message":"the host has changed","kind":"stale"}`)
			return true
		}
		if got := r.Header.Get("If-Match"); got != `"2"` {
			t.Errorf("If-Match %q", got)
		}
		return false
	})
	if r := s.run(t, "host", "initiator", "add", hostID, "iqn.c:d", "iscsi"); r.code != 0 || puts != 2 {
		t.Errorf("%+v, %d writes", r, puts)
	}
	if r := s.run(t, "host", "initiator", "remove", hostID, "iqn.z:z"); r.code != ExitRefused || !strings.Contains(r.err, `no initiator "iqn.z:z"`) {
		t.Errorf("%+v", r)
	}
}

func TestResolve(t *testing.T) {
	a := cannedAnswers()
	a["GET /profiles"] = "[]"
	s := serve(t, a, nil)
	if r := s.run(t, "volume", "create", "1", "-n", "v", "-p", "nope"); r.code != ExitRefused || !strings.Contains(r.err, `no profile has the id or the name "nope"`) {
		t.Errorf("%+v", r)
	}
	a["GET /profiles"] = "[" + profile1 + "," + profile1 + "]"
	if r := s.run(t, "volume", "create", "1", "-n", "v", "-p", "twice"); r.code != ExitRefused || !strings.Contains(r.err, "several profiles have the name") {
		t.Errorf("%+v", r)
	}
}

func TestDebug(t *testing.T) {
	s := serve(t, cannedAnswers(), nil)
	r := runWith(t.Context(), map[string]string{"OSDS_ENDPOINT": s.URL, "OSDS_TOKEN": "hush"}, "", "volume", "show", volID, "--debug")
	if r.code != 0 || strings.Contains(r.err+r.out, "hush") || !strings.Contains(r.err, "> GET "+s.URL) || !strings.Contains(r.err, "> X-Auth-Token: ***") {
		t.Errorf("%+v", r)
	}
}

func TestProfileFromStdin(t *testing.T) {
	s := serve(t, cannedAnswers(), nil)
	r := runWith(t.Context(), map[string]string{"OSDS_ENDPOINT": s.URL}, `{"name":"p","storageType":"block"}`, "profile", "create", "-f", "-")
	if reqs := s.requests(); r.code != 0 || reqs[0] != `POST /profiles {"name":"p","storageType":"block"}` {
		t.Errorf("%+v %v", r, reqs)
	}
}

func TestCompletion(t *testing.T) {
	s := serve(t, cannedAnswers(), nil)
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if r := s.run(t, "completion", shell); r.code != 0 || !strings.Contains(r.out, "osdsctl") {
			t.Errorf("%s: code %d", shell, r.code)
		}
	}
	r := s.run(t, "__complete", "volume", "show", "")
	if !strings.Contains(r.out, volID+"\tvol1\n") {
		t.Errorf("%+v", r)
	}
	if r = s.run(t, "__complete", "volume", "sn"); !strings.Contains(r.out, "snapshot\t") {
		t.Errorf("%+v", r)
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, args := range [][]string{{}, {"--help"}, {"volume", "create", "-h"}, {"help", "volume"}} {
		if r := runWith(t.Context(), nil, "", args...); r.code != 0 || !strings.Contains(r.out, "Usage:") {
			t.Errorf("%v: %+v", args, r)
		}
	}
	if r := runWith(t.Context(), nil, "", "--version"); r.code != 0 || r.out != "osdsctl version 1.2.3\n" {
		t.Errorf("%+v", r)
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{"1": 1, " 7 ": 7, "10GB": 10, "10g": 10, "10GiB": 10, "1TiB": 1024, "2T": 2048, "1.5TiB": 1536, "1024MB": 1, "1024 MiB": 1} {
		if got, err := parseSize("size", s); err != nil || got != want {
			t.Errorf("%q: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "GB", "-1", "-1GB", "1.5", "10MB", "1e3", "1XB", "0x10", "99999999999999999999"} {
		if got, err := parseSize("size", s); !model.IsKind(err, model.KindInvalid) {
			t.Errorf("%q: %d, %v", s, got, err)
		}
	}
}
