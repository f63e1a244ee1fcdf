//go:build ceph

package ceph

import "github.com/osds-io/osds/pkg/model"

// notExported is busy for a volume that has exports.
func (s *space) notExported(id string) error {
	l, err := s.dir.page(ofVolumeKey+id+"/", "", 1)
	if err != nil {
		return err
	}
	if len(l) > 0 {
		return model.Errorf(model.KindBusy, "volume %s is exported by attachment %s", id, l[0].id)
	}
	return nil
}

// watchers gives the addresses of an image's clients, other than this one.
func (s *space) watchers(img *image) ([]string, error) {
	l, err := img.ListWatchers()
	if err != nil {
		return nil, err
	}
	var out []string
next:
	for _, w := range l {
		a := bareAddr(w.Addr)
		for _, own := range s.l.addrs {
			if a == own {
				continue next
			}
		}
		out = append(out, a)
	}
	return out, nil
}

// notWatched is busy for a volume that somebody has open.
func (s *space) notWatched(img *image) error {
	w, err := s.watchers(img)
	if err == nil && len(w) > 0 {
		err = model.Errorf(model.KindBusy, "volume %s is open at %s", img.id, w[0])
	}
	return err
}
