package sample

import (
	"bytes"
	"context"
	"encoding/binary"
	"time"

	"go.etcd.io/bbolt"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// This file simulates long work: clearing and copying that takes many calls, goes
// on in each where the one before ended, and survives a restart.

// bWork holds how much of the work on an object is done, in nanoseconds, by
// "volume NUL operation".
var bWork = []byte("work")

// workStep is how often what is done is put on disk.
const workStep = 100 * time.Millisecond

// workWords say what each kind of work does, in the past tense.
var workWords = map[string]string{opCreate: "cleared", opClone: "copied", opExpand: "cleared", opRevert: "copied back", opDelete: "wiped"}

// toils says whether an operation takes long work, as configured.
func (d *Driver) toils(op string) bool { return d.conf.Work[op] > 0 }

// toil works on a volume until the work is done, the slice of this call is over,
// or nobody waits any more. It is nil when the work is done.
func (d *Driver) toil(ctx context.Context, op, id string, size model.Bytes) error {
	total := d.conf.Work[op]
	var done time.Duration
	if err := d.view(func(tx *bbolt.Tx) error { done = worked(tx, op, id); return nil }); err != nil {
		return err
	}
	t := time.NewTimer(0)
	defer t.Stop()
	<-t.C
	for began := time.Now(); done < total; {
		step := min(workStep, total-done)
		t.Reset(step)
		select {
		case <-t.C:
		case <-ctx.Done():
			return told(op, id, size, done, total)
		}
		done += step
		err := d.db.Batch(func(tx *bbolt.Tx) error {
			var v [8]byte
			binary.BigEndian.PutUint64(v[:], uint64(done))
			return tx.Bucket(bWork).Put(pair(id, op), v[:])
		})
		if err != nil {
			return model.Errorf(model.KindUnavailable, "sample inventory: %w", err)
		}
		faults.Point("sample.work.noted")
		if done < total && time.Since(began) >= d.conf.Slice {
			return told(op, id, size, done, total)
		}
	}
	return nil
}

func told(op, id string, size model.Bytes, done, total time.Duration) error {
	share := float64(done) / float64(total)
	return drivers.InProgress("volume "+id, workWords[op], model.Bytes(share*float64(size)), size)
}

func worked(tx *bbolt.Tx, op, id string) time.Duration {
	v := tx.Bucket(bWork).Get(pair(id, op))
	if len(v) != 8 {
		return 0
	}
	return time.Duration(binary.BigEndian.Uint64(v))
}

// restWork forgets the work on a volume: of one operation, or of all.
func restWork(tx *bbolt.Tx, id, op string) error {
	b := tx.Bucket(bWork)
	if op != "" {
		return b.Delete(pair(id, op))
	}
	prefix := pair(id, "")
	c := b.Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Seek(prefix) {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}
