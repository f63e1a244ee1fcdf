// Package group does the tasks of volume groups. A group ties its volumes to one
// pool; it holds no space of its own.
package group

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/osds-io/osds/pkg/controller/selector"
	"github.com/osds-io/osds/pkg/controller/steps"
	"github.com/osds-io/osds/pkg/controller/task"
	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
)

// Handler does groups' tasks.
type Handler struct{ steps.Base }

var _ task.Handler = (*Handler)(nil)

// Class is that of steps that call no dock: members have tasks of their own.
func (h *Handler) Class(model.Tasked) task.Class { return h.Control() }

// Step does the next step.
func (h *Handler) Step(ctx context.Context, j *task.Job) error {
	g := j.Rec.(*model.Group)
	switch g.Task.Kind {
	case model.TaskCreate:
		return h.create(j, g)
	case model.TaskUpdate:
		return h.update(j)
	}
	return h.remove(j, g)
}

func (h *Handler) create(j *task.Job, g *model.Group) error {
	r := selector.Request{AvailabilityZone: g.AvailabilityZone}
	var pool *model.Pool
	err := func() (err error) {
		if g.Task.Cancel {
			return model.Errorf(model.KindConflict, steps.Cancelled)
		}
		for _, id := range g.Profiles {
			p, ok := h.Store.Profiles.Get(id)
			if !ok {
				return model.Errorf(model.KindNotFound, "profile %s is gone", id)
			}
			r.Profiles = append(r.Profiles, p)
		}
		pool, err = h.Fleet.Choose(r)
		return err
	}()
	return task.Advance(j, "group.created", func(g *model.Group, _ *db.Txn) error {
		if err != nil {
			h.end(g, model.StatusError, err)
			return nil
		}
		g.PoolID = pool.ID
		h.end(g, model.StatusAvailable, nil)
		return nil
	})
}

// update moves volumes into and out of the group in one transaction. What the
// API checked is checked again: the volumes may have changed since.
func (h *Handler) update(j *task.Job) error {
	return task.Advance(j, "group.updated", func(g *model.Group, t *db.Txn) error {
		var bad []string
		for _, id := range g.AddVolumes {
			v, ok := h.Store.Volumes.Get(id)
			switch {
			case !ok || (v.Status != model.StatusAvailable && v.Status != model.StatusInUse):
				bad = append(bad, fmt.Sprintf("volume %s is not available any more", id))
			case v.PoolID != g.PoolID:
				bad = append(bad, fmt.Sprintf("volume %s is not in the group's pool", id))
			case v.GroupID != "" && v.GroupID != g.ID:
				bad = append(bad, fmt.Sprintf("volume %s is in group %s", id, v.GroupID))
			case !slices.Contains(g.Profiles, v.ProfileID):
				bad = append(bad, fmt.Sprintf("volume %s has a profile that the group has not", id))
			default:
				h.member(t, v, g.ID)
			}
		}
		for _, id := range g.RemoveVolumes {
			if v, ok := h.Store.Volumes.Get(id); ok && v.GroupID == g.ID {
				h.member(t, v, "")
			}
		}
		g.AddVolumes, g.RemoveVolumes = nil, nil
		if len(bad) > 0 {
			t.Ops, t.Guards = nil, nil
			// Nothing was changed: the group is as it was.
			h.end(g, model.StatusAvailable, model.Errorf(model.KindConflict, "the last update failed: %s", strings.Join(bad, "; ")))
			return nil
		}
		h.end(g, model.StatusAvailable, nil)
		return nil
	})
}

func (h *Handler) member(t *db.Txn, v *model.Volume, group string) {
	c := v.Clone()
	c.GroupID, c.UpdatedAt = group, h.Now().UTC()
	t.Update(c)
}

// remove deletes the members by tasks of their own, and the group after the last
// of them.
func (h *Handler) remove(j *task.Job, g *model.Group) error {
	members := h.Store.Volumes.Where("groupId", g.ID, 0)
	if len(members) == 0 {
		return task.Drop(j, "group.drop", func(*model.Group, *db.Txn) error { return nil })
	}
	var stuck []string
	for _, v := range members {
		switch {
		case v.Task.Active():
		case v.Status == model.StatusErrorDeleting && v.Task.CreatedAt.After(g.Task.CreatedAt):
			stuck = append(stuck, fmt.Sprintf("volume %s: %s", v.ID, v.StatusReason))
		case !model.MayStart(model.ResVolume, model.TaskDelete, v.Status):
			stuck = append(stuck, fmt.Sprintf("volume %s is %s", v.ID, v.Status))
		default:
			c := v.Clone()
			c.Task = model.NewTask(model.ResVolume, model.TaskDelete, v.Status, g.Task.RequestID, h.Now())
			c.Status, c.UpdatedAt = model.StatusDeleting, h.Now().UTC()
			if err := j.Commit((&db.Txn{Label: "group.member"}).Update(c)); err != nil {
				return err
			}
		}
	}
	if len(stuck) > 0 {
		return task.Advance(j, "group.errordeleting", func(g *model.Group, _ *db.Txn) error {
			h.end(g, model.StatusErrorDeleting, model.Errorf(model.KindBusy, "%s", strings.Join(stuck, "; ")))
			return nil
		})
	}
	return &task.Wait{For: 500 * time.Millisecond, Reason: fmt.Sprintf("waiting for %d member volumes to be deleted", len(members))}
}

// end puts a group and its task into their last state.
func (h *Handler) end(g *model.Group, s model.Status, err error) {
	g.Status, g.StatusReason = s, ""
	if err != nil {
		g.StatusReason = err.Error()
	}
	g.Task.EndWith(err, h.Now())
}
