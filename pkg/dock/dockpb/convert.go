package dockpb

import (
	"encoding/json"
	"fmt"
	"reflect"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// VolumeRef is a reference to a volume of a backend.
func VolumeRef(backend string, r drivers.VolumeRef) *ObjectRef {
	return &ObjectRef{Id: r.ID, Backend: backend, Pool: r.Pool, BackendData: r.BackendData}
}

// ToVolumeRef is the driver's view of a reference.
func ToVolumeRef(r *ObjectRef) drivers.VolumeRef {
	return drivers.VolumeRef{ID: r.GetId(), Pool: r.GetPool(), BackendData: r.GetBackendData()}
}

// SnapshotRef is a reference to a snapshot of a backend.
func SnapshotRef(backend string, r drivers.SnapshotRef) *ObjectRef {
	return &ObjectRef{Id: r.ID, Backend: backend, Pool: r.Pool, VolumeId: r.VolumeID, BackendData: r.BackendData}
}

// ToSnapshotRef is the driver's view of a reference.
func ToSnapshotRef(r *ObjectRef) drivers.SnapshotRef {
	return drivers.SnapshotRef{ID: r.GetId(), VolumeID: r.GetVolumeId(), Pool: r.GetPool(), BackendData: r.GetBackendData()}
}

// FromVolume makes the message of a driver's volume.
func FromVolume(backend string, v drivers.Volume) *Volume {
	return &Volume{
		Id: v.ID, Backend: backend, Pool: v.Pool, Size: int64(v.Size), BackendData: v.BackendData,
		DurableName: v.DurableName, DurableFormat: v.DurableFormat,
		TenantId: v.TenantID, ClusterId: v.ClusterID, Incomplete: v.Incomplete,
	}
}

// ToVolume is the reverse of FromVolume.
func ToVolume(v *Volume) drivers.Volume {
	return drivers.Volume{
		ID: v.GetId(), Pool: v.GetPool(), Size: model.Bytes(v.GetSize()), BackendData: v.GetBackendData(),
		DurableName: v.GetDurableName(), DurableFormat: v.GetDurableFormat(),
		TenantID: v.GetTenantId(), ClusterID: v.GetClusterId(), Incomplete: v.GetIncomplete(),
	}
}

// FromSnapshot makes the message of a driver's snapshot.
func FromSnapshot(backend string, s drivers.Snapshot) *Snapshot {
	return &Snapshot{
		Id: s.ID, VolumeId: s.VolumeID, Backend: backend, Pool: s.Pool, Size: int64(s.Size),
		BackendData: s.BackendData, TenantId: s.TenantID, ClusterId: s.ClusterID, Incomplete: s.Incomplete,
	}
}

// ToSnapshot is the reverse of FromSnapshot.
func ToSnapshot(s *Snapshot) drivers.Snapshot {
	return drivers.Snapshot{
		ID: s.GetId(), VolumeID: s.GetVolumeId(), Pool: s.GetPool(), Size: model.Bytes(s.GetSize()),
		BackendData: s.GetBackendData(), TenantID: s.GetTenantId(), ClusterID: s.GetClusterId(), Incomplete: s.GetIncomplete(),
	}
}

// FromPool makes the message of a driver's pool. The id and the abilities are
// the dock's to give.
func FromPool(backend, driver, id string, abilities []string, p drivers.Pool) (*Pool, error) {
	extras, err := json.Marshal(p.Extras)
	if err != nil {
		return nil, model.Errorf(model.KindInternal, "extras of pool %s: %w", p.Name, err)
	}
	return &Pool{
		Id: id, Name: p.Name, Backend: backend, Driver: driver, Total: int64(p.Total), Free: int64(p.Free),
		OverProvisioning: p.OverProvisioning, AvailabilityZone: p.AvailabilityZone, StorageType: p.StorageType,
		Description: p.Description, MultiAttach: p.MultiAttach, Extras: extras, Unusable: p.Unusable, Abilities: abilities,
		Fills: fromFills(p.Fills),
	}, nil
}

// ToPool gives the record of a pool as a dock published it. Times and the
// tenant are not set.
func ToPool(dockID string, p *Pool) (*model.Pool, error) {
	out := &model.Pool{
		Meta:   model.Meta{ID: p.GetId(), Name: p.GetName(), Description: p.GetDescription()},
		DockID: dockID, Backend: p.GetBackend(), Driver: p.GetDriver(),
		Status: model.StatusAvailable, Reason: p.GetUnusable(),
		AvailabilityZone: p.GetAvailabilityZone(), StorageType: p.GetStorageType(),
		Total: model.Bytes(p.GetTotal()), Free: model.Bytes(p.GetFree()), OverProvisioning: p.GetOverProvisioning(),
		MultiAttach: p.GetMultiAttach(), Abilities: p.GetAbilities(),
	}
	if out.Reason != "" {
		out.Status = model.StatusUnavailable
	}
	if len(p.GetExtras()) > 0 {
		if err := json.Unmarshal(p.GetExtras(), &out.Extras); err != nil {
			return nil, model.Invalid("extras", "pool %s of dock %s: %v", p.GetName(), dockID, err)
		}
	}
	return out, nil
}

// FromConnection makes the message of a connection. Secrets in it are sent as
// they are: the host that attaches needs them.
func FromConnection(c model.Connection) (*Connection, error) {
	out := &Connection{Type: c.Type}
	if c.Data == nil {
		return out, nil
	}
	plain, err := plainValue(reflect.ValueOf(c.Data), 0)
	if err != nil {
		return nil, model.Errorf(model.KindInternal, "connection data: %w", err)
	}
	out.Data, err = structpb.NewStruct(plain.(map[string]any))
	if err != nil {
		return nil, model.Errorf(model.KindInternal, "connection data: %w", err)
	}
	return out, nil
}

// plainValue turns any value of strings, numbers, lists and maps into the few
// types that structpb takes.
func plainValue(v reflect.Value, depth int) (any, error) {
	if depth > 16 {
		return nil, fmt.Errorf("nested too deeply")
	}
	if !v.IsValid() {
		return nil, nil
	}
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		if v.IsNil() {
			return nil, nil
		}
		return plainValue(v.Elem(), depth)
	case reflect.String: // a model.Secret too
		return v.String(), nil
	case reflect.Bool:
		return v.Bool(), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return float64(v.Int()), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return float64(v.Uint()), nil
	case reflect.Float32, reflect.Float64:
		return v.Float(), nil
	case reflect.Slice, reflect.Array:
		out := make([]any, v.Len())
		for i := range out {
			x, err := plainValue(v.Index(i), depth+1)
			if err != nil {
				return nil, err
			}
			out[i] = x
		}
		return out, nil
	case reflect.Map:
		if v.Type().Key().Kind() != reflect.String {
			break
		}
		out := make(map[string]any, v.Len())
		for it := v.MapRange(); it.Next(); {
			x, err := plainValue(it.Value(), depth+1)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", it.Key().String(), err)
			}
			out[it.Key().String()] = x
		}
		return out, nil
	}
	return nil, fmt.Errorf("a %s cannot be sent", v.Type())
}

// ToConnection is the reverse of FromConnection. Numbers come back as int64
// where they are whole, as they went in.
func ToConnection(c *Connection) model.Connection {
	out := model.Connection{Type: c.GetType()}
	if c.GetData() != nil {
		out.Data, _ = wholeNumbers(c.GetData().AsMap()).(map[string]any)
	}
	return out
}

func wholeNumbers(x any) any {
	switch t := x.(type) {
	case float64:
		if n := int64(t); float64(n) == t && n < 1<<53 && n > -1<<53 {
			return n
		}
	case []any:
		for i := range t {
			t[i] = wholeNumbers(t[i])
		}
	case map[string]any:
		for k := range t {
			t[k] = wholeNumbers(t[k])
		}
	}
	return x
}

// FromLiveExport makes the message of a live export.
func FromLiveExport(backend string, e drivers.LiveExport) *LiveExport {
	return &LiveExport{AttachmentId: e.AttachmentID, VolumeId: e.VolumeID, Backend: backend, Pool: e.Pool, Detail: e.Detail}
}

// ToLiveExport is the reverse of FromLiveExport.
func ToLiveExport(e *LiveExport) drivers.LiveExport {
	return drivers.LiveExport{AttachmentID: e.GetAttachmentId(), VolumeID: e.GetVolumeId(), Pool: e.GetPool(), Detail: e.GetDetail()}
}

// FromInitiators makes the messages of a host's names.
func FromInitiators(list []model.Initiator) []*Initiator {
	out := make([]*Initiator, 0, len(list))
	for _, x := range list {
		out = append(out, &Initiator{PortName: x.PortName, Protocol: x.Protocol})
	}
	return out
}

// ToInitiators is the reverse of FromInitiators; nil for none.
func ToInitiators(list []*Initiator) []model.Initiator {
	var out []model.Initiator
	for _, x := range list {
		out = append(out, model.Initiator{PortName: x.GetPortName(), Protocol: x.GetProtocol()})
	}
	return out
}

// FromImportable makes the message of a volume that could be imported.
func FromImportable(v drivers.Importable) *Importable {
	return &Importable{Name: v.Name, Pool: v.Pool, Size: int64(v.Size), Adds: int64(v.Adds), Obstacle: v.Obstacle}
}

// ToImportable is the reverse of FromImportable.
func ToImportable(v *Importable) drivers.Importable {
	return drivers.Importable{Name: v.GetName(), Pool: v.GetPool(), Size: model.Bytes(v.GetSize()), Adds: model.Bytes(v.GetAdds()), Obstacle: v.GetObstacle()}
}

func fromFills(in []model.Fill) (out []*Fill) {
	for _, f := range model.UsableFills(in) {
		out = append(out, &Fill{Of: f.Of, Used: f.Used, Warn: f.Warn, Stop: f.Stop})
	}
	return out
}

// ToFills gives the fills of a pool that make sense.
func ToFills(in []*Fill) []model.Fill {
	out := make([]model.Fill, 0, len(in))
	for _, f := range in {
		out = append(out, model.Fill{Of: f.GetOf(), Used: f.GetUsed(), Warn: f.GetWarn(), Stop: f.GetStop()})
	}
	return model.UsableFills(out)
}
