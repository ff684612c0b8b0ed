package layout

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// rule forbids imports: a package below one of From must not import one below
// any of not, unless the package is one of except or the import one of but.
type rule struct {
	sentence string
	from     []string // prefixes of import paths; "" is every package
	except   []string // packages the rule leaves alone
	not      []string // prefixes of forbidden imports
	but      []string // those of them that are allowed all the same
}

var rules = []rule{
	{
		sentence: "internal/cdc is the vocabulary: it imports the standard library alone, so that everybody may import it",
		from:     []string{"cdc/internal/cdc"}, except: []string{"cdc/internal/cdctest"}, not: []string{"cdc/", "github.com/", "golang.org/", "gopkg.in/", "go.uber.org/"},
	},
	{
		sentence: "internal/intent is the vocabulary of event sourcing: it imports the standard library and internal/cdc alone",
		from:     []string{"cdc/internal/intent"}, not: []string{"cdc/", "github.com/", "golang.org/", "gopkg.in/", "go.uber.org/"}, but: []string{"cdc/internal/cdc"},
	},
	{
		sentence: "Postgres is reached through internal/source, and as a store of events through eventstore, sqlcheck, view and reaction",
		except: []string{"cdc/internal/source", "cdc/internal/eventstore", "cdc/internal/sqlcheck", "cdc/internal/view", "cdc/internal/reaction",
			"cdc/internal/cdctest", "cdc/internal/crash", "cdc/internal/pgserver", "cdc/internal/demo", "cdc/bench"},
		not: []string{"github.com/jackc/"},
	},
	{
		sentence: "internal/api serves over HTTP what others do: it reaches neither Postgres nor Kafka itself",
		from:     []string{"cdc/internal/api"},
		not:      []string{"github.com/jackc/", "github.com/segmentio/", "cdc/internal/source", "cdc/internal/sink", "cdc/internal/compaction"},
	},
	{
		sentence: "the parts of a pipeline of mode: events do not know each other beyond the store: eventpipe composes them",
		from:     []string{"cdc/internal/intent", "cdc/internal/sqlcheck", "cdc/internal/eventstore", "cdc/internal/eventlog", "cdc/internal/history", "cdc/internal/view", "cdc/internal/reaction", "cdc/internal/api"},
		not:      []string{"cdc/internal/eventlog", "cdc/internal/history", "cdc/internal/reaction", "cdc/internal/api", "cdc/internal/eventpipe", "cdc/internal/pipeline", "cdc/internal/admin", "cdc/internal/demo"},
	},
	{
		sentence: "Kafka is reached through internal/sink alone (and compaction, which speaks to it through its own interface)",
		except:   []string{"cdc/internal/sink", "cdc/internal/compaction"},
		not:      []string{"github.com/segmentio/kafka-go"},
	},
	{
		sentence: "franz-go is the embedded broker and the independent client of tests and benchmarks: the data path does not use it",
		except:   []string{"cdc/internal/broker", "cdc/internal/cdctest", "cdc/bench"},
		not:      []string{"github.com/twmb/"},
	},
	{
		sentence: "the crash suite judges cdc from outside: it shares no code with what it judges",
		from:     []string{"cdc/internal/crash"},
		not:      []string{"cdc/"}, but: []string{"cdc/internal/cdctest", "cdc/internal/child"},
	},
	{
		sentence: "only cmd/cdc turns configuration into components",
		except:   []string{"cdc/cmd/cdc", "cdc/internal/demo"},
		not:      []string{"cdc/internal/config"},
	},
	{
		sentence: "source, format, sink and compaction do not know each other: pipeline composes them",
		from:     []string{"cdc/internal/source", "cdc/internal/format", "cdc/internal/sink", "cdc/internal/compaction", "cdc/internal/broker", "cdc/internal/admin", "cdc/internal/config"},
		not:      []string{"cdc/internal/source", "cdc/internal/format", "cdc/internal/sink", "cdc/internal/compaction", "cdc/internal/broker", "cdc/internal/pipeline", "cdc/internal/admin", "cdc/internal/demo"},
	},
	{
		sentence: "the test kit is imported by tests and benchmarks alone; the crash suite is one",
		except:   []string{"cdc/internal/cdctest", "cdc/internal/crash", "cdc/bench"},
		not:      []string{"cdc/internal/cdctest"},
	},
}

type pkg struct {
	ImportPath string
	Imports    []string
}

// TestImports reads what the packages import, test files left out.
func TestImports(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "cdc/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	packages := 0
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages++
		for _, r := range rules {
			if len(r.from) > 0 && !below(p.ImportPath, r.from) || below(p.ImportPath, r.except) {
				continue
			}
			for _, i := range p.Imports {
				if below(i, r.not) && !below(i, r.but) && !sibling(p.ImportPath, i) {
					t.Errorf("%s imports %s: %s", p.ImportPath, i, r.sentence)
				}
			}
		}
	}
	if packages < 10 {
		t.Fatalf("go list named %d packages: the test looked at nothing", packages)
	}
}

// below says that a path is one of the prefixes or lies under one.
func below(path string, prefixes []string) bool {
	for _, p := range prefixes {
		if path == strings.TrimSuffix(p, "/") || strings.HasPrefix(path, strings.TrimSuffix(p, "/")+"/") {
			return true
		}
	}
	return false
}

// sibling says that both packages lie under the same package of internal.
func sibling(a, b string) bool {
	return part(a) != "" && part(a) == part(b)
}

func part(path string) string {
	rest, ok := strings.CutPrefix(path, "cdc/internal/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}
