package export

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"math/big"
	"strings"

	"github.com/osds-io/osds/pkg/model"
)

// The prefixes of targets' names are the original's.
const (
	iqnPrefix = "iqn.2017-10.io.opensds:"
	nqnPrefix = "nqn.2019-01.com.opensds:nvme:"
)

// lun is the number of a volume's unit in its target: the original's connector
// refuses 0.
const lun = 1

// targetName gives the name of an attachment's target.
func targetName(protocol, attachmentID string) string {
	if protocol == NVMe {
		return nqnPrefix + nameOf(attachmentID)
	}
	return iqnPrefix + nameOf(attachmentID)
}

// nameOf makes an id fit to stand in an iSCSI name: those know no upper case and
// few signs, and are compared without case.
func nameOf(id string) string {
	if len(id) <= 128 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789.-") == "" && !strings.HasPrefix(id, "x.") {
		return id
	}
	return "x." + digest(id)[:40]
}

func digest(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

// hex32 is a volume's identity over NVMe in 32 hexadecimal digits: its id, or a
// digest of one that is no UUID in lower case.
func hex32(volumeID string) string {
	if model.ValidUUID(volumeID) && volumeID == strings.ToLower(volumeID) {
		return strings.ReplaceAll(volumeID, "-", "")
	}
	// The marks of a UUID are set (name-based, variant 1): some hosts drop
	// what is none.
	d := []byte(digest(volumeID)[:32])
	d[12], d[16] = '5', "89ab"[d[16]&3]
	return string(d)
}

// serialOf is the serial number of a volume's unit over iSCSI. LIO makes the
// unit's name of its first 25 digits only, so it cannot be the id itself: clients
// may choose ids, and two that differ in their last digits alone would be one
// disk to a host.
func serialOf(volumeID string) string { return digest("osds volume " + volumeID)[:32] }

// uuidOf is the same with dashes.
func uuidOf(volumeID string) string {
	h := hex32(volumeID)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// lioCompany is what LIO puts before the digits of a unit's serial number: the
// type of name (6) and its company.
const lioCompany = "6001405"

// Identity is what hosts see of a volume: the durable name and its format, by
// protocol. It depends on the id alone.
//
//   - iscsi: the NAA that the kernel's target makes of the serial number, and
//     that tgtd is made to show: 32 digits, on Linux in
//     /sys/block/sdX/device/wwid after "naa.";
//   - nvmeof: the NGUID, 32 digits, which is the namespace's UUID too: on Linux
//     /sys/block/nvmeXnY/wwid says "uuid." and the digits with dashes.
func Identity(protocol, volumeID string) (name, format string) {
	if protocol == NVMe {
		return hex32(volumeID), "NGUID"
	}
	return lioCompany + serialOf(volumeID)[:25], "NAA"
}

// secretLetters are those that no initiator's configuration file trips over.
const secretLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// secretLength is what every initiator takes: some insist on 12 to 16.
const secretLength = 16

// newSecret makes a secret of 95 bits.
func newSecret() model.Secret {
	b := make([]byte, secretLength)
	for i := range b {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(secretLetters))))
		if err != nil {
			panic(err) // the system's source of randomness does not fail
		}
		b[i] = secretLetters[n.Int64()]
	}
	return model.Secret(b)
}

// initiatorsOf gives the host's names for a protocol, each once. A host without
// one is refused: nothing is ever exported to everybody.
func initiatorsOf(h model.Host, protocol string) ([]string, error) {
	var out []string
	seen := map[string]bool{}
	for _, i := range h.Initiators {
		if !strings.EqualFold(i.Protocol, protocol) {
			continue
		}
		if err := model.ValidateInitiator(i); err != nil {
			e := *model.AsError(err)
			e.Field = "hostInfo.initiators"
			return nil, &e
		}
		n := i.PortName
		if protocol == ISCSI {
			n = strings.ToLower(n) // so initiators send it
		}
		if !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	if len(out) == 0 {
		what, where := "iSCSI name (IQN)", "/etc/iscsi/initiatorname.iscsi"
		if protocol == NVMe {
			what, where = "NVMe name (NQN)", "/etc/nvme/hostnqn"
		}
		return nil, model.Invalid("hostInfo.initiators", "host %q has no initiator of protocol %s: register its %s, which on Linux is in %s",
			h.HostName, protocol, what, where)
	}
	return out, nil
}
