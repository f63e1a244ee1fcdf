package api

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/controller"
	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
)

// guide runs the examples of docs/api.md. Ids, times, revisions and markers are
// others than on the page: what the page calls them is learnt from the first
// answer that has them.
type guide struct {
	t      *testing.T
	e      *env
	pool   *model.Pool
	known  map[string]string // the page's word for it, and ours
	stream *follower
	ran    int
}

const pageURL = "http://127.0.0.1:50040"

func TestGuide(t *testing.T) {
	page, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	st := ownStore(t)
	e := newEnv(t, func(d *Deps) {
		d.Store, d.Planner = st, &controller.Planner{Store: st, Now: time.Now}
		d.Leader = func() *db.LeaderInfo { return &db.LeaderInfo{Instance: st.Instance(), Epoch: 1} }
	}).admin()
	g := &guide{t: t, e: e, known: map[string]string{}}
	g.pool = e.pool(func(p *model.Pool) { p.Name, p.Total, p.Free = "default", 20*model.GiB, 20*model.GiB })
	g.run(string(page))
	if g.ran < 20 {
		t.Errorf("only %d examples", g.ran)
	}
}

// run goes through the page: console blocks are run, and comments say what
// happens in between.
func (g *guide) run(page string) {
	var command string
	var output []string
	console := false
	flush := func() {
		if command != "" {
			g.command(command, output)
		}
		command, output = "", nil
	}
	sc := bufio.NewScanner(strings.NewReader(page))
	for sc.Scan() {
		line := sc.Text()
		switch {
		case line == "```console":
			console = true
		case console && line == "```":
			flush()
			console = false
		case console && strings.HasPrefix(line, "$ "):
			flush()
			command = line[2:]
		case console:
			output = append(output, line)
		case line == "<!-- settle -->":
			g.e.settle(g.pool)
		case line == "<!-- dock away -->":
			g.dockAway()
		}
	}
}

// dockAway makes all work in progress fail as it does without a dock.
func (g *guide) dockAway() {
	for _, x := range g.e.store.Snapshots.All() {
		if n := x.Clone(); n.Task.Active() {
			n.Task.Begin(model.StepProvision, time.Now())
			for range 4 {
				n.Task.Missed(model.Errorf(model.KindUnavailable, "dock local-dock: connection refused"), time.Now().Add(time.Hour))
			}
			g.e.commit((&db.Txn{Label: "test"}).Update(n))
		}
	}
}

func (g *guide) command(command string, output []string) {
	g.t.Helper()
	g.ran++
	if name, value, ok := strings.Cut(command, "="); ok && !strings.Contains(name, " ") {
		g.known["$"+name] = g.ours(value)
		return
	}
	if command == "fg" {
		g.event(output)
		return
	}
	args := g.words(command)
	if args[0] != "curl" {
		g.t.Fatalf("the page has a command %q", command)
	}
	method, url, body, headers, head, stream := "", "", "", []string{}, false, false
	for i := 1; i < len(args); i++ {
		switch args[i] {
		case "-s", "&":
		case "-i":
			head = true
		case "-N":
			stream = true
		case "-X":
			i++
			method = args[i]
		case "-d":
			i++
			body = args[i]
		case "-H":
			i++
			name, value, _ := strings.Cut(args[i], ": ")
			headers = append(headers, name, value)
		default:
			url = args[i]
		}
	}
	switch {
	case method != "":
	case body != "":
		method = "POST"
	default:
		method = "GET"
	}
	path, ok := strings.CutPrefix(url, g.e.url)
	if !ok {
		g.t.Fatalf("%s: the URL is %s", command, url)
	}
	if stream {
		query := path[strings.Index(path, "?"):]
		g.stream = g.e.follow(query)
		<-g.stream.lines
		return
	}
	var r *reply
	if body == "" {
		r = g.e.do(method, "/"+path, nil, headers...)
	} else {
		r = g.e.do(method, "/"+path, body, headers...)
	}
	g.answer(command, r, head, output)
}

// answer compares an answer with the page.
func (g *guide) answer(command string, r *reply, head bool, output []string) {
	g.t.Helper()
	if head {
		var status int
		if _, err := fmt.Sscanf(output[0], "HTTP/1.1 %d", &status); err != nil || r.Status != status {
			g.t.Fatalf("%s: %d, the page has %s: %s", command, r.Status, output[0], r.Body)
		}
		if text := fmt.Sprintf("HTTP/1.1 %d %s", status, http.StatusText(status)); text != output[0] {
			g.t.Errorf("%s: %s, the page has %s", command, text, output[0])
		}
		i := 1
		for ; output[i] != ""; i++ {
			name, value, _ := strings.Cut(output[i], ": ")
			g.same(command+": header "+name, name, value, r.Header.Get(name))
		}
		output = output[i+1:]
	}
	g.compare(command, strings.Join(output, "\n"), r.Body)
	if !head && r.Status >= 400 && !strings.Contains(strings.Join(output, ""), `"code"`) {
		g.t.Errorf("%s: %d", command, r.Status)
	}
}

// event compares the stream's next event with the page.
func (g *guide) event(output []string) {
	g.t.Helper()
	ev := g.stream.next()
	defer g.stream.close()
	if output[1] != "event: "+string(ev.Type) || !strings.HasPrefix(output[0], "id: ") || !strings.HasPrefix(output[2], "data: ") {
		g.t.Errorf("the stream has %+v, the page %v", ev, output)
	}
	have, err := json.Marshal(ev)
	if err != nil {
		g.t.Fatal(err)
	}
	g.compare("event", strings.TrimPrefix(strings.Join(output[2:], "\n"), "data: "), string(have))
}

func (g *guide) compare(what, page, have string) {
	g.t.Helper()
	var want, got any
	if err := json.Unmarshal([]byte(page), &want); err != nil {
		g.t.Fatalf("%s: the page's answer is not JSON: %v: %s", what, err, page)
	}
	if err := json.Unmarshal([]byte(have), &got); err != nil {
		g.t.Fatalf("%s: %v: %s", what, err, have)
	}
	g.value(what, "", want, got)
}

// value compares what the page shows of a value. Objects may have more fields
// than the page shows.
func (g *guide) value(what, key string, want, got any) {
	g.t.Helper()
	switch w := want.(type) {
	case map[string]any:
		have, ok := got.(map[string]any)
		if !ok {
			g.t.Errorf("%s: %s is %v, not an object", what, key, got)
		}
		for k, v := range w {
			if _, ok := have[k]; !ok {
				g.t.Errorf("%s: there is no %s.%s in %v", what, key, k, have)
				continue
			}
			g.value(what, k, v, have[k])
		}
	case []any:
		have, _ := got.([]any)
		if len(have) != len(w) {
			g.t.Fatalf("%s: %s has %d entries, the page shows %d: %v", what, key, len(have), len(w), got)
		}
		for i := range w {
			g.value(what, key, w[i], have[i])
		}
	case string:
		have, _ := got.(string)
		g.same(what+": "+key, key, w, have)
	default:
		if _, number := want.(float64); number && key == "revision" {
			return
		}
		if want != got {
			g.t.Errorf("%s: %s is %v, the page shows %v", what, key, got, want)
		}
	}
}

// Texts that are others than on the page.
var (
	pageUUID     = regexp.MustCompile(`^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$`)
	pageTime     = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$`)
	pagePosition = regexp.MustCompile(`^\d+(\.\d+)?$`)
	pageTag      = regexp.MustCompile(`^"\d+"$`)
	pageAny      = regexp.MustCompile(`.`)
)

func (g *guide) same(what, key, want, have string) {
	g.t.Helper()
	if ours, ok := g.known[want]; ok {
		if ours != have {
			g.t.Errorf("%s: %s, which is not what %s stands for so far, %s", what, have, want, ours)
		}
		return
	}
	var like *regexp.Regexp
	learn := true
	switch {
	case key == "X-Request-Id" || key == "requestId" || key == "X-Osds-Next-Marker":
		like = pageAny
	case key == "X-Osds-Revision":
		like, learn = pagePosition, false
	case key == "Etag":
		like = pageTag
	case pageUUID.MatchString(want):
		like = pageUUID
	case pageTime.MatchString(want):
		like, learn = pageTime, false
	case key == "id":
		like, learn = pagePosition, false
	case want != have:
		g.t.Errorf("%s: %q, the page shows %q", what, have, want)
		return
	default:
		return
	}
	if !like.MatchString(want) || !like.MatchString(have) {
		g.t.Errorf("%s: %q, the page shows %q", what, have, want)
	} else if learn {
		g.known[want] = have
	}
}

// ours puts our words for the page's.
func (g *guide) ours(s string) string {
	s = strings.ReplaceAll(s, pageURL, g.e.url)
	for page, have := range g.known {
		s = strings.ReplaceAll(s, page, have)
	}
	return s
}

// words splits a command as a shell does, as far as the page needs it.
func (g *guide) words(s string) (out []string) {
	s = g.ours(s)
	var word strings.Builder
	quote := rune(0)
	has := false
	for _, r := range s {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, has = r, true
		case r == ' ':
			if has || word.Len() > 0 {
				out = append(out, word.String())
			}
			word.Reset()
			has = false
		default:
			word.WriteRune(r)
		}
	}
	if quote != 0 {
		g.t.Fatalf("a quote is open in %s", s)
	}
	if has || word.Len() > 0 {
		out = append(out, word.String())
	}
	return out
}
