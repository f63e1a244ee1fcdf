package db

import (
	"context"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
)

// A store that was full, and has room again, works after a start.
func TestFullStoreWithRoomAgainIsDisarmed(t *testing.T) {
	dir := t.TempDir()
	ctx := context.Background()
	s, err := Open(ctx, Config{Embedded: Embedded{Dir: dir}})
	if err != nil {
		t.Fatal(err)
	}
	id := uint64(s.member.etcd.Server.MemberID())
	if _, err := s.member.etcd.Server.Alarm(ctx, &etcdserverpb.AlarmRequest{
		Action: etcdserverpb.AlarmRequest_ACTIVATE, MemberID: id, Alarm: etcdserverpb.AlarmType_NOSPACE}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(ctx, (&Txn{Label: "t"}).Create(volume(1))); err == nil {
		t.Fatal("a full store took a write")
	}
	s.Close()
	if s, err = Open(ctx, Config{Embedded: Embedded{Dir: dir}}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Commit(ctx, (&Txn{Label: "t"}).Create(volume(1))); err != nil {
		t.Fatalf("after a start with room: %v", err)
	}
}
