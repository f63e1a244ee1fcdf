package wire

import (
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

// AppendVolume appends the JSON of FromVolume(v), byte for byte as encoding/json
// writes it. Lists of volumes are what clients ask for most, and making and
// reflecting on a value for each of them was most of a list's cost; nothing is
// allocated here but the buffer's growth.
func AppendVolume(b []byte, v *model.Volume) []byte {
	o := object{b: append(b, '{')}
	o.always("id", v.ID)
	o.time("createdAt", v.CreatedAt)
	o.time("updatedAt", v.UpdatedAt)
	o.text("tenantId", v.TenantID)
	o.text("userId", v.UserID)
	o.text("name", v.Name)
	o.text("description", v.Description)
	o.text("groupId", v.GroupID)
	if n := v.Size.GBCeil(); n != 0 {
		o.name("size")
		o.b = strconv.AppendInt(o.b, n, 10)
	}
	o.text("availabilityZone", v.AvailabilityZone)
	o.text("status", string(v.Status))
	o.text("poolId", v.PoolID)
	o.text("profileId", v.ProfileID)
	o.merged("metadata", v.Metadata, v.BackendData)
	o.text("snapshotId", v.SnapshotID)
	o.text("replicationId", v.ReplicationID)
	o.always("AttachStatus", "")
	if v.MultiAttach {
		o.name("multiAttach")
		o.b = append(o.b, "true"...)
	}
	if v.DurableName != "" {
		o.name("identifier")
		in := object{b: append(o.b, '{')}
		in.text("durableName", v.DurableName)
		in.text("durableNameFormat", v.DurableFormat)
		o.b = append(in.b, '}')
	}
	o.text("sourceVolumeId", v.SourceVolumeID)
	o.text("existing", v.Existing)
	o.text("statusReason", reason(v.StatusReason, v.Task))
	o.text("taskId", taskID(v.Task))
	return append(o.b, '}')
}

// object appends the members of a JSON object.
type object struct {
	b    []byte
	some bool
}

// name begins a member. Names are ours and have nothing to escape.
func (o *object) name(s string) {
	if o.some {
		o.b = append(o.b, ',')
	}
	o.some = true
	o.b = append(o.b, '"')
	o.b = append(o.b, s...)
	o.b = append(o.b, '"', ':')
}

// text adds a member unless it is empty.
func (o *object) text(name, s string) {
	if s != "" {
		o.always(name, s)
	}
}

func (o *object) always(name, s string) {
	o.name(name)
	o.b = appendString(o.b, s)
}

func (o *object) time(name string, t time.Time) {
	o.name(name)
	o.b = append(o.b, '"')
	if !t.IsZero() {
		o.b = t.UTC().AppendFormat(o.b, TimeFormat)
	}
	o.b = append(o.b, '"')
}

// merged adds mergeMaps(x, y) unless it is empty.
func (o *object) merged(name string, x, y map[string]string) {
	if len(x)+len(y) == 0 {
		return
	}
	var few [8]string
	keys := few[:0]
	for k := range x {
		if _, ok := y[k]; !ok {
			keys = append(keys, k)
		}
	}
	for k := range y {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	o.name(name)
	o.b = append(o.b, '{')
	for i, k := range keys {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		s, ok := y[k]
		if !ok {
			s = x[k]
		}
		o.b = append(appendString(o.b, k), ':')
		o.b = appendString(o.b, s)
	}
	o.b = append(o.b, '}')
}

// appendString appends a JSON string. encoding/json has the rare cases.
func appendString(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			j, _ := json.Marshal(s) // of a string, which cannot fail
			return append(b, j...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
