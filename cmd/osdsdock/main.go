// Command osdsdock is the agent of a storage host: it drives the host's backends
// for the osdslets it registers with.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/osds-io/osds/internal/conf"
	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/internal/obs"
	"github.com/osds-io/osds/internal/tlsconf"
	"github.com/osds-io/osds/internal/version"
	"github.com/osds-io/osds/pkg/dock"
)

const defaultFile = "/etc/osds/osdsdock.yaml"

// anyCluster is what --join-cluster takes for "the first that welcomes it".
const anyCluster = "any"

// adminGrace is how long requests to the admin endpoint may take to end.
const adminGrace = 2 * time.Second

func main() {
	if err := command(os.Stdout).Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "osdsdock:", err)
		os.Exit(1)
	}
}

func command(out io.Writer) *cobra.Command {
	var file, join string
	var check bool
	cfg := dock.DefaultConfig()
	cmd := &cobra.Command{
		Use: "osdsdock", Short: "The agent of a storage host", Version: version.Version, Args: cobra.NoArgs,
		SilenceUsage: true, SilenceErrors: true,
	}
	cmd.SetOut(out)
	fs := cmd.Flags()
	fs.StringVar(&file, "config", defaultFile, "configuration file (YAML)")
	fs.BoolVar(&check, "check-config", false, "read the configuration, the drivers' files and the certificates, print what is in effect, and exit")
	fs.StringVar(&join, "join-cluster", "", "move this dock to the cluster with this id, or to the first that welcomes it (any), and exit; the dock must not be running")
	conf.AddFlags(fs, &cfg)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		err := conf.Load(&cfg, conf.Options{
			Name: "osdsdock", File: file, Optional: !fs.Changed("config"), EnvPrefix: "OSDS", Flags: fs,
			OtherEnv: []string{faults.Env, obs.CPUProfileEnv, obs.MemProfileEnv, "OSDS_ENDPOINT", "OSDS_TENANT_ID"},
		})
		if err == nil {
			err = cfg.ValidateDrivers(linked())
		}
		switch {
		case err != nil:
			return err
		case check:
			if err := checkFiles(cfg); err != nil {
				return err
			}
			_, err = fmt.Fprint(out, conf.Render(&cfg))
			return err
		case fs.Changed("join-cluster"):
			return joinCluster(out, cfg, join)
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		return run(ctx, cfg)
	}
	return cmd
}

// checkFiles reads the files that the configuration names. A dock that runs
// serves its other backends if one has a bad file, and tries again; who asks
// wants to know beforehand.
func checkFiles(cfg dock.Config) error {
	if cfg.TLS.Set() {
		if _, err := tlsconf.Load(cfg.TLS, tlsconf.RoleDock); err != nil {
			return err
		}
	}
	for i, b := range cfg.Backends {
		if b.Config == "" {
			continue
		}
		if err := configChecks()[b.Driver](b.Config); err != nil {
			return fmt.Errorf("backends[%d].config: %w", i, err)
		}
	}
	return nil
}

func joinCluster(out io.Writer, cfg dock.Config, cluster string) error {
	switch cluster {
	case "":
		return errors.New("--join-cluster needs a cluster's id, or any")
	case anyCluster:
		cluster = ""
	}
	left, err := dock.JoinCluster(cfg.StateDir, cluster)
	if err != nil {
		return err
	}
	if left == "" {
		left = "none"
	}
	if cluster == "" {
		cluster = "the first that welcomes it"
	}
	_, err = fmt.Fprintf(out, "The dock of %s belonged to the cluster: %s; it now belongs to: %s.\n", cfg.StateDir, left, cluster)
	return err
}

func run(ctx context.Context, cfg dock.Config) (err error) {
	if err := faults.Arm(); err != nil {
		return err
	}
	log, logOut, err := obs.OpenLog(cfg.Log)
	if err != nil {
		return err
	}
	defer logOut.Close()
	defer func() {
		if err != nil {
			log.WithError(err).Error("osdsdock ends")
		}
	}()
	endProfiles, err := obs.StartProfiles(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if perr := endProfiles(); perr != nil {
			log.WithError(perr).Error("profiles")
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { reopenOnHangup(ctx, log, logOut) })

	reg := obs.NewRegistry()
	d, err := dock.New(dock.Options{Config: cfg, Drivers: linked(), Version: version.Version, Log: log, Registry: reg})
	if err != nil {
		return err
	}
	lis, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return errors.Join(fmt.Errorf("listen: %w", err), d.Close())
	}
	if cfg.Admin.Listen != "" {
		adminLis, err := net.Listen("tcp", cfg.Admin.Listen)
		if err != nil {
			return errors.Join(fmt.Errorf("admin.listen: %w", err), lis.Close(), d.Close())
		}
		wg.Go(func() {
			mux := obs.Admin{Registry: reg, Ready: d.Ready}.Mux()
			if err := obs.ServeHTTP(ctx, adminLis, mux, adminGrace); err != nil {
				log.WithError(err).Error("the admin endpoint ended")
			}
		})
	}
	return d.Serve(ctx, lis)
}

// reopenOnHangup opens the log file again on each SIGHUP, after it was rotated.
func reopenOnHangup(ctx context.Context, log *logrus.Logger, out *obs.Output) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-hup:
			if err := out.Reopen(); err != nil {
				log.WithError(err).Error("cannot reopen the log")
			}
		case <-ctx.Done():
			return
		}
	}
}
