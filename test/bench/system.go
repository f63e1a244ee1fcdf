//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/osds-io/osds/internal/obs"
	"github.com/osds-io/osds/pkg/model"
)

// system is a running osdslet with its embedded etcd, and a dock with the sample
// driver: the real programs, in processes of their own, on loopback ports that
// the kernel chose.
type system struct {
	dir      string
	bin      string
	env      []string // of osdslet's next start
	let      *proc
	dock     *proc
	api      string // host:port
	registry string
	profiles []string
	pools    []string
	on       backing
}

// backing is what the dock stores on.
type backing struct {
	driver string
	config string // of the driver
	pools  int    // how many it has
}

// The pools of the sample driver: two in each of two zones, with room for more
// volumes than any run makes.
const sampleConfig = `pool:
  one: {capacity: 512TiB, availabilityZone: az1}
  two: {capacity: 512TiB, availabilityZone: az1}
  three: {capacity: 512TiB, availabilityZone: az2}
  four: {capacity: 512TiB, availabilityZone: az2}
`

var zones = []string{"az1", "az2"}

// poolCount is how many pools sampleConfig has.
const poolCount = 4

// onSample is the sample driver, without latency.
var onSample = backing{driver: "sample", config: sampleConfig, pools: poolCount}

// build makes the real programs; with tags, as a list with commas, if any are
// given.
func build(ctx context.Context, dir, tags string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", tags, "-o", dir+string(filepath.Separator), "./cmd/osdslet", "./cmd/osdsdock")
	root, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("go env: %w", err)
	}
	cmd.Dir = filepath.Dir(strings.TrimSpace(string(root)))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// newSystem writes the configuration and starts both programs. profile, if not
// empty, is where they write their CPU profiles.
func newSystem(ctx context.Context, dir, bin, profile string, on backing) (_ *system, err error) {
	s := &system{dir: dir, bin: bin, on: on, api: "127.0.0.1:0", registry: "127.0.0.1:0"}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var dockEnv []string
	if profile != "" {
		s.env = []string{obs.CPUProfileEnv + "=" + filepath.Join(profile, "osdslet.cpu"), obs.MemProfileEnv + "=" + filepath.Join(profile, "osdslet.mem")}
		dockEnv = []string{obs.CPUProfileEnv + "=" + filepath.Join(profile, "osdsdock.cpu")}
	}
	if err := s.startLet(); err != nil {
		return nil, err
	}
	// From here on the addresses are known and stay.
	if err := s.findAddresses(ctx); err != nil {
		return nil, err
	}
	if err := s.ready(ctx, time.Minute); err != nil {
		return nil, err
	}
	if err := s.startDock(dockEnv); err != nil {
		return nil, err
	}
	if err := s.awaitPools(ctx); err != nil {
		return nil, err
	}
	return s, s.makeProfiles()
}

func (s *system) startLet() (err error) {
	conf := filepath.Join(s.dir, "osdslet.yaml")
	text := fmt.Sprintf("dataDir: %s\ninsecureLoopback: true\napi: {listen: \"%s\"}\nregistry: {listen: \"%s\"}\nlog: {file: %s}\n",
		filepath.Join(s.dir, "let"), s.api, s.registry, s.letLog())
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	s.let, err = startProc("osdslet", filepath.Join(s.dir, "osdslet.out"), s.env, filepath.Join(s.bin, "osdslet"), "--config", conf)
	return err
}

func (s *system) letLog() string { return filepath.Join(s.dir, "osdslet.log") }

var serves = regexp.MustCompile(`api="?([0-9.:]+)"?.* registry="?([0-9.:]+)"?`)

// findAddresses reads from osdslet's log where it serves.
func (s *system) findAddresses(ctx context.Context) error {
	for end := time.Now().Add(time.Minute); ; sleepUntil(ctx, time.Now().Add(20*time.Millisecond)) {
		b, err := os.ReadFile(s.letLog())
		if err == nil {
			if m := serves.FindSubmatch(b); m != nil {
				s.api, s.registry = string(m[1]), string(m[2])
				return nil
			}
		}
		if err := s.let.died(); err != nil {
			return fmt.Errorf("%w\n%s", err, tail(s.letLog(), 1500))
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return errors.New("osdslet does not say where it serves")
		}
	}
}

func (s *system) startDock(env []string) (err error) {
	driver, conf := filepath.Join(s.dir, s.on.driver+".yaml"), filepath.Join(s.dir, "osdsdock.yaml")
	if err := os.WriteFile(driver, []byte(s.on.config), 0o600); err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	text := fmt.Sprintf("name: bench\nlisten: 127.0.0.1:%d\nosdslets: [\"%s\"]\nstateDir: %s\ninsecureLoopback: true\nadmin: {listen: \"\"}\nlog: {file: %s}\nbackends:\n  - {name: %s, driver: %s, config: %s}\n",
		port, s.registry, filepath.Join(s.dir, "dock"), filepath.Join(s.dir, "osdsdock.log"), s.on.driver, s.on.driver, driver)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	s.dock, err = startProc("osdsdock", filepath.Join(s.dir, "osdsdock.out"), env, filepath.Join(s.bin, "osdsdock"), "--config", conf)
	return err
}

// freePort asks the kernel for a port. The dock's own must be in its
// configuration, for it is published.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// stop ends both processes.
func (s *system) stop() {
	s.dock.stop()
	s.let.stop()
}

// ready waits for /readyz.
func (s *system) ready(ctx context.Context, limit time.Duration) error {
	conn := newConn(s.api)
	defer conn.close()
	req := request(nil, http.MethodGet, "/readyz", nil)
	for end := time.Now().Add(limit); ; sleepUntil(ctx, time.Now().Add(5*time.Millisecond)) {
		status, body, err := conn.do(req)
		if err == nil && status == http.StatusOK {
			return nil
		}
		if derr := s.let.died(); derr != nil {
			return derr
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("osdslet is not ready after %s: status %d %s, %v", limit, status, body, err)
		}
	}
}

// awaitPools waits until the dock's pools are there.
func (s *system) awaitPools(ctx context.Context) error {
	for end := time.Now().Add(time.Minute); ; sleepUntil(ctx, time.Now().Add(50*time.Millisecond)) {
		var pools []struct{ ID, Status string }
		err := s.call(http.MethodGet, "/v1beta/"+model.AdminTenant+"/pools", nil, http.StatusOK, &pools)
		if err == nil && len(pools) == s.on.pools {
			s.pools = nil
			for _, p := range pools {
				if p.Status == string(model.StatusAvailable) {
					s.pools = append(s.pools, p.ID)
				}
			}
			if len(s.pools) == s.on.pools {
				slices.Sort(s.pools)
				return nil
			}
		}
		if derr := s.dock.died(); derr != nil {
			return derr
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("the dock's pools do not come: %v, %v; its log ends with:\n%s", pools, err, tail(filepath.Join(s.dir, "osdsdock.log"), 1500))
		}
	}
}

// makeProfiles makes the profiles that volumes name.
func (s *system) makeProfiles() error {
	for _, name := range []string{"default_block", "silver", "gold"} {
		var p struct{ ID string }
		body := map[string]any{"name": name, "storageType": "block"}
		if name != "default_block" {
			body["provisioningProperties"] = map[string]any{"dataStorage": map[string]any{"provisioningPolicy": "Thin"}}
		}
		if err := s.call(http.MethodPost, "/v1beta/"+model.AdminTenant+"/profiles", body, http.StatusOK, &p); err != nil {
			return err
		}
		s.profiles = append(s.profiles, p.ID)
	}
	return nil
}

// call makes one request with JSON.
func (s *system) call(method, path string, in any, want int, out any) error {
	var b []byte
	if in != nil {
		var err error
		if b, err = json.Marshal(in); err != nil {
			return err
		}
	}
	conn := newConn(s.api)
	defer conn.close()
	status, body, err := conn.do(request(nil, method, path, b))
	if err != nil {
		return err
	}
	if status != want {
		return unexpected(method+" "+path, status, body)
	}
	return json.NewDecoder(bytes.NewReader(body)).Decode(out)
}

// creator makes a creator of volumes here, with its event stream.
func (s *system) creator(ctx context.Context) (*creator, error) {
	w, err := watch(ctx, "http://"+s.api+"/v1beta/"+tenant+"/events?resource=volumes")
	if err != nil {
		return nil, err
	}
	return &creator{addr: s.api, profiles: s.profiles, zones: zones, events: w}, nil
}

// fds gives the file descriptors of osdslet and of the dock.
func (s *system) fds() (let, dock fds, err error) {
	if let, err = s.let.fds(); err != nil {
		return let, dock, err
	}
	dock, err = s.dock.fds()
	return let, dock, err
}
