// Command gendocs writes docs/configuration.md from the configuration structs;
// a test says when it is out of date.
package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"github.com/osds-io/osds/internal/conf"
	"github.com/osds-io/osds/internal/osdslet"
	"github.com/osds-io/osds/pkg/dock"
)

// target is where the reference goes, from the top of the tree.
const target = "docs/configuration.md"

func main() {
	if err := os.WriteFile(target, reference(), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "gendocs:", err)
		os.Exit(1)
	}
}

const head = `# Configuration

<!-- Written by ` + "`make docs`" + `; change the doc tags of the structs instead. -->

Each daemon reads one YAML file. Environment variables win over the file, and
flags over both. The variable of a key is its name in upper case with ` + "`OSDS_`" + `
in front and underscores for dots (` + "`OSDS_API_LISTEN`" + ` for ` + "`api.listen`" + `), or
with the daemon's name too where only that one is meant
(` + "`OSDS_OSDSLET_LOG_LEVEL`" + `). Flags are named like the keys (` + "`--api.listen`" + `).
Lists in variables and flags are separated by commas.

Keys that are not known are refused, with the nearest one that is.
` + "`--check-config`" + ` prints what is in effect, secrets as ` + "`***`" + `, and exits.
Durations are written like ` + "`3s`" + ` or ` + "`10m`" + `, sizes like ` + "`100GiB`" + `.

The formats of drivers' files are in the documents of the drivers:
[ceph](drivers/ceph.md), [local](drivers/local.md), [sample](drivers/sample.md).
`

func reference() []byte {
	var b bytes.Buffer
	b.WriteString(head)
	l, d := osdslet.DefaultConfig(), dock.DefaultConfig()
	section(&b, "osdslet", "/etc/osds/osdslet.yaml", &l)
	section(&b, "osdsdock", "/etc/osds/osdsdock.yaml", &d)
	return b.Bytes()
}

func section(b *bytes.Buffer, name, file string, cfg any) {
	fmt.Fprintf(b, "\n## %s\n\nRead from `%s`, or what `--config` names.\n\n| key | type | default | meaning |\n|---|---|---|---|\n", name, file)
	for _, k := range conf.Reference(cfg) {
		def := k.Default
		if def != "" {
			def = "`" + def + "`"
		}
		doc := k.Doc
		if len(k.OneOf) > 0 {
			doc += " One of " + strings.Join(k.OneOf, ", ") + "."
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", k.Key, k.Type, def, strings.ReplaceAll(doc, "|", "\\|"))
	}
}
