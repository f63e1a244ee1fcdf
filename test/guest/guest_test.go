//go:build real

package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestGuests shows what tests build on: the share, the disks, both networks, a
// loss of power, a pause.
func TestGuests(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	im, err := Build(ctx, t.Output())
	var cannot *CannotError
	if errors.As(err, &cannot) {
		t.Skip("skipped:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	share := t.TempDir()
	if err := os.WriteFile(filepath.Join(share, "hello"), []byte("from outside"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := im.Boot(ctx, t.TempDir(), Config{Nodes: 2, Share: share, Disks: []int{64, 128}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, b := l.Nodes[0], l.Nodes[1]
	shell := func(n *Node, script string) string {
		t.Helper()
		out, err := n.Shell(ctx, script)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	if got := shell(a, "cat /share/hello; echo there >/share/$(hostname)"); got != "from outside" {
		t.Errorf("read %q", got)
	}
	if got, err := os.ReadFile(filepath.Join(share, "node1")); string(got) != "there\n" {
		t.Errorf("written %q, %v", got, err)
	}
	if got := shell(b, "blockdev --getsize64 /dev/vdb /dev/vdc; hostname; cat /etc/nvme/hostnqn"); got != fmt.Sprintf("%d\n%d\nnode2\n%s", 64<<20, 128<<20, b.HostNQN) {
		t.Errorf("got %q", got)
	}
	shell(a, "modprobe -a dm_thin_pool target_core_iblock iscsi_target_mod nvmet_tcp nvme_tcp iscsi_tcp dm_multipath dm_snapshot; which fio lvcreate iscsiadm multipathd tgtd sg_persist nvme")

	// Both networks work, each by itself.
	reach := func(i int) string {
		out, err := a.Run(ctx, "timeout", "3", "bash", "-c",
			`exec 3<>/dev/tcp/$0/7000 && printf 'GET /hostname HTTP/1.0\r\n\r\n' >&3 && tail -n 1 <&3`, b.Addrs[i])
		if err != nil {
			t.Log(err)
			return ""
		}
		return strings.TrimSpace(out)
	}
	if _, err := b.Daemon(ctx, "/tmp/log", Cmd{Args: []string{"busybox", "httpd", "-f", "-p", "7000", "-h", "/etc"}}); err != nil {
		t.Fatal(err)
	}
	for i := range Links {
		if got := reach(i); got != "node2" {
			t.Errorf("network %d: %q", i, got)
		}
	}
	shell(b, "ip link set eth1 down")
	if r0, r1 := reach(0), reach(1); r0 != "" || r1 != "node2" {
		t.Errorf("with one network cut: %q, %q", r0, r1)
	}
	conn, err := b.DialContext(ctx, "tcp", "127.0.0.1:7000")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "GET /hostname HTTP/1.0\r\n\r\n")
	if buf, err := io.ReadAll(conn); err != nil || !strings.HasSuffix(string(buf), "node2\n") {
		t.Errorf("through the forward: %q, %v", buf, err)
	}
	_ = conn.Close()

	// What was written and synced is there after a loss of power; nothing else.
	shell(b, "echo kept | dd of=/dev/vdb bs=512 conv=sync oflag=direct status=none; echo lost >/etc/lost")
	b.PowerOff()
	if _, err := b.Run(ctx, "true"); err == nil {
		t.Error("a machine that is off answers")
	}
	if err := b.PowerOn(ctx); err != nil {
		t.Fatal(err)
	}
	if got := shell(b, "head -c 4 /dev/vdb; ls /etc/lost 2>/dev/null || echo gone"); got != "keptgone" {
		t.Errorf("got %q", got)
	}
	shell(a, "busybox ping -c1 -W5 "+b.Addrs[0])

	if err := b.Pause(); err != nil {
		t.Fatal(err)
	}
	short, stop := context.WithTimeout(ctx, time.Second)
	defer stop()
	if _, err := b.Run(short, "true"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a paused machine: %v", err)
	}
	if err := b.Resume(); err != nil {
		t.Fatal(err)
	}
	shell(b, "true")
	var exit *ExitError
	if _, err := a.Shell(ctx, "echo said; exit 3"); !errors.As(err, &exit) || exit.Status != 3 || exit.Output != "said\n" {
		t.Errorf("got %v", err)
	}
}
