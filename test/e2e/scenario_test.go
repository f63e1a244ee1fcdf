//go:build real

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// scenario is the life of a volume, driven by a client whose server may die at
// any moment. Every request is sent once; where no answer came, the client looks,
// finds it done wholly or not at all, and sends it again with the same key.
type scenario struct {
	// c does not repeat requests by itself.
	c      *client.Client
	poolID string
	hostID string
	// ready waits until the server answers again.
	ready func(ctx context.Context) error
	// dock says that a dock attaches for the host, and that the volume grows
	// while it is attached.
	dock bool
	// force makes detaching forced.
	force bool
	// imports says that the pool can import: the volume is given back in the
	// end, imported again, and deleted then.
	imports bool
	// log is told of what the client sees, for the report of a failure.
	log func(format string, args ...any)
}

// run lives one life. The error says what was not as asked.
func (s *scenario) run(ctx context.Context) error {
	v, err := s.create(ctx, &wire.VolumeSpec{Name: "v", Size: 1, PoolID: s.poolID})
	if err != nil {
		return err
	}
	if err := s.grow(ctx, v, 2); err != nil {
		return err
	}
	snap, err := s.snapshot(ctx, v)
	if err != nil {
		return err
	}
	clone, err := s.create(ctx, &wire.VolumeSpec{Name: "clone", Size: 2, SnapshotID: snap})
	if err != nil {
		return err
	}
	at, err := s.attach(ctx, v)
	if err != nil {
		return err
	}
	if err := s.remove(ctx, model.ResAttachment, at); err != nil {
		return err
	}
	if err := s.settled(ctx, v, model.StatusAvailable, 2); err != nil {
		return err
	}
	if err := s.revert(ctx, v, snap); err != nil {
		return err
	}
	for _, x := range []struct {
		res model.Resource
		id  string
	}{{model.ResVolume, clone}, {model.ResSnapshot, snap}} {
		if err := s.remove(ctx, x.res, x.id); err != nil {
			return err
		}
	}
	if s.imports {
		if v, err = s.giveAndTake(ctx, v); err != nil {
			return err
		}
	}
	return s.remove(ctx, model.ResVolume, v)
}

// giveAndTake gives a volume back to its backend and imports it again.
func (s *scenario) giveAndTake(ctx context.Context, id string) (string, error) {
	if err := s.remove(ctx, model.ResVolume, id, client.Release()); err != nil {
		return "", err
	}
	var list []wire.ImportableSpec
	// The dock may be the one that dies.
	err := again(ctx, func() (err error) { list, _, err = s.c.Importable(ctx, s.poolID, ""); return err })
	if err != nil {
		return "", fmt.Errorf("list importable: %w", err)
	}
	if len(list) != 1 || list[0].Obstacle != "" {
		return "", fmt.Errorf("a volume was given back, and these are importable: %+v", list)
	}
	return s.create(ctx, &wire.VolumeSpec{Name: "imported", PoolID: s.poolID, Existing: list[0].Name})
}

// send sends a request until it is answered. look says whether it has been
// carried out, wholly; an error if neither wholly nor not at all.
func (s *scenario) send(ctx context.Context, what string, do func(context.Context, ...client.Option) error, look func(context.Context) (bool, error)) error {
	key := client.IdempotencyKey(model.NewID())
	for {
		err := do(ctx, key)
		var gone *client.Unreachable
		switch {
		case err == nil:
			return nil
		case errors.As(err, &gone), model.IsKind(err, model.KindUnavailable, model.KindUnknownOutcome):
		default:
			return fmt.Errorf("%s: %w", what, err)
		}
		s.log("%s: no answer: %v", what, err)
		if err := s.ready(ctx); err != nil {
			return fmt.Errorf("%s: the server does not come back: %w", what, err)
		}
		var done bool
		err = s.persist(ctx, func() (err error) { done, err = look(ctx); return err })
		if err != nil {
			return fmt.Errorf("%s: after no answer: %w", what, err)
		}
		s.log("%s: carried out: %t; asking again with the same key", what, done)
	}
}

// persist makes a read, however often the server dies meanwhile.
func (s *scenario) persist(ctx context.Context, read func() error) error {
	for {
		err := read()
		var gone *client.Unreachable
		if err == nil || ctx.Err() != nil || !(errors.As(err, &gone) || model.IsKind(err, model.KindUnavailable, model.KindUnknownOutcome)) {
			return err
		}
		if err := s.ready(ctx); err != nil {
			return err
		}
	}
}

// wait waits until the work on a record has ended as asked.
func (s *scenario) wait(ctx context.Context, res model.Resource, id string, o client.WaitOptions) error {
	_, err := s.c.Wait(ctx, res, id, o)
	return err
}

// refused is the short life of a volume whose backend does not make it: it ends
// in error, with the reason, holding nothing; and is deleted.
func (s *scenario) refused(ctx context.Context) error {
	id, err := s.create(ctx, &wire.VolumeSpec{Name: "refused", Size: 1, PoolID: s.poolID})
	var failed *client.FailedError
	if !errors.As(err, &failed) || !strings.Contains(failed.Reason, "no room after all") {
		return fmt.Errorf("a create on a backend that refuses it: %w", err)
	}
	var v *wire.VolumeSpec
	if err := s.persist(ctx, func() (err error) { v, err = s.c.Volumes.Get(ctx, id); return err }); err != nil {
		return err
	}
	if v.Status != model.StatusError || v.PoolID != "" {
		return fmt.Errorf("a volume that was refused is %s, in pool %q", v.Status, v.PoolID)
	}
	return s.remove(ctx, model.ResVolume, id)
}

func (s *scenario) create(ctx context.Context, spec *wire.VolumeSpec) (string, error) {
	spec.ID = model.NewID()
	what := "create volume " + spec.Name
	var task string
	err := s.send(ctx, what, func(ctx context.Context, o ...client.Option) error {
		v, err := s.c.Volumes.Create(ctx, spec, o...)
		if err == nil {
			if v.ID != spec.ID {
				return fmt.Errorf("answered with another id: %s", v.ID)
			}
			if task != "" && v.TaskID != task {
				return fmt.Errorf("task %s was accepted, and the same key gave %s", task, v.TaskID)
			}
			task = v.TaskID
		}
		return err
	}, func(ctx context.Context) (bool, error) {
		v, err := s.c.Volumes.Get(ctx, spec.ID)
		if client.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if task = v.TaskID; v.Name != spec.Name || v.Size != spec.Size && spec.Existing == "" || task == "" {
			return false, fmt.Errorf("half a record: %+v", v)
		}
		return true, nil
	})
	if err != nil {
		return "", err
	}
	if err := s.wait(ctx, model.ResVolume, spec.ID, client.WaitOptions{TaskID: task}); err != nil {
		return spec.ID, fmt.Errorf("%s: %w", what, err)
	}
	size := spec.Size
	if spec.Existing != "" {
		size = 2 // that of the volume that was given back
	}
	return spec.ID, s.settled(ctx, spec.ID, model.StatusAvailable, size)
}

// settled checks a volume's state and size.
func (s *scenario) settled(ctx context.Context, id string, want model.Status, size int64) error {
	var v *wire.VolumeSpec
	if err := s.persist(ctx, func() (err error) { v, err = s.c.Volumes.Get(ctx, id); return err }); err != nil {
		return err
	}
	if v.Status != want || v.Size != size {
		return fmt.Errorf("volume %s is %s with %d GB (%s), want %s with %d GB", id, v.Status, v.Size, v.StatusReason, want, size)
	}
	return nil
}

func (s *scenario) grow(ctx context.Context, id string, gb int64) error {
	var task string
	err := s.send(ctx, "grow", func(ctx context.Context, o ...client.Option) error {
		v, err := s.c.ExtendVolume(ctx, id, gb, o...)
		if err == nil {
			task = v.TaskID
		}
		return err
	}, func(ctx context.Context) (bool, error) {
		v, err := s.c.Volumes.Get(ctx, id)
		if err != nil {
			return false, err
		}
		return v.Status == model.StatusExtending || v.Size == gb, nil
	})
	if err != nil {
		return err
	}
	if err := s.wait(ctx, model.ResVolume, id, client.WaitOptions{TaskID: task}); err != nil {
		return fmt.Errorf("grow: %w", err)
	}
	want := model.StatusAvailable
	if s.dock {
		want = model.StatusInUse
	}
	return s.settled(ctx, id, want, gb)
}

func (s *scenario) revert(ctx context.Context, id, snap string) error {
	var task string
	err := s.send(ctx, "revert", func(ctx context.Context, o ...client.Option) error {
		v, err := s.c.RevertToSnapshot(ctx, snap, nil, o...)
		if err == nil {
			task = v.TaskID
		}
		return err
	}, func(ctx context.Context) (bool, error) {
		v, err := s.c.Volumes.Get(ctx, id)
		if err != nil {
			return false, err
		}
		return v.Status == model.StatusReverting, nil
	})
	if err != nil {
		return err
	}
	if err := s.wait(ctx, model.ResVolume, id, client.WaitOptions{TaskID: task}); err != nil {
		return fmt.Errorf("revert: %w", err)
	}
	return s.settled(ctx, id, model.StatusAvailable, 2)
}

func (s *scenario) snapshot(ctx context.Context, volume string) (string, error) {
	spec := &wire.VolumeSnapshotSpec{Base: wire.Base{ID: model.NewID()}, Name: "snap", VolumeID: volume}
	var task string
	err := s.send(ctx, "snapshot", func(ctx context.Context, o ...client.Option) error {
		x, err := s.c.Snapshots.Create(ctx, spec, o...)
		if err == nil {
			task = x.TaskID
		}
		return err
	}, func(ctx context.Context) (bool, error) {
		_, err := s.c.Snapshots.Get(ctx, spec.ID)
		if client.IsNotFound(err) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return "", err
	}
	if err := s.wait(ctx, model.ResSnapshot, spec.ID, client.WaitOptions{TaskID: task}); err != nil {
		return "", fmt.Errorf("snapshot: %w", err)
	}
	return spec.ID, nil
}

func (s *scenario) attach(ctx context.Context, volume string) (string, error) {
	spec := &wire.VolumeAttachmentSpec{Base: wire.Base{ID: model.NewID()}, VolumeID: volume, HostID: s.hostID}
	var task string
	err := s.send(ctx, "attach", func(ctx context.Context, o ...client.Option) error {
		x, err := s.c.Attachments.Create(ctx, spec, o...)
		if err == nil {
			task = x.TaskID
		}
		return err
	}, func(ctx context.Context) (bool, error) {
		_, err := s.c.Attachments.Get(ctx, spec.ID)
		if client.IsNotFound(err) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return "", err
	}
	if err := s.wait(ctx, model.ResAttachment, spec.ID, client.WaitOptions{TaskID: task}); err != nil {
		return "", fmt.Errorf("attach: %w", err)
	}
	var at *wire.VolumeAttachmentSpec
	if err := s.persist(ctx, func() (err error) { at, err = s.c.Attachments.Get(ctx, spec.ID); return err }); err != nil {
		return "", err
	}
	if at.Status != model.StatusAvailable || at.ConnectionInfo.DriverVolumeType == "" || len(at.ConnectionInfo.Data) == 0 {
		return "", fmt.Errorf("attach: %s without a connection: %+v", at.Status, at.ConnectionInfo)
	}
	size := int64(2)
	if s.dock {
		size = 1
		if at.DockID == "" || at.ConnectionInfo.Data["devicePath"] == nil {
			return "", fmt.Errorf("attach: not through the host's dock: %+v", at)
		}
	}
	return spec.ID, s.settled(ctx, volume, model.StatusInUse, size)
}

func (s *scenario) remove(ctx context.Context, res model.Resource, id string, more ...client.Option) error {
	what := "delete " + string(res)
	err := s.send(ctx, what, func(ctx context.Context, o ...client.Option) error {
		err := s.delete(ctx, res, id, append(o, more...)...)
		if client.IsNotFound(err) {
			return nil // it was accepted, done, and is long gone
		}
		return err
	}, func(ctx context.Context) (bool, error) {
		st, err := s.status(ctx, res, id)
		if client.IsNotFound(err) {
			return true, nil
		}
		return st == model.StatusDeleting, err
	})
	if err != nil {
		return err
	}
	if err := s.wait(ctx, res, id, client.WaitOptions{Gone: true}); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func (s *scenario) delete(ctx context.Context, res model.Resource, id string, o ...client.Option) error {
	switch res {
	case model.ResVolume:
		return s.c.Volumes.Delete(ctx, id, o...)
	case model.ResSnapshot:
		return s.c.Snapshots.Delete(ctx, id, o...)
	}
	if s.force {
		o = append(o, client.Force())
	}
	return s.c.Attachments.Delete(ctx, id, o...)
}

func (s *scenario) status(ctx context.Context, res model.Resource, id string) (model.Status, error) {
	switch res {
	case model.ResVolume:
		v, err := s.c.Volumes.Get(ctx, id)
		if err != nil {
			return "", err
		}
		return v.Status, nil
	case model.ResSnapshot:
		v, err := s.c.Snapshots.Get(ctx, id)
		if err != nil {
			return "", err
		}
		return v.Status, nil
	}
	v, err := s.c.Attachments.Get(ctx, id)
	if err != nil {
		return "", err
	}
	return v.Status, nil
}

// again calls f until it gives nil or ctx ends.
func again(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(25 * time.Millisecond):
		}
	}
}
