//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

const (
	nvmet    = "/sys/kernel/config/nvmet"
	bareNQN  = "nqn.2004-10.com.example:bare"
	bareHost = "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-0000000000ba"
	barePort = 4499
)

// attaches measures attaches over NVMe/TCP on loopback by turns.
func (p *probe) attaches(ctx context.Context, volume string) error {
	if err := p.lvcreate(ctx, 0); err != nil {
		return err
	}
	var ba, bd, oa, od []float64
	for range p.n {
		var dev, id string
		t, err := timed(func() (err error) { dev, err = bareAttach(ctx, filepath.Join("/dev", p.group, "bare0")); return err })
		if err != nil {
			return fmt.Errorf("bare: %w", err)
		}
		ba = append(ba, t)
		if t, err = timed(func() error { return bareDetach(ctx, dev) }); err != nil {
			return fmt.Errorf("bare detach: %w", err)
		}
		bd = append(bd, t)
		if t, err = timed(func() (err error) { id, err = p.attach(ctx, volume); return err }); err != nil {
			return err
		}
		oa = append(oa, t)
		if t, err = timed(func() error { return p.detach(ctx, id) }); err != nil {
			return err
		}
		od = append(od, t)
	}
	p.out.BareAttach, p.out.BareDetach, p.out.OsdsAttach, p.out.OsdsDetach = median(ba), median(bd), median(oa), median(od)
	return p.lvremove(ctx, 1)
}

func (p *probe) attach(ctx context.Context, volume string) (string, error) {
	x, err := p.c.Attachments.Create(ctx, &wire.VolumeAttachmentSpec{VolumeID: volume, HostID: p.host})
	if err != nil {
		return "", err
	}
	if _, err = p.c.Wait(ctx, model.ResAttachment, x.ID, client.WaitOptions{TaskID: x.TaskID}); err != nil {
		return x.ID, err
	}
	if x, err = p.c.Attachments.Get(ctx, x.ID); err != nil {
		return "", err
	}
	return x.ID, opens(x.Mountpoint)
}

func (p *probe) detach(ctx context.Context, id string) error {
	if err := p.c.Attachments.Delete(ctx, id); err != nil {
		return err
	}
	_, err := p.c.Wait(ctx, model.ResAttachment, id, client.WaitOptions{Gone: true})
	return err
}

func opens(dev string) error {
	f, err := os.Open(dev)
	if err != nil {
		return err
	}
	return f.Close()
}

// bareAttach is the shortest way to a device: a subsystem with one namespace and
// one host, a port, a connect.
func bareAttach(ctx context.Context, volume string) (dev string, err error) {
	sub, port, host := filepath.Join(nvmet, "subsystems", bareNQN), filepath.Join(nvmet, "ports", strconv.Itoa(barePort)), filepath.Join(nvmet, "hosts", bareHost)
	for _, dir := range []string{host, sub, filepath.Join(sub, "namespaces", "1"), port} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return "", err
		}
	}
	for _, kv := range [][2]string{
		{sub + "/attr_allow_any_host", "0"}, {sub + "/namespaces/1/device_path", volume}, {sub + "/namespaces/1/enable", "1"},
		{port + "/addr_trtype", "tcp"}, {port + "/addr_adrfam", "ipv4"}, {port + "/addr_traddr", "127.0.0.1"}, {port + "/addr_trsvcid", strconv.Itoa(barePort)},
	} {
		if err := os.WriteFile(kv[0], []byte(kv[1]), 0); err != nil {
			return "", err
		}
	}
	if err := os.Symlink(host, filepath.Join(sub, "allowed_hosts", bareHost)); err != nil {
		return "", err
	}
	if err := os.Symlink(sub, filepath.Join(port, "subsystems", bareNQN)); err != nil {
		return "", err
	}
	f, err := os.OpenFile("/dev/nvme-fabrics", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	// The answer is on the same open file: instance=N,cntlid=M.
	if _, err := fmt.Fprintf(f, "transport=tcp,traddr=127.0.0.1,trsvcid=%d,nqn=%s,hostnqn=%s,hostid=%s", barePort, bareNQN, bareHost, bareHost[len(bareHost)-36:]); err != nil {
		return "", err
	}
	b := make([]byte, 256)
	n, err := f.Read(b)
	if err != nil {
		return "", err
	}
	var instance int
	if _, err := fmt.Sscanf(string(b[:n]), "instance=%d", &instance); err != nil {
		return "", fmt.Errorf("%q: %w", b[:n], err)
	}
	ctrl := fmt.Sprintf("nvme%d", instance)
	err = poll(ctx, func() (bool, error) {
		dev, err = namespace(ctrl)
		return dev != "" && opens(dev) == nil, err
	})
	return dev, err
}

// namespace finds the block device of a controller.
func namespace(ctrl string) (string, error) {
	// With native multipath the device is the subsystem's: nvmeSn1, while the
	// controller has a hidden nvmeScCn1.
	list, err := filepath.Glob("/sys/class/nvme-subsystem/*/" + ctrl)
	if err != nil || len(list) == 0 {
		return "", err
	}
	devs, err := filepath.Glob(filepath.Join(filepath.Dir(list[0]), "nvme*n*"))
	if err != nil || len(devs) == 0 {
		return "", err
	}
	for _, d := range devs {
		if name := filepath.Base(d); !strings.Contains(strings.TrimPrefix(name, "nvme"), "c") {
			return "/dev/" + name, nil
		}
	}
	return "", nil
}

func bareDetach(ctx context.Context, dev string) error {
	list, err := filepath.Glob("/sys/class/nvme/nvme*/subsysnqn")
	if err != nil {
		return err
	}
	for _, f := range list {
		if b, _ := os.ReadFile(f); strings.TrimSpace(string(b)) == bareNQN {
			if err := os.WriteFile(filepath.Join(filepath.Dir(f), "delete_controller"), []byte("1"), 0); err != nil {
				return err
			}
		}
	}
	sub, port, host := filepath.Join(nvmet, "subsystems", bareNQN), filepath.Join(nvmet, "ports", strconv.Itoa(barePort)), filepath.Join(nvmet, "hosts", bareHost)
	for _, path := range []string{filepath.Join(port, "subsystems", bareNQN), port, filepath.Join(sub, "namespaces", "1"), filepath.Join(sub, "allowed_hosts", bareHost), sub, host} {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return poll(ctx, func() (bool, error) {
		_, err := os.Lstat(dev)
		return errors.Is(err, os.ErrNotExist), nil
	})
}

func poll(ctx context.Context, f func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		ok, err := f()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
}
