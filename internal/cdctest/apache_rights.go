package cdctest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"cdc/internal/child"
)

// restrictedSettings add a listener with SASL to that of the kit, and the authorizer
// that ships with Kafka. Who comes through the others has no name and may do all.
const restrictedSettings = `listeners=PLAINTEXT://127.0.0.1:%[1]d,CONTROLLER://127.0.0.1:%[2]d,SASL://127.0.0.1:%[3]d
advertised.listeners=PLAINTEXT://127.0.0.1:%[1]d,SASL://127.0.0.1:%[3]d
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_%[4]s="%[5]s";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
`

// The one user of a Restricted.
const (
	RestrictedUser     = "cdc"
	RestrictedPassword = "secret"
)

// Restricted is one node of Apache Kafka on which RestrictedUser, who comes to
// Address (SASL, plain), may do what ACLs say. Through Brokers the kit may do all.
type Restricted struct {
	*Cluster
	Address string

	client *kgo.Client
}

var sharedRestricted struct {
	once    sync.Once
	node    *apache
	address string
	err     error
}

// RestrictedKafka is the node that all tests of the binary share, one after the
// other. It allows nothing when it is returned. Nothing but Apache Kafka has an
// authorizer, so without CDC_TEST_KAFKA the test is skipped, and says so.
func RestrictedKafka(t testing.TB) *Restricted {
	t.Helper()
	version := os.Getenv(KafkaVariable)
	if version == "" {
		t.Skipf("an authorizer is Apache Kafka's: make test-kafka, or set %s", KafkaVariable)
	}
	s := &sharedRestricted
	s.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), startLimit)
		defer cancel()
		if s.node, s.address, s.err = startRestricted(ctx, version); s.err == nil {
			AtExit(s.node.close)
		}
	})
	if s.err != nil {
		t.Fatalf("%v", s.err)
	}
	r := &Restricted{Cluster: newCluster(s.node), Address: s.address}
	r.client = r.Client(t)
	r.Revoke(t, Right{Operation: kmsg.ACLOperationAny})
	return r
}

func startRestricted(ctx context.Context, version string) (a *apache, address string, err error) {
	if a, err = newApache(ctx, version, 1, ""); err != nil {
		return nil, "", err
	}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	port, err := child.FreePort()
	if err != nil {
		return nil, "", err
	}
	a.options = append(a.options, brief)
	a.Voters, a.Advertise = a.voter(), a.addr()
	a.More = fmt.Sprintf(restrictedSettings, a.Port, a.ControllerPort, port, RestrictedUser, RestrictedPassword)
	if err = a.format(ctx); err == nil {
		err = a.start(ctx)
	}
	return a, fmt.Sprintf("127.0.0.1:%d", port), err
}

// Right is an operation on a resource. In a filter Name "" stands for all names.
type Right struct {
	Operation kmsg.ACLOperation
	Type      kmsg.ACLResourceType // 0 in a filter: all
	Name      string
	Prefixed  bool // Name is how the resources' names begin; not looked at in a filter
}

// ParseRights reads a command of kafka-acls.sh that allows RestrictedUser something,
// as documentation and errors show it. What it does not know is an error.
func ParseRights(command string) ([]Right, error) {
	const start = "kafka-acls.sh --bootstrap-server HOST:PORT --add "
	rest, ok := strings.CutPrefix(command, start)
	words := strings.Fields(rest)
	if !ok || len(words) == 0 {
		return nil, fmt.Errorf("%q does not begin with %q", command, start)
	}
	var operations []kmsg.ACLOperation
	var names []Right
	prefixed, user := false, ""
	for len(words) > 1 {
		flag, value := words[0], strings.Trim(words[1], "'")
		words = words[2:]
		switch flag {
		case "--allow-principal":
			user = value
		case "--operation":
			op, err := kmsg.ParseACLOperation(value)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", command, err)
			}
			operations = append(operations, op)
		case "--topic":
			names = append(names, Right{Type: kmsg.ACLResourceTypeTopic, Name: value})
		case "--transactional-id":
			names = append(names, Right{Type: kmsg.ACLResourceTypeTransactionalId, Name: value})
		case "--resource-pattern-type":
			if value != "prefixed" {
				return nil, fmt.Errorf("%q: pattern %q", command, value)
			}
			prefixed = true
		default:
			return nil, fmt.Errorf("%q: what is %s?", command, flag)
		}
	}
	if len(words) > 0 || user != "User:"+RestrictedUser {
		return nil, fmt.Errorf("%q: for %q, with %q at its end", command, user, words)
	}
	var rights []Right
	for _, r := range names {
		for _, op := range operations {
			r.Operation, r.Prefixed = op, prefixed
			rights = append(rights, r)
		}
	}
	return rights, nil
}

// Allow gives the user rights and returns when the broker goes by them.
func (r *Restricted) Allow(t testing.TB, rights ...Right) {
	t.Helper()
	req := kmsg.NewPtrCreateACLsRequest()
	for _, right := range rights {
		c := kmsg.NewCreateACLsRequestCreation()
		c.ResourceType, c.ResourceName, c.ResourcePatternType = right.Type, right.Name, kmsg.ACLResourcePatternTypeLiteral
		if right.Prefixed {
			c.ResourcePatternType = kmsg.ACLResourcePatternTypePrefixed
		}
		c.Principal, c.Host = "User:"+RestrictedUser, "*"
		c.Operation, c.PermissionType = right.Operation, kmsg.ACLPermissionTypeAllow
		req.Creations = append(req.Creations, c)
	}
	ctx, cancel := context.WithTimeout(context.Background(), queryLimit)
	defer cancel()
	res, err := req.RequestWith(ctx, r.client)
	if err == nil {
		for _, result := range res.Results {
			err = errors.Join(err, kerr.ErrorForCode(result.ErrorCode))
		}
	}
	if err != nil {
		t.Fatalf("allow %v: %v", rights, err)
	}
	for _, right := range rights {
		r.await(ctx, t, right, true)
	}
}

// Revoke takes rights away, all that fit, and returns when the broker goes by it.
func (r *Restricted) Revoke(t testing.TB, filter Right) {
	t.Helper()
	req := kmsg.NewPtrDeleteACLsRequest()
	f := kmsg.NewDeleteACLsRequestFilter()
	f.ResourceType, f.ResourceName = filter.described()
	f.ResourcePatternType, f.Operation, f.PermissionType = kmsg.ACLResourcePatternTypeAny, filter.Operation, kmsg.ACLPermissionTypeAny
	req.Filters = append(req.Filters, f)
	ctx, cancel := context.WithTimeout(context.Background(), queryLimit)
	defer cancel()
	res, err := req.RequestWith(ctx, r.client)
	if err == nil {
		for _, result := range res.Results {
			err = errors.Join(err, kerr.ErrorForCode(result.ErrorCode))
		}
	}
	if err != nil {
		t.Fatalf("revoke %v: %v", filter, err)
	}
	r.await(ctx, t, filter, false)
}

// described is the resource of a filter as requests have it.
func (right Right) described() (kmsg.ACLResourceType, *string) {
	if right.Name == "" {
		return kmsg.ACLResourceTypeAny, nil
	}
	return right.Type, &right.Name
}

// await returns when the broker, whose authorizer follows the controller a moment
// later, has a right or has none.
func (r *Restricted) await(ctx context.Context, t testing.TB, right Right, want bool) {
	t.Helper()
	req := kmsg.NewPtrDescribeACLsRequest()
	req.ResourceType, req.ResourceName = right.described()
	req.ResourcePatternType, req.Operation, req.PermissionType = kmsg.ACLResourcePatternTypeAny, right.Operation, kmsg.ACLPermissionTypeAny
	for {
		res, err := req.RequestWith(ctx, r.client)
		if err == nil {
			err = kerr.ErrorForCode(res.ErrorCode)
		}
		if err != nil {
			t.Fatalf("ask for %v: %v", right, err)
		}
		if (len(res.Resources) > 0) == want {
			return
		}
	}
}
