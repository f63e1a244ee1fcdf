// Command osdslet is the controller: the REST API, the registry of docks and the
// controllers, with etcd inside where none is configured.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/osds-io/osds/internal/conf"
	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/internal/obs"
	"github.com/osds-io/osds/internal/osdslet"
	"github.com/osds-io/osds/internal/version"
)

const defaultFile = "/etc/osds/osdslet.yaml"

func main() {
	if err := command().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "osdslet:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var file string
	var check bool
	cfg := osdslet.DefaultConfig()
	cmd := &cobra.Command{
		Use: "osdslet", Short: "The osds controller", Version: version.Version, Args: cobra.NoArgs,
		SilenceUsage: true, SilenceErrors: true,
	}
	cmd.Flags().StringVar(&file, "config", defaultFile, "configuration file (YAML)")
	cmd.Flags().BoolVar(&check, "check-config", false, "read the configuration and the certificates, print what is in effect, and exit")
	conf.AddFlags(cmd.Flags(), &cfg)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		err := conf.Load(&cfg, conf.Options{
			Name: "osdslet", File: file, Optional: !cmd.Flags().Changed("config"), EnvPrefix: "OSDS", Flags: cmd.Flags(),
			OtherEnv: []string{faults.Env, obs.CPUProfileEnv, obs.MemProfileEnv, "OSDS_ENDPOINT", "OSDS_TENANT_ID"},
		})
		if err != nil {
			return err
		}
		if check {
			if err := cfg.CheckFiles(); err != nil {
				return err
			}
			fmt.Print(conf.Render(&cfg))
			return nil
		}
		return run(cfg)
	}
	return cmd
}

func run(cfg osdslet.Config) error {
	if err := faults.Arm(); err != nil {
		return err
	}
	log, out, err := obs.OpenLog(cfg.Log)
	if err != nil {
		return err
	}
	defer out.Close()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	endProfiles, err := obs.StartProfiles(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err := endProfiles(); err != nil {
			log.WithError(err).Error("profiles")
		}
	}()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	go func() {
		for range hup {
			if err := out.Reopen(); err != nil {
				log.WithError(err).Error("cannot reopen the log")
			}
		}
	}()
	err = osdslet.Run(ctx, osdslet.Options{Config: cfg, Version: version.Version, Log: log})
	if err != nil {
		log.WithError(err).Error("osdslet ends")
	}
	return err
}
