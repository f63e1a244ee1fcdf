package model

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is a size in bytes.
type Bytes int64

// Binary units. The wire's "GB" is a GiB, as in the original's drivers.
const (
	KiB Bytes = 1 << 10
	MiB Bytes = 1 << 20
	GiB Bytes = 1 << 30
	TiB Bytes = 1 << 40
)

// MaxVolumeGB is the largest size the API accepts, in GB: 1 EiB, far above any
// backend and far below an overflow of Bytes.
const MaxVolumeGB = 1 << 30

// FromGB converts the wire's GB. The caller has checked the range.
func FromGB(gb int64) Bytes { return Bytes(gb) * GiB }

// GBFloor is the number of whole GB in b: what a pool can promise.
func (b Bytes) GBFloor() int64 { return int64(b / GiB) }

// GBCeil is the least number of GB that holds b: what a volume takes.
func (b Bytes) GBCeil() int64 {
	if b <= 0 {
		return 0
	}
	return int64((b-1)/GiB) + 1
}

func (b Bytes) String() string {
	switch {
	case b >= TiB && b%TiB == 0:
		return fmt.Sprintf("%d TiB", b/TiB)
	case b >= GiB && b%GiB == 0:
		return fmt.Sprintf("%d GiB", b/GiB)
	case b >= GiB || b <= -GiB:
		return fmt.Sprintf("%.2f GiB", float64(b)/float64(GiB))
	case b >= MiB && b%MiB == 0:
		return fmt.Sprintf("%d MiB", b/MiB)
	}
	return fmt.Sprintf("%d B", int64(b))
}

// ParseBytes reads a size as people write it in configuration: a plain number
// is bytes; K, M, G, T, P with an optional "B" or "iB" are binary units. The
// result is never negative.
func ParseBytes(s string) (Bytes, error) {
	t := strings.TrimSpace(s)
	i := strings.IndexFunc(t, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	num, unit := t, ""
	if i >= 0 {
		num, unit = t[:i], strings.TrimSpace(t[i:])
	}
	mult := Bytes(1)
	u := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(unit), "B"), "I")
	switch u {
	case "":
	case "K":
		mult = KiB
	case "M":
		mult = MiB
	case "G":
		mult = GiB
	case "T":
		mult = TiB
	case "P":
		mult = TiB << 10
	default:
		return 0, fmt.Errorf("size %q: unknown unit %q, use K, M, G, T or P", s, unit)
	}
	f, err := strconv.ParseFloat(num, 64)
	if err != nil || f < 0 || math.IsInf(f, 0) || f*float64(mult) > math.MaxInt64/2 {
		return 0, fmt.Errorf("size %q is not a number with a unit, such as 100GiB", s)
	}
	if n, err := strconv.ParseInt(num, 10, 64); err == nil {
		return Bytes(n) * mult, nil // exact where no fraction is given
	}
	return Bytes(f * float64(mult)), nil
}

// UnmarshalText lets Bytes stand in configuration.
func (b *Bytes) UnmarshalText(t []byte) error {
	v, err := ParseBytes(string(t))
	if err == nil {
		*b = v
	}
	return err
}

// UnmarshalJSON reads the number that records hold; without it UnmarshalText
// would have JSON take nothing but strings. A string is read as configuration.
func (b *Bytes) UnmarshalJSON(t []byte) error {
	if len(t) > 0 && t[0] == '"' {
		var s string
		if err := json.Unmarshal(t, &s); err != nil {
			return err
		}
		return b.UnmarshalText([]byte(s))
	}
	return json.Unmarshal(t, (*int64)(b))
}
