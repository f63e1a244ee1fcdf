package cli

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/osds-io/osds/internal/tlsconf"
)

const certsHelp = `Makes the certificates that the parts of osds know each other by.

  osdsctl certs ca                          once, on a safe machine: ca.pem, ca-key.pem
  osdsctl certs server --host api1,10.0.0.1 for each osdslet: osdslet.pem, osdslet-key.pem
  osdsctl certs dock --host store1          for each storage host: dock.pem, dock-key.pem
  osdsctl certs api --host api.example.org  for the REST API's https: api.pem, api-key.pem

Give each machine ca.pem and its own pair. Nobody but you needs ca-key.pem.`

// certFlags are the flags of the commands that sign.
type certFlags struct {
	dir, ca, caKey, name string
	hosts                []string
	days                 int
	force                bool
}

func (a *app) certsCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "certs", Short: "Certificates for osdslet and docks", Long: certsHelp})
	cmd.AddCommand(
		a.certsCACmd(),
		a.certsSignCmd("server", "osdslet", "Make an osdslet's certificate", tlsconf.Request{Kind: tlsconf.Both, Role: tlsconf.RoleLet}),
		a.certsSignCmd("dock", "dock", "Make a dock's certificate", tlsconf.Request{Kind: tlsconf.Both, Role: tlsconf.RoleDock}),
		a.certsSignCmd("api", "api", "Make the certificate of the REST API's https", tlsconf.Request{Kind: tlsconf.Server, Role: tlsconf.RoleNone}),
	)
	return cmd
}

func (a *app) certsCACmd() *cobra.Command {
	var f certFlags
	cmd := &cobra.Command{Use: "ca", Short: "Make the authority that signs the others", Args: args(0, 0)}
	cmd.Flags().StringVar(&f.dir, "dir", ".", "where to write ca.pem and ca-key.pem")
	cmd.Flags().StringVar(&f.name, "name", "osds CA", "the authority's name")
	cmd.Flags().BoolVar(&f.force, "force", false, "replace an authority that is there: what it signed is then worth nothing")
	cmd.RunE = func(*cobra.Command, []string) error {
		p, err := tlsconf.MakeCA(f.name)
		if err != nil {
			return err
		}
		return a.writePair(p, f.dir, "ca", f.force)
	}
	return cmd
}

func (a *app) certsSignCmd(use, file, short string, rq tlsconf.Request) *cobra.Command {
	var f certFlags
	cmd := &cobra.Command{Use: use, Short: short, Args: args(0, 0)}
	fl := cmd.Flags()
	fl.StringVar(&f.dir, "dir", ".", "where to write the certificate and its key")
	fl.StringVar(&f.ca, "ca-cert", "", "the authority's certificate (default: ca.pem in --dir)")
	fl.StringVar(&f.caKey, "ca-key", "", "the authority's key (default: ca-key.pem beside its certificate)")
	fl.StringSliceVar(&f.hosts, "host", nil, "names and addresses that it is reached by, comma-separated")
	fl.StringVar(&f.name, "name", file, "the files' name: <name>.pem and <name>-key.pem")
	fl.IntVar(&f.days, "days", 0, fmt.Sprintf("how long it is good for (default %d)", int(tlsconf.Life.Hours()/24)))
	fl.BoolVar(&f.force, "force", false, "replace files that are there")
	cmd.RunE = func(*cobra.Command, []string) error {
		if len(f.hosts) == 0 {
			return a.usage("give the names and addresses that it is reached by with --host")
		}
		ca, err := f.authority(a)
		if err != nil {
			return err
		}
		if rq.Life, err = days(f.days); err != nil {
			return a.usage("--days %d: %v", f.days, err)
		}
		rq.Names, rq.IPs = nil, nil
		for _, h := range f.hosts {
			if ip := net.ParseIP(h); ip != nil {
				rq.IPs = append(rq.IPs, ip)
			} else {
				rq.Names = append(rq.Names, h)
			}
		}
		p, err := tlsconf.MakeCert(ca, rq)
		if err != nil {
			return a.usage("%v", err)
		}
		return a.writePair(p, f.dir, f.name, f.force)
	}
	return cmd
}

func (f *certFlags) authority(a *app) (tlsconf.Pair, error) {
	cert := first(f.ca, filepath.Join(f.dir, "ca.pem"))
	key := first(f.caKey, filepath.Join(filepath.Dir(cert), "ca-key.pem"))
	var p tlsconf.Pair
	for _, x := range []struct {
		path string
		to   *[]byte
	}{{cert, &p.Cert}, {key, &p.Key}} {
		b, err := os.ReadFile(x.path)
		if err != nil {
			return p, a.usage("cannot read the authority's files: %v (make one with 'osdsctl certs ca', or say where it is with --ca-cert and --ca-key)", err)
		}
		*x.to = b
	}
	return p, nil
}

// writePair writes a certificate and its key, and says where.
func (a *app) writePair(p tlsconf.Pair, dir, name string, force bool) error {
	if name == "" || name != filepath.Base(name) {
		return a.usage("--name %q is not a file name", name)
	}
	cert, key := filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem")
	for _, path := range []string{cert, key} {
		if _, err := os.Lstat(path); err == nil && !force {
			return a.usage("%s is there already: use --force to replace it", path)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return a.usage("%v", err)
	}
	if err := p.Write(cert, key); err != nil {
		return a.usage("%v", err)
	}
	for _, path := range []string{cert, key} {
		if _, err := fmt.Fprintln(a.env.Stdout, path); err != nil {
			return err
		}
	}
	return nil
}

// errTooLong is for a life that the authority cannot give.
var errTooLong = errors.New("longer than any certificate may be good for")

func days(n int) (time.Duration, error) {
	if n < 0 || n > 36500 {
		return 0, errTooLong
	}
	return time.Duration(n) * 24 * time.Hour, nil
}
