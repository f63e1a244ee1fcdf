package connector

import (
	"encoding/binary"
	"encoding/hex"
	"os"
	"strings"
)

// The identities of devices: what they say of themselves, whoever asks and by
// whatever path.

// Designators of a SCSI device's identification page (VPD page 0x83).
const (
	designatorEUI64 = 2
	designatorNAA   = 3
)

// designators reads the names of the logical unit from its identification page,
// NAA names first: that is what udev and dm-multipath take.
func designators(page []byte) (names []string, wwid string) {
	if len(page) < 4 || page[1] != 0x83 {
		return nil, ""
	}
	if n := int(binary.BigEndian.Uint16(page[2:])); n < len(page)-4 {
		page = page[:4+n]
	}
	var naa, eui []string
	for p := page[4:]; len(p) >= 4; {
		n := int(p[3])
		if n > len(p)-4 {
			break
		}
		binaryCode, association, kind := p[0]&0xf == 1, p[1]>>4&3, p[1]&0xf
		if binaryCode && association == 0 && n >= 8 {
			name := hex.EncodeToString(p[4 : 4+n])
			switch kind {
			case designatorNAA:
				naa = append(naa, name)
			case designatorEUI64:
				eui = append(eui, name)
			}
		}
		p = p[4+n:]
	}
	// NAA type 6 is unique, and longer than the others.
	for i, s := range naa {
		if strings.HasPrefix(s, "6") {
			naa[0], naa[i] = naa[i], naa[0]
			break
		}
	}
	switch {
	case len(naa) > 0:
		wwid = "3" + naa[0]
	case len(eui) > 0:
		wwid = "2" + eui[0]
	}
	return append(naa, eui...), wwid
}

// scsiNames gives the names of a SCSI disk, best first, and the one that
// dm-multipath knows it by. None while the kernel has not read them.
func (h *host) scsiNames(name string) (names []string, wwid string) {
	if b, err := os.ReadFile(h.path("sys/block", name, "device/vpd_pg83")); err == nil {
		if names, wwid = designators(b); len(names) > 0 {
			return names, wwid
		}
	}
	w := h.value("sys/block", name, "device/wwid")
	n := normalName(w)
	if !hexName.MatchString(n) {
		return nil, ""
	}
	switch {
	case strings.HasPrefix(w, "naa."):
		wwid = "3" + n
	case strings.HasPrefix(w, "eui."):
		wwid = "2" + n
	}
	return []string{n}, wwid
}

// nvmeNames gives the names of a namespace, best first.
func (h *host) nvmeNames(name string) []string {
	var out []string
	for _, f := range []string{"nguid", "uuid", "wwid", "eui"} {
		n := normalName(strings.ReplaceAll(h.value("sys/block", name, f), " ", ""))
		if hexName.MatchString(n) && strings.Trim(n, "0") != "" {
			out = append(out, n)
		}
	}
	return out
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
