package client_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/osds-io/osds/internal/tlsconf"
	"github.com/osds-io/osds/pkg/dock/client"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// certificates makes an authority, a dock's files and an osdslet's credentials.
func certificates(tb testing.TB) (tlsconf.Files, credentials.TransportCredentials) {
	tb.Helper()
	ca, err := tlsconf.MakeCA("")
	if err != nil {
		tb.Fatal(err)
	}
	make := func(role tlsconf.Role) tlsconf.Files {
		p, err := tlsconf.MakeCert(ca, tlsconf.Request{Kind: tlsconf.Both, Role: role, IPs: []net.IP{net.ParseIP("127.0.0.1")}})
		if err != nil {
			tb.Fatal(err)
		}
		dir := tb.TempDir()
		f := tlsconf.Files{CA: filepath.Join(dir, "ca"), Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key")}
		if err := p.Write(f.Cert, f.Key); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(f.CA, ca.Cert, 0o600); err != nil {
			tb.Fatal(err)
		}
		return f
	}
	id, err := tlsconf.Load(make(tlsconf.RoleLet), tlsconf.RoleLet)
	if err != nil {
		tb.Fatal(err)
	}
	return make(tlsconf.RoleDock), id.ClientCredentials(tlsconf.RoleDock)
}

// waitReady waits until the dock's backend is in service.
func waitReady(tb testing.TB, c *client.Client) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		_, err := c.ListVolumes(ctx, client.Call{}, "mem", drivers.Page{Limit: 1})
		if err == nil {
			return
		}
		if !model.IsKind(err, model.KindUnavailable) || ctx.Err() != nil {
			tb.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
