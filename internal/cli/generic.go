package cli

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"sort"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// completeLimit bounds what shell completion asks the server for.
const completeLimit = 100

// listFlags are the flags of a list.
type listFlags struct {
	limit, offset    int
	all, watch       bool
	sortKey, sortDir string
	// unsorted lists have an order of their own, and no offsets.
	unsorted bool
	// filters are flags that are fields with the value wanted.
	filters map[string]*string
}

// add registers the flags; the defaults are the original's.
func (l *listFlags) add(cmd *cobra.Command, filters []string) {
	f := cmd.Flags()
	f.IntVar(&l.limit, "limit", 50, "show at most this many")
	if !l.unsorted {
		f.IntVar(&l.offset, "offset", 0, "pass over this many")
		f.StringVar(&l.sortDir, "sortDir", "desc", "asc or desc")
		f.StringVar(&l.sortKey, "sortKey", "id", "sort by this field")
	}
	f.BoolVar(&l.all, "all", false, "show all, without a limit")
	f.BoolVarP(&l.watch, "watch", "w", false, "go on and show changes as they come")
	l.filters = map[string]*string{}
	for _, name := range filters {
		l.filters[name] = f.String(name, "", "only those with this "+name)
	}
}

func (a *app) query(l *listFlags) (client.Query, error) {
	if l.limit < 0 || l.offset < 0 {
		return client.Query{}, a.usage("--limit and --offset must not be negative")
	}
	if !l.unsorted && l.sortDir != "asc" && l.sortDir != "desc" {
		return client.Query{}, a.usage("--sortDir %q is not asc or desc", l.sortDir)
	}
	q := client.Query{Limit: l.limit, Offset: l.offset, SortKey: l.sortKey, SortDir: l.sortDir, Filter: url.Values{}}
	for name, v := range l.filters {
		if *v != "" {
			q.Filter.Set(name, *v)
		}
	}
	return q, nil
}

// listCmd is the list of one resource.
func listCmd[T any](a *app, v *view[T], get func(*client.Client) client.Reader[T], filters ...string) *cobra.Command {
	var l listFlags
	cmd := &cobra.Command{Use: "list", Short: "List " + v.noun + "s", Args: args(0, 0)}
	l.add(cmd, filters)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runList(cmd, a, v, get, &l) }
	return cmd
}

func runList[T any](cmd *cobra.Command, a *app, v *view[T], get func(*client.Client) client.Reader[T], l *listFlags) error {
	q, err := a.query(l)
	if err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	r := get(c)
	if l.watch {
		return watch(cmd.Context(), a, v, r, q, "")
	}
	want := l.limit
	if l.all {
		want, q.Limit = math.MaxInt, client.DefaultPage
	}
	items, total, more := []*T{}, -1, false
	for want > 0 {
		p, err := r.List(cmd.Context(), q)
		if err != nil {
			return err
		}
		items, total, more = append(items, p.Items...), max(total, p.Total), p.Next != ""
		// A server gives at most so many at a time.
		if len(items) >= want || !more {
			break
		}
		q.Marker, q.Offset, q.Limit = p.Next, 0, min(q.Limit, want-len(items))
	}
	if err := printList(a, v, items); err != nil {
		return err
	}
	switch {
	case more && total > len(items):
		a.note("%d of %d shown: use --all for all, or a larger --limit", len(items), total)
	case more:
		a.note("%d shown, there are more: use --all for all, or a larger --limit", len(items))
	}
	return nil
}

// showCmd shows one record.
func showCmd[T any](a *app, v *view[T], arg string, get func(*client.Client) client.Reader[T]) *cobra.Command {
	var follow bool
	cmd := &cobra.Command{Use: "show " + arg, Short: "Show a " + v.noun, Args: args(1, 1), ValidArgsFunction: completeIDs(a, v, get)}
	cmd.Flags().BoolVarP(&follow, "watch", "w", false, "go on and show changes as they come")
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		if follow {
			return watch(cmd.Context(), a, v, get(c), client.Query{}, ids[0])
		}
		x, err := get(c).Get(cmd.Context(), ids[0])
		if err != nil {
			return err
		}
		return printOne(a, v, x)
	}
	return cmd
}

// deleteCmd deletes one record or several. It goes on after a failure, and tells
// of each. more gives options that depend on flags.
func deleteCmd[T any](a *app, v *view[T], arg string, get func(*client.Client) client.Collection[T], async bool, more ...func() []client.Option) *cobra.Command {
	var w waitFlags
	read := func(c *client.Client) client.Reader[T] { return get(c).Reader }
	cmd := &cobra.Command{Use: "delete " + arg + "...", Short: "Delete " + v.noun + "s", Args: args(1, -1), ValidArgsFunction: completeIDs(a, v, read)}
	if async {
		w.add(cmd)
	}
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		var errs []error
		var begun []string
		var opts []client.Option
		for _, f := range more {
			opts = append(opts, f()...)
		}
		for _, id := range ids {
			if err := get(c).Delete(cmd.Context(), id, opts...); err != nil {
				errs = append(errs, err)
				continue
			}
			begun = append(begun, id)
		}
		for _, id := range begun {
			if w.on {
				if _, err := a.wait(cmd.Context(), &w, get(c).Resource(), id, "", true); err != nil {
					errs = append(errs, err)
				}
			}
		}
		if len(errs) == 1 {
			return errs[0]
		}
		return errors.Join(errs...)
	}
	return cmd
}

// completeIDs offers the ids of records, with their names, to a shell.
func completeIDs[T any](a *app, v *view[T], get func(*client.Client) client.Reader[T]) cobra.CompletionFunc {
	return func(cmd *cobra.Command, done []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		c, err := a.connect()
		if err != nil || len(done) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		p, err := get(c).List(cmd.Context(), client.Query{Limit: completeLimit})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var out []cobra.Completion
		for _, x := range p.Items {
			name := ""
			for _, k := range v.list {
				if strings.HasSuffix(k.head, "Name") {
					name = k.get(x)
					break
				}
			}
			out = append(out, cobra.CompletionWithDesc(clean(v.id(x)), clean(name)))
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// parseSize reads a size: a plain number is GB, as in the original; units are
// binary, and the size must be whole GB.
func parseSize(field, s string) (int64, error) {
	gb, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil {
		b, perr := model.ParseBytes(s)
		switch {
		case perr != nil || !strings.ContainsAny(strings.ToUpper(s), "KMGTP"):
			return 0, model.Invalid(field, "size %q is not a number of GB, nor a size with a unit, such as 10GB or 1TiB", s)
		case b%model.GiB != 0:
			return 0, model.Invalid(field, "size %q is %s: sizes are whole GB (1 GB is 1024 MiB)", s, b)
		}
		gb = b.GBFloor()
	}
	return gb, model.ValidateSizeGB(field, gb)
}

// parsePairs reads key=value arguments.
func (a *app) parsePairs(what string, list []string) (map[string]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	m := make(map[string]string, len(list))
	for _, s := range list {
		k, v, ok := strings.Cut(s, "=")
		if !ok || k == "" {
			return nil, a.usage("%s %q is not of the form key=value", what, s)
		}
		m[k] = v
	}
	return m, nil
}

// splitIDs reads a comma-separated list of ids.
func splitIDs(s string) []string {
	var out []string
	for _, x := range strings.Split(s, ",") {
		if x = strings.TrimSpace(x); x != "" {
			out = append(out, x)
		}
	}
	return out
}

// resolve turns what the user gave, an id or a unique name, into an id. A UUID
// is taken as it is.
func resolve[T any](cmd *cobra.Command, r client.Reader[T], noun, nameField, given string, id func(*T) string) (string, error) {
	if given == "" || model.ValidUUID(given) {
		return given, nil
	}
	p, err := r.List(cmd.Context(), client.Query{Limit: 2}.Where(nameField, given))
	if err != nil {
		return "", err
	}
	switch len(p.Items) {
	case 1:
		return id(p.Items[0]), nil
	case 0:
		// Ids need not be UUIDs.
		if model.ValidID(given) {
			x, err := r.Get(cmd.Context(), given)
			if err == nil {
				return id(x), nil
			}
			if !client.IsNotFound(err) {
				return "", err
			}
		}
		return "", model.Errorf(model.KindNotFound, "no %s has the id or the name %q: see 'osdsctl %s list'", noun, given, noun)
	}
	return "", model.Errorf(model.KindConflict, "several %ss have the name %q: give the id", noun, given)
}

func (a *app) profileID(cmd *cobra.Command, c *client.Client, given string) (string, error) {
	return resolve(cmd, c.Profiles.Reader, "profile", "name", given, profileView.id)
}

func (a *app) poolID(cmd *cobra.Command, c *client.Client, given string) (string, error) {
	return resolve(cmd, c.Pools, "pool", "name", given, poolView.id)
}

func (a *app) hostID(cmd *cobra.Command, c *client.Client, given string) (string, error) {
	return resolve(cmd, c.Hosts.Reader, "host", "hostName", given, hostView.id)
}

// changed says which of some flags the user gave.
func changed(cmd *cobra.Command, names ...string) []string {
	var out []string
	for _, n := range names {
		if f := cmd.Flags().Lookup(n); f != nil && f.Changed {
			out = append(out, n)
		}
	}
	return out
}

// changes collects the fields of an update from the flags that the user gave, so
// that a field can also be set to nothing.
func changes(cmd *cobra.Command, fields map[string]any) map[string]any {
	out := map[string]any{}
	for _, name := range changed(cmd, keys(fields)...) {
		out[name] = fields[name]
	}
	return out
}

func keys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

func bytesText(n int64) string {
	b := model.Bytes(n)
	if b == 0 {
		return "0"
	}
	return b.String()
}

// taskOf gives the task of a record, if its answer named one.
func taskOf(x any) string {
	switch s := x.(type) {
	case *wire.VolumeSpec:
		return s.TaskID
	case *wire.VolumeSnapshotSpec:
		return s.TaskID
	case *wire.VolumeAttachmentSpec:
		return s.TaskID
	case *wire.VolumeGroupSpec:
		return s.TaskID
	}
	return ""
}

func nothingToChange(a *app, flags ...string) error {
	return a.usage("nothing to change: give at least one of --%s", strings.Join(flags, ", --"))
}

func percent(part, whole int64) string {
	if whole <= 0 {
		return ""
	}
	return fmt.Sprintf("%.0f%%", 100*float64(part)/float64(whole))
}
