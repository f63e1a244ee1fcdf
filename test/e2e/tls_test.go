//go:build real

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model/wire"
	"github.com/osds-io/osds/test/harness"
)

// certs makes an authority and certificates with osdsctl, and gives the
// directory.
func certs(t *testing.T, c *harness.Cluster, name string) string {
	t.Helper()
	dir := filepath.Join(c.Dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ctl := c.Ctl()
	ctl.OK("certs", "ca", "--dir", dir)
	for _, kind := range []string{"server", "dock", "api"} {
		ctl.OK("certs", kind, "--dir", dir, "--host", "127.0.0.1,localhost")
	}
	for _, f := range []string{"ca-key.pem", "osdslet-key.pem", "dock-key.pem", "api-key.pem"} {
		st, err := os.Stat(filepath.Join(dir, f))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Fatalf("%s: %v %v", f, st, err)
		}
	}
	if r := ctl.Run("certs", "ca", "--dir", dir); r.Code == 0 {
		t.Fatal("an authority was replaced without --force")
	}
	return dir
}

func tlsOf(dir, name string) harness.Config {
	return harness.Config{
		"tls.ca": filepath.Join(dir, "ca.pem"), "tls.cert": filepath.Join(dir, name+".pem"), "tls.key": filepath.Join(dir, name+"-key.pem"),
	}
}

// TestMutualTLS: osdslet and dock talk over TLS with certificates made by
// osdsctl, and nobody else takes part: another authority's, one that is a dock
// where an osdslet is wanted, or one without any.
func TestMutualTLS(t *testing.T) {
	t.Parallel()
	c := suite.NewCluster(t)
	good, other := certs(t, c, "good"), certs(t, c, "other")
	let := c.AddLet(harness.Quick().With(tlsOf(good, "osdslet")).With(harness.Config{
		"api.cert": filepath.Join(good, "api.pem"), "api.key": filepath.Join(good, "api-key.pem"),
	}))
	dock := c.AddDock(tlsOf(good, "dock"), harness.Sample("s", 100))
	c.Start()
	a := c.Client(client.Config{CAFile: filepath.Join(good, "ca.pem")})
	a.WaitPools(1)
	a.Setup()
	a.Volume(wire.VolumeSpec{Name: "v"})
	a.Doctor()

	// The API's own certificate counts too.
	wrong, err := client.New(client.Config{Endpoints: []string{let.URL()}, CAFile: filepath.Join(other, "ca.pem")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wrong.Versions(a.Ctx()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a client with another authority: %v", err)
	}
	ctl := c.Ctl()
	has(t, ctl.Fails(3, "version", "list").Err, "certificate")
	ctl.Env = append(ctl.Env, "OSDS_CACERT="+filepath.Join(good, "ca.pem"))
	has(t, ctl.OK("version", "list"), "v1beta")

	// Docks that do not belong.
	for name, conf := range map[string]harness.Config{
		"another authority":              tlsOf(other, "dock"),
		"the right one, signed by other": tlsOf(good, "dock").With(harness.Config{"tls.cert": filepath.Join(other, "dock.pem"), "tls.key": filepath.Join(other, "dock-key.pem")}),
	} {
		d := c.AddDock(conf, harness.Sample("x", 100))
		c.Must(d.Start())
		c.Until(harness.Limit, name+" is refused", func() error { return logged(d.Process, "certificate") })
		d.Kill()
	}
	// An osdslet's certificate makes no dock: it does not even start.
	asLet := c.AddDock(tlsOf(good, "osdslet"), harness.Sample("x", 100))
	c.Must(asLet.Start())
	<-asLet.Exited()
	c.Must(logged(asLet.Process, "osdsdock"))
	// Without any.
	plain := c.AddDock(nil, harness.Sample("x", 100))
	c.Must(plain.Start())
	c.Until(harness.Limit, "a dock without TLS is refused", func() error { return logged(plain.Process, "not registered") })
	plain.Kill()
	if pools := a.WaitPools(1); len(pools) != 1 {
		t.Fatalf("%d pools: somebody who does not belong has registered", len(pools))
	}

	// A stolen dock key gives no orders: an osdslet with it does not start.
	thief := c.AddLet(harness.Quick().With(tlsOf(good, "dock")))
	c.Must(thief.Start())
	<-thief.Exited()
	c.Must(logged(thief.Process, "osdslet"))

	// Certificates that are replaced on disk are used without a restart: those
	// of the other authority, on both sides, one after the other.
	for _, f := range []string{"ca.pem", "osdslet.pem", "osdslet-key.pem", "dock.pem", "dock-key.pem"} {
		b, err := os.ReadFile(filepath.Join(other, f))
		if err != nil {
			t.Fatal(err)
		}
		harness.WriteFile(t, filepath.Join(good, f), b)
	}
	dock.Kill()
	c.Must(dock.Start())
	dock.WaitReady()
	a2 := a // its own authority was read at the start
	a2.WaitPools(1)
	a2.Volume(wire.VolumeSpec{Name: "w"})
	a2.Doctor()
}

// logged gives an error until the process's log has a text.
func logged(p *harness.Process, text string) error {
	b, err := os.ReadFile(p.LogPath())
	if err != nil {
		return err
	}
	if !strings.Contains(string(b), text) {
		return errorf("no %q in the log of %s:\n%s", text, p.Name, b)
	}
	return nil
}
