package dock

import (
	"context"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/osds-io/osds/pkg/dock/connector"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// connectorName names the connector in logs and among what is out of service. No
// backend can have it for its name.
const connectorName = "(connector)"

// localProtocol is the protocol of devices that need no network. Every connector
// knows them.
const localProtocol = "local"

// Bounds of what a dock says about its host.
const (
	maxInitiators = 32
	maxAddresses  = 32
)

// Attacher attaches for this host; connector.Connector is one.
type Attacher interface {
	// Attach is idempotent by attachment id, and returns when the device can
	// be used.
	Attach(ctx context.Context, r connector.Request) (connector.Device, error)
	// Detach is nil for what is seen not to be attached, busy while something
	// holds the device.
	Detach(ctx context.Context, r connector.Request) error
	// Resize returns when the host sees at least size bytes.
	Resize(ctx context.Context, attachmentID string, size model.Bytes, growFS bool) (connector.Device, error)
	// List lists what is attached or noted, ordered by attachment id.
	List(ctx context.Context, p drivers.Page) ([]connector.Device, error)
	// Initiators are the host's names on the storage networks that work here.
	Initiators() []model.Initiator
	// Close ends it; devices stay.
	Close() error
}

var _ Attacher = (*connector.Connector)(nil)

// OpenAttacher makes the attacher of a dock.
type OpenAttacher func(ctx context.Context, c connector.Config) (Attacher, error)

// openConnector is how a dock attaches unless a test has another way.
func openConnector(ctx context.Context, c connector.Config) (Attacher, error) {
	a, err := connector.New(ctx, c)
	if err != nil {
		return nil, err
	}
	return a, nil
}

// attachService is the connector with what it is known by.
type attachService struct {
	service[Attacher]
	// changed is called when the host's names are others than before.
	changed func()

	// names are the initiators as they were looked up last; under namesMu.
	namesMu sync.Mutex
	names   []model.Initiator
}

// run opens the connector and keeps the host's names fresh until ctx ends: they
// change when a protocol's modules or daemons come.
func (a *attachService) run(ctx context.Context) {
	if !a.keepOpening(ctx) {
		return
	}
	for {
		a.look()
		a.wasTried()
		if !pause(ctx, a.care.namesEvery) {
			return
		}
	}
}

func (a *attachService) look() {
	impl, done, err := a.use()
	if err != nil {
		return
	}
	defer done()
	names := impl.Initiators()
	if len(names) > maxInitiators-1 {
		a.log.Warnf("the host has %d initiators, only %d are told", len(names), maxInitiators-1)
		names = names[:maxInitiators-1]
	}
	a.namesMu.Lock()
	same := slices.Equal(names, a.names)
	a.names = slices.Clone(names)
	a.namesMu.Unlock()
	if !same {
		a.changed()
	}
}

// initiators are the host's names; never empty, because devices that need no
// network can be attached by every host.
func (a *attachService) initiators(node string) []model.Initiator {
	a.namesMu.Lock()
	out := slices.Clone(a.names)
	a.namesMu.Unlock()
	if !slices.ContainsFunc(out, func(x model.Initiator) bool { return x.Protocol == localProtocol }) {
		out = append(out, model.Initiator{PortName: node, Protocol: localProtocol})
	}
	return out
}

// addresses are the host's own addresses, for exports' access lists. endpoint's
// comes first.
func addresses(endpoint string) []string {
	var out []string
	add := func(ip net.IP) {
		if s := ip.String(); len(out) < maxAddresses && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	if host, _, err := net.SplitHostPort(endpoint); err == nil {
		if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() {
			add(ip)
		}
	}
	list, err := net.InterfaceAddrs()
	if err != nil {
		return out
	}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			add(n.IP)
		}
	}
	return out
}

// attacherMetadata is what the original's attacher docks tell of themselves.
func attacherMetadata(names []model.Initiator, addrs []string) map[string]string {
	m := map[string]string{"Platform": runtime.GOARCH, "OsType": runtime.GOOS}
	if len(addrs) > 0 {
		m["HostIp"] = addrs[0]
	}
	var wwpns []string
	for _, x := range names {
		switch {
		case x.Protocol == "iscsi" && m["Initiator"] == "":
			m["Initiator"] = x.PortName
		case x.Protocol == "fibre_channel":
			wwpns = append(wwpns, x.PortName)
		}
	}
	if len(wwpns) > 0 {
		m["WWPNS"] = strings.Join(wwpns, ",")
	}
	return m
}

// namesEvery is how often the host's names are looked up.
const namesEvery = 10 * time.Second
