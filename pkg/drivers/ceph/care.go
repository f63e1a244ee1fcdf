//go:build ceph

package ceph

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ceph/go-ceph/rbd"

	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/pkg/model"
)

// Times of the care that goes on in the background.
const (
	careEvery  = 30 * time.Second
	careSoon   = 500 * time.Millisecond // after a delete, if there is something to purge
	countSoon  = 2 * time.Second        // after a delete, if it is only to be counted
	othersAge  = 10 * time.Minute       // how long others' images are taken to stay as they are
	othersMost = 200                    // how many of them are looked at in one round
	othersFew  = 10                     // and in one after deletes
	// staleTrash is when a note of a delete that has no image in the trash is
	// forgotten.
	staleTrash = time.Hour
)

// wake has the care look at the trash soon.
func (d *Driver) wake() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// care purges the trash, finds images that came back, counts what is not osds's
// to promise, and notes which clients the hosts have, until ctx ends. Whatever fails is tried again.
func (d *Driver) care(ctx context.Context) {
	all := []work{(*space).purge, (*space).rebuild, (*space).countAll, (*space).noteClients}
	delay, pause := d.conf.TrashDelay, careSoon
	if delay > careSoon {
		pause = countSoon
	}
	t, soon, later := time.NewTicker(careEvery), time.NewTimer(careSoon), time.NewTimer(delay)
	defer t.Stop()
	defer soon.Stop()
	defer later.Stop()
	soon.Stop()
	later.Stop()
	d.careOnce(ctx, all...)
	waiting := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			d.careOnce(ctx, all...)
		case <-d.kick:
			// Deletes come in crowds: one round for all of them.
			if !waiting {
				waiting = true
				soon.Reset(pause)
			}
			if delay > careSoon && delay < careEvery {
				later.Reset(delay)
			}
		case <-soon.C:
			waiting = false
			if delay <= careSoon {
				d.careOnce(ctx, (*space).purge)
			}
			d.careOnce(ctx, (*space).countSome)
		case <-later.C:
			d.careOnce(ctx, (*space).purge)
		}
	}
}

// work is a part of the care of one pool.
type work func(*space, context.Context) error

func (d *Driver) careOnce(ctx context.Context, works ...work) {
	l, err := d.links.get(ctx)
	if err != nil {
		return
	}
	dead := false
	for _, n := range d.names {
		s := d.space(l, d.pools[n])
		for _, fn := range works {
			if err := fn(s, ctx); cutOff(err) {
				dead = true
			}
			if ctx.Err() != nil {
				break
			}
		}
	}
	d.links.put(l, dead)
}

// purge removes what is due in the trash and was put there by a delete. What
// clones still need stays until they are independent, which is seen to.
func (s *space) purge(ctx context.Context) error {
	var notes []string
	err := s.dir.all(ctx, trashKey, func(i item) bool {
		var e trashEntry
		// What cannot be read is decided by the trash itself.
		if json.Unmarshal(i.data, &e) != nil || time.Since(e.Deleted) >= s.d.conf.TrashDelay {
			notes = append(notes, i.id)
		}
		return true
	})
	if err != nil {
		return err
	}
	// A clone in the trash goes before its parent: what was busy may not be any
	// more when others have gone.
	for gone := true; gone && len(notes) > 0; {
		gone = false
		var busy []string
		for _, rid := range notes {
			err := s.purgeDue(ctx, rid)
			switch {
			case err == nil:
				gone = true
			case model.IsKind(fail("", err), model.KindBusy):
				busy = append(busy, rid)
			default:
				return err
			}
		}
		notes = busy
	}
	return nil
}

// purgeDue removes an image that is due in the trash, by its note. A note whose
// image never came there, or was taken out again, goes after a while.
func (s *space) purgeDue(ctx context.Context, rid string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	until, there, err := s.inTrash(rid)
	switch {
	case err != nil:
		return err
	case there && time.Now().Before(until):
		return nil
	case there:
		return s.purgeOne(ctx, rid)
	}
	var e trashEntry
	if ours, err := s.dir.get(trashKey+rid, &e); err != nil || !ours || time.Since(e.Deleted) < staleTrash {
		return err
	}
	return s.dir.drop(trashKey + rid)
}

func (s *space) purgeOne(ctx context.Context, id string) error {
	if err := s.partChildren(ctx, id); err != nil {
		return err
	}
	if err := rbd.TrashRemove(s.io, id, false); err != nil && !absent(err) {
		return err
	}
	return s.dir.drop(trashKey + id)
}

// partChildren makes the clones of an image in the trash independent of it. A
// clone that is in the trash too goes before it.
func (s *space) partChildren(ctx context.Context, id string) error {
	img, err := rbd.OpenImageByIdReadOnly(s.io, id, rbd.NoSnapshot)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	children, err := img.ListChildrenAttributes()
	if cerr := img.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	for _, c := range children {
		if c.Trash {
			continue // librbd says busy until it is gone
		}
		if c.PoolID != uint64(s.l.ids[s.name]) || c.PoolNamespace != "" {
			return model.Errorf(model.KindBusy, "the image %s has a clone in pool %s that is not of osds", id, c.PoolName)
		}
		volume, ours := strings.CutPrefix(c.ImageName, namePrefix)
		if !ours {
			return model.Errorf(model.KindBusy, "the image %s has a clone %s that is not of osds", id, c.ImageName)
		}
		if err := s.part(ctx, c.ImageID, volume); err != nil {
			return err
		}
	}
	return nil
}

// part flattens one clone. It can take long; a call on that volume breaks it
// off, and it is gone on with later.
func (s *space) part(ctx context.Context, imageID, volumeID string) error {
	unlock, ctx, err := s.d.background(ctx, lockVolume(volumeID))
	if err != nil {
		return err
	}
	defer unlock()
	img, err := rbd.OpenImageById(s.io, imageID, rbd.NoSnapshot)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	err = flatten(ctx, img)
	if cerr := img.Close(); err == nil {
		err = cerr
	}
	return err
}

// yielding are the background's works that give way to calls.
type yielding struct {
	mu sync.Mutex
	m  map[string]context.CancelFunc
}

// background takes a lock for work that gives way: the context it gives ends when
// a call wants the lock.
func (d *Driver) background(ctx context.Context, w keylock.Want) (unlock func(), _ context.Context, err error) {
	ctx, cancel := context.WithCancel(ctx)
	// Before the lock, so that no call comes in between and waits in vain.
	d.yields.mu.Lock()
	if d.yields.m == nil {
		d.yields.m = map[string]context.CancelFunc{}
	}
	d.yields.m[w.Key] = cancel
	d.yields.mu.Unlock()
	end := func() {
		d.yields.mu.Lock()
		delete(d.yields.m, w.Key)
		d.yields.mu.Unlock()
		cancel()
	}
	release, err := d.locks.LockAll(ctx, w)
	if err != nil {
		end()
		return nil, nil, err
	}
	return func() { end(); release() }, ctx, nil
}

// interrupt breaks off background work that has one of the locks.
func (d *Driver) interrupt(wants []keylock.Want) {
	d.yields.mu.Lock()
	defer d.yields.mu.Unlock()
	for _, w := range wants {
		if cancel := d.yields.m[w.Key]; cancel != nil {
			cancel()
		}
	}
}

// counted is what an image was found to take.
type counted struct {
	bytes model.Bytes
	at    time.Time
}

// countAll and countSome count; some is what goes on while there are deletes.
func (s *space) countAll(ctx context.Context) error  { return s.count(ctx, othersMost) }
func (s *space) countSome(ctx context.Context) error { return s.count(ctx, othersFew) }

// count finds out what the pool holds that is not osds's to promise: the trash,
// and images that are not ours.
func (s *space) count(ctx context.Context, most int) error {
	trash, err := rbd.GetTrashList(s.io)
	if errno(err) == syscall.ERANGE {
		// More than librbd lists at a time: what osds put there is counted.
		trash = nil
		err = s.dir.all(ctx, trashKey, func(i item) bool { trash = append(trash, rbd.TrashInfo{Id: i.id}); return true })
	}
	if err != nil {
		return err
	}
	names, err := rbd.GetImageNames(s.io)
	if err != nil {
		return err
	}
	ours := map[string]bool{}
	if err := s.dir.all(ctx, volumeKey, func(i item) bool { ours[imageName(i.id)] = true; return true }); err != nil {
		return err
	}
	was, now := s.counts, map[string]counted{}
	looked := 0
	look := func(key string, age time.Duration, open func() (*rbd.Image, error)) error {
		c, known := was[key]
		if known && time.Since(c.at) < age || looked >= most {
			if known {
				now[key] = c
			}
			return ctx.Err()
		}
		looked++
		img, err := open()
		if absent(err) {
			return nil
		}
		if err != nil {
			return err
		}
		defer img.Close()
		n, err := taken(ctx, img)
		if err == nil {
			now[key] = counted{n, time.Now()}
		}
		return err
	}
	for _, t := range trash {
		// What is in the trash does not change.
		if err := look("trash/"+t.Id, 24*time.Hour, func() (*rbd.Image, error) { return rbd.OpenImageByIdReadOnly(s.io, t.Id, rbd.NoSnapshot) }); err != nil && errno(err) != syscall.EBUSY {
			return err
		}
	}
	for _, n := range names {
		if ours[n] {
			continue
		}
		if err := look("image/"+n, othersAge, func() (*rbd.Image, error) { return rbd.OpenImageReadOnly(s.io, n, rbd.NoSnapshot) }); err != nil {
			return err
		}
	}
	var sum model.Bytes
	for _, c := range now {
		sum += c.bytes
	}
	s.counts = now
	s.mu.Lock()
	s.away = sum
	s.mu.Unlock()
	return nil
}

// taken says how much an image takes: what its object map says, or its size if
// it has none, because asking for each object can take hours.
func taken(ctx context.Context, img *rbd.Image) (model.Bytes, error) {
	size, err := img.GetSize()
	if err != nil {
		return 0, err
	}
	f, err := img.GetFeatures()
	if err != nil {
		return 0, err
	}
	if f&features["fast-diff"] == 0 || size == 0 {
		return model.Bytes(size), nil
	}
	var sum uint64
	err = img.DiffIterate(rbd.DiffIterateConfig{Length: size, IncludeParent: rbd.ExcludeParent, WholeObject: rbd.EnableWholeObject,
		Callback: func(_, n uint64, exists int, _ any) int {
			if ctx.Err() != nil {
				return -int(syscall.ECANCELED)
			}
			if exists != 0 {
				sum += n
			}
			return 0
		}})
	return model.Bytes(sum), err
}

// noteClients remembers which clients are on the images that are exported, so
// that a host can be cut off that has lost its way to the cluster.
func (s *space) noteClients(ctx context.Context) error {
	var all []item
	if err := s.dir.all(ctx, exportKey, func(i item) bool { all = append(all, i); return true }); err != nil {
		return err
	}
	for _, i := range all {
		var e exportEntry
		if json.Unmarshal(i.data, &e) != nil || !model.ValidID(e.VolumeID) {
			continue
		}
		if err := s.noteClientsOf(ctx, i.id, e.VolumeID); err != nil {
			return err
		}
	}
	return nil
}

func (s *space) noteClientsOf(ctx context.Context, attachmentID, volumeID string) error {
	unlock, ctx, err := s.d.background(ctx, keylock.Want{Key: "a/" + attachmentID})
	if err != nil {
		return err
	}
	defer unlock()
	var e exportEntry
	if found, err := s.dir.get(exportKey+attachmentID, &e); err != nil || !found || e.VolumeID != volumeID {
		return err
	}
	img, err := s.open(volumeID, false)
	if err != nil || img == nil {
		return err
	}
	defer img.close()
	w, err := s.watchers(img)
	if err != nil || len(w) == 0 {
		return err
	}
	others, err := s.exportsOf(ctx, volumeID)
	if err != nil {
		return err
	}
	delete(others, attachmentID)
	mine, _ := whose(w, e, others)
	return s.remember(attachmentID, e, mine)
}

// rebuild puts into the directory what says of itself that it is ours and is not
// there: a directory that was lost, or left behind when images were copied, is
// made anew, and so is what a delete that failed has taken out. Another dock may
// have been deleting the volume just then: what was put in is looked at once more
// in the next round.
func (s *space) rebuild(ctx context.Context) error {
	again := s.adopted
	s.adopted = nil
	for _, id := range again {
		if err := s.disown(ctx, id); err != nil {
			s.adopted = again
			return err
		}
	}
	names, err := rbd.GetImageNames(s.io)
	if err != nil {
		return err
	}
	have := map[string]bool{}
	if err := s.dir.all(ctx, volumeKey, func(i item) bool { have[i.id] = true; return true }); err != nil {
		return err
	}
	for _, n := range names {
		if id, ok := strings.CutPrefix(n, namePrefix); ok && !have[id] && model.ValidID(id) {
			s.adopted = append(s.adopted, id)
		}
	}
	missing := s.adopted
	return each(ctx, len(missing), func(i int) error { return s.readopt(ctx, missing[i]) })
}

// disown takes a volume out of the directory again that has no image.
func (s *space) disown(ctx context.Context, id string) error {
	unlock, _, err := s.d.background(ctx, lockVolume(id))
	if err != nil {
		return err
	}
	defer unlock()
	if rid, err := s.imageID(id); err != nil || rid != "" {
		return err
	}
	return s.dir.drop(volumeKey + id)
}

func (s *space) readopt(ctx context.Context, id string) error {
	unlock, _, err := s.d.background(ctx, lockVolume(id))
	if err != nil {
		return err
	}
	defer unlock()
	img, err := s.look(id)
	if err != nil || img == nil || !img.whole {
		return err
	}
	t := img.tag
	entries := map[string]any{volumeKey + id: img.entry()}
	snaps, err := s.lookSnaps(img)
	if err != nil {
		return err
	}
	for _, sn := range snaps {
		of, ok := strings.CutPrefix(sn.Name, namePrefix)
		if !ok || sn.kind != rbd.SnapNamespaceTypeUser || !model.ValidID(of) {
			continue
		}
		var e snapshotEntry
		if found, err := s.dir.get(snapshotKey+of, &e); err != nil {
			return err
		} else if !found {
			entries[snapshotKey+of] = snapshotEntry{VolumeID: id, Tenant: t.Tenant, Cluster: t.Cluster,
				Size: model.Bytes(sn.Size) - t.header(), Created: t.Created}
		}
	}
	return s.dir.put(entries)
}
