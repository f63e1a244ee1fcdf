package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/internal/tlsconf"
	"github.com/osds-io/osds/pkg/dock/client"
	"github.com/osds-io/osds/pkg/dock/dockpb"
	"github.com/osds-io/osds/pkg/dock/registry"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// asDaemon makes this test binary be osdsdock itself.
const asDaemon = "DOCK_TEST_IS_THE_DAEMON"

func TestMain(m *testing.M) {
	if os.Getenv(asDaemon) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// start starts osdsdock as a process of its own, which is ended with the test.
func start(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(append(os.Environ(), asDaemon+"=1"), env...)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long for: %s", what)
		}
	}
}

// freePort gives a port that was free a moment ago: the admin endpoint's has to
// be known before it is opened.
func freePort(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	return lis.Addr().String()
}

func TestConfigurationIsChecked(t *testing.T) {
	dir := t.TempDir()
	good := "insecureLoopback: true\nstateDir: " + dir + "/state\nbackends: [{name: one, driver: sample}]\n"
	badPool := write(t, dir, "pool.yaml", "pool: {a: {capacty: 1GiB}}\n")
	for name, tc := range map[string]struct{ text, want string }{
		"unknown key":      {good + "lisen: x\n", `lisen: unknown key; did you mean "listen"?`},
		"unknown driver":   {strings.Replace(good, "driver: sample", "driver: smaple", 1), `there is no driver "smaple", there are: `},
		"nearest driver":   {strings.Replace(good, "driver: sample", "driver: smaple", 1), `did you mean "sample"?`},
		"attacher":         {good + "type: attacher\n", "an attacher has no backends"},
		"no backend":       {"insecureLoopback: true\n", "backends: must name at least one"},
		"backend twice":    {"insecureLoopback: true\nbackends: [{name: a, driver: sample}, {name: a, driver: sample}]\n", `"a" is given twice`},
		"no certificates":  {"backends: [{name: a, driver: sample}]\n", "tls: ca, cert and key must be set"},
		"half of tls":      {"tls: {ca: /x}\nbackends: [{name: a, driver: sample}]\n", "tls.cert: is missing"},
		"both":             {good + "tls: {ca: /x, cert: /y, key: /z}\n", "remove one of them"},
		"far and insecure": {good + "listen: 10.0.0.1:50050\n", "not a loopback address"},
		"insecure osdslet": {good + "osdslets: ['10.0.0.1:50049']\n", "not a loopback address"},
		"no address":       {good + "listen: :50050\n", "advertise: must be set"},
		"any address":      {good + "advertise: 0.0.0.0:50050\n", "no address that can be dialled"},
		"no osdslet":       {good + "osdslets: []\n", "at least one osdslet"},
		"osdslet twice":    {good + "osdslets: ['127.0.0.1:1', '127.0.0.1:1']\n", "given twice"},
		"limit":            {good + "limits: {callsPerBackend: 0}\n", "limits.callsPerBackend: is 0"},
		"deadline":         {good + "limits: {defaultDeadline: 1ms}\n", "at least 1s"},
		"driver's file":    {strings.Replace(good, "driver: sample", "driver: sample, config: "+badPool, 1), `backends[0].config: ` + badPool + `:1: pool.a.capacty: unknown key`},
		"no driver's file": {strings.Replace(good, "driver: sample", "driver: local, config: /nope/local.yaml", 1), "backends[0].config: configuration: open /nope/local.yaml"},
		"no such files":    {"tls: {ca: /nope/ca, cert: /nope/c, key: /nope/k}\nbackends: [{name: a, driver: sample}]\n", "open /nope/ca"},
		"log":              {good + "log: {level: loud}\n", "not one of error, warn, info"},
	} {
		cmd := command(io.Discard)
		cmd.SetArgs([]string{"--check-config", "--config", write(t, dir, "bad.yaml", tc.text)})
		if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
	for name := range linked() {
		if configChecks()[name] == nil {
			t.Errorf("the configuration of driver %s is not checked", name)
		}
	}
	var out bytes.Buffer
	cmd := command(&out)
	cmd.SetArgs([]string{"--check-config", "--config", write(t, dir, "good.yaml", good), "--limits.callsPerBackend=7"})
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"callsPerBackend: 7", "listen: 127.0.0.1:50050", "defaultDeadline: 1m"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in what is in effect:\n%s", want, out.String())
		}
	}
}

// rig is a daemon's directory, certificates, and the osdslet's side of it.
type rig struct {
	t           *testing.T
	dir, config string
	admin       string
	let         *tlsconf.Identity
	reg         *registry.Registry
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), admin: freePort(t)}
	ca, err := tlsconf.MakeCA("")
	if err != nil {
		t.Fatal(err)
	}
	files := func(role tlsconf.Role) tlsconf.Files {
		f := tlsconf.Files{CA: filepath.Join(r.dir, "ca.pem"), Cert: filepath.Join(r.dir, string(role)+".pem"), Key: filepath.Join(r.dir, string(role)+".key")}
		p, err := tlsconf.MakeCert(ca, tlsconf.Request{Kind: tlsconf.Both, Role: role, IPs: []net.IP{net.ParseIP("127.0.0.1")}})
		if err == nil {
			err = p.Write(f.Cert, f.Key)
		}
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	write(t, r.dir, "ca.pem", string(ca.Cert))
	df := files(tlsconf.RoleDock)
	if r.let, err = tlsconf.Load(files(tlsconf.RoleLet), tlsconf.RoleLet); err != nil {
		t.Fatal(err)
	}
	log := logrus.New()
	log.SetOutput(t.Output())
	r.reg = registry.New(registry.Options{ClusterID: "c1", Beat: 100 * time.Millisecond, Log: log})
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(grpc.Creds(r.let.ServerCredentials(tlsconf.RoleDock)))
	dockpb.RegisterRegistryServer(srv, r.reg)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(lis) }()
	t.Cleanup(func() { srv.Stop(); <-done })
	r.config = write(t, r.dir, "osdsdock.yaml", fmt.Sprintf(`
listen: 127.0.0.1:0
advertise: ""
osdslets: ["%s"]
stateDir: %s/state
tls: {ca: %s, cert: %s, key: %s}
backends:
  - {name: one, driver: sample}
admin: {listen: "%s"}
`, lis.Addr(), r.dir, df.CA, df.Cert, df.Key, r.admin))
	return r
}

// dock waits until the daemon is registered with its pools, and dials it.
func (r *rig) dock() *client.Client {
	r.t.Helper()
	var s registry.Session
	until(r.t, "the dock", func() bool {
		for _, x := range r.reg.Snapshot() {
			if len(x.Pools) > 0 && x.Hello.GetInstance() != "" {
				s = x
				conn, err := net.Dial("tcp", s.Hello.GetEndpoint())
				if err == nil {
					_ = conn.Close()
				}
				return err == nil
			}
		}
		return false
	})
	d := client.New(client.Options{Creds: r.let.ClientCredentials(tlsconf.RoleDock)})
	r.t.Cleanup(func() { _ = d.Close() })
	c, err := d.Dock(s.Hello.GetEndpoint())
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *rig) pool() string {
	return r.reg.Snapshot()[0].Pools[0].GetName()
}

func TestDaemon(t *testing.T) {
	r := newRig(t)
	cmd := start(t, nil, "--config", r.config)
	c := r.dock()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	v, err := c.CreateVolume(ctx, client.Call{Epoch: 3, Seq: 1, ClusterID: "c1"}, "one",
		drivers.CreateVolume{ID: "v1", Pool: r.pool(), Size: model.GiB, TenantID: "t"})
	if err != nil || v.ID != "v1" {
		t.Fatalf("%+v, %v", v, err)
	}
	var body struct {
		Ready  bool
		Checks []struct{ Name, Detail string }
	}
	get := func(path string) (int, []byte) {
		resp, err := http.Get("http://" + r.admin + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, b
	}
	until(t, "readiness", func() bool {
		code, b := get("/readyz")
		return code == 200 && json.Unmarshal(b, &body) == nil && body.Ready
	})
	if _, b := get("/metrics"); !strings.Contains(string(b), `osds_certificate_expires_timestamp_seconds{certificate="tls"}`) {
		t.Error("the certificate's end is not in the metrics")
	}
	if code, b := get("/metrics"); code != 200 || !strings.Contains(string(b), `osds_dock_calls_total{code="ok",op="createVolume"} 1`) {
		t.Errorf("metrics: %d", code)
	}
	if code, _ := get("/healthz"); code != 200 {
		t.Errorf("healthz: %d", code)
	}

	second := start(t, []string{"OSDS_ADMIN_LISTEN=127.0.0.1:0"}, "--config", r.config)
	if err := second.Wait(); err == nil {
		t.Error("a second daemon in one state directory runs")
	}
	join := start(t, nil, "--config", r.config, "--join-cluster", "c2")
	if err := join.Wait(); err == nil {
		t.Error("a running dock was moved")
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
	join = start(t, nil, "--config", r.config, "--join-cluster", "any")
	if err := join.Wait(); err != nil {
		t.Errorf("a stopped dock was not moved: %v", err)
	}
}

// Killed at each point of a create's way, the dock comes back with nothing lost
// and nothing doubled, and with a fence that is no lower than what it acted for.
func TestKilledAnywhere(t *testing.T) {
	for _, point := range []string{"dock.fence.before", "dock.fence.after", "dock.createVolume.before", "dock.createVolume.after"} {
		t.Run(point, func(t *testing.T) {
			r := newRig(t)
			cmd := start(t, []string{faults.Env + "=kill:" + point}, "--config", r.config)
			c := r.dock()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			in := drivers.CreateVolume{ID: "v1", Pool: r.pool(), Size: model.GiB, TenantID: "t"}
			_, err := c.CreateVolume(ctx, client.Call{Epoch: 3, Seq: 1}, "one", in)
			if !model.IsKind(err, model.KindUnknownOutcome) {
				t.Errorf("the call that was cut off: %v", err)
			}
			var exit *exec.ExitError
			if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("ended with %v", err)
			}
			start(t, nil, "--config", r.config)
			until(t, "the new process", func() bool { c = r.dock(); return usable(ctx, c) })
			if point != "dock.fence.before" {
				if err := c.DeleteVolume(ctx, client.Call{Epoch: 2, Seq: 9}, "one", drivers.VolumeRef{ID: "v1", Pool: in.Pool}); !model.IsKind(err, model.KindStale) {
					t.Errorf("an older epoch after the restart: %v", err)
				}
			}
			_, err = c.GetVolume(ctx, client.Call{Epoch: 4, Seq: 1}, "one", drivers.VolumeRef{ID: "v1", Pool: in.Pool})
			if made := point == "dock.createVolume.after"; made && err != nil || !made && !model.IsKind(err, model.KindNotFound) {
				t.Errorf("the look: %v", err)
			}
			for seq := range int64(2) {
				if v, err := c.CreateVolume(ctx, client.Call{Epoch: 4, Seq: seq + 2}, "one", in); err != nil || v.Size != model.GiB {
					t.Errorf("the same create again: %+v, %v", v, err)
				}
			}
			list, err := c.ListVolumes(ctx, client.Call{}, "one", drivers.Page{})
			if err != nil || len(list) != 1 {
				t.Errorf("volumes %+v, %v", list, err)
			}
		})
	}
}

func usable(ctx context.Context, c *client.Client) bool {
	_, err := c.ListVolumes(ctx, client.Call{}, "one", drivers.Page{Limit: 1})
	return err == nil
}
