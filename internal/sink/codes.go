package sink

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/addpartitionstotxn"

	"cdc/internal/cdc"
)

// Errors of a Writer that the caller decides on (errors.Is).
var (
	// ErrFenced: another instance has taken over; this one must not go on.
	ErrFenced = errors.New("another instance has taken over")
	// ErrNeedTakeOver: the broker and this producer no longer agree on its
	// sequences. A new Writer, TakeOver, the last stamps and a replay mend it.
	ErrNeedTakeOver = errors.New("the broker no longer accepts this producer's sequence: take over and replay")
	// ErrRecordTooLarge: see RecordTooLargeError.
	ErrRecordTooLarge = errors.New("record too large")
	// ErrClosed: the Writer or Client was closed.
	ErrClosed = errors.New("closed")
)

// RecordTooLargeError is a record that cannot be written; it is ErrRecordTooLarge.
type RecordTooLargeError struct {
	Topic     string
	Partition int32
	Size      int // of a batch that holds this record alone
	Limit     int // what is allowed, 0 where only the broker knows
}

func (e *RecordTooLargeError) Error() string {
	if e.Limit == 0 {
		return fmt.Sprintf("topic %s partition %d: the broker refuses a record of %d bytes; raise the topic's max.message.bytes", e.Topic, e.Partition, e.Size)
	}
	return fmt.Sprintf("topic %s partition %d: record of %d bytes, %d are allowed; raise the topic's max.message.bytes", e.Topic, e.Partition, e.Size, e.Limit)
}

// Is makes it ErrRecordTooLarge.
func (e *RecordTooLargeError) Is(target error) bool { return target == ErrRecordTooLarge }

// ForeignRecordError is a data record without a stamp where the last record of a
// partition should say what the partition holds: somebody else writes there.
type ForeignRecordError struct {
	Topic     string
	Partition int32
	Offset    int64
	Reason    string // why it is not ours: no stamp, or one that cannot be read
}

func (e *ForeignRecordError) Error() string {
	return fmt.Sprintf("topic %s partition %d: the record at offset %d was not written by this service (%s)", e.Topic, e.Partition, e.Offset, e.Reason)
}

// Error codes that kafka-go names oddly or whose meaning here is worth a name.
const (
	codeDuplicateSequence = kafka.DuplicateSequenceNumber // 46: the batch is in the log already
	codeConcurrent        = kafka.ConcurrentTransactions  // 51: the markers of the last transaction are being written
	codeCoordinatorLoads  = kafka.GroupLoadInProgress     // 14
	codeNoCoordinator     = kafka.GroupCoordinatorNotAvailable
	codeNotCoordinator    = kafka.NotCoordinatorForGroup
)

// codeError turns an error code into an error, 0 into nil.
func codeError(code int16) error {
	if code == 0 {
		return nil
	}
	return kafka.Error(code)
}

// codeOf finds the error code in err; 0 where there is none.
func codeOf(err error) kafka.Error {
	var code kafka.Error
	if errors.As(err, &code) {
		return code
	}
	return 0
}

// transient says that the same request may succeed later. What is not an answer
// of a broker (a cut connection, a timeout) may.
func transient(err error) bool {
	if err == nil || cdc.IsTerminal(err) || errors.Is(err, ErrClosed) || errors.Is(err, errVersion) {
		return false
	}
	code := codeOf(err)
	return code == 0 || transientCode(code)
}

func transientCode(code kafka.Error) bool {
	switch code {
	case kafka.InvalidMessage, // 2: the checksum was wrong when it arrived
		kafka.UnknownTopicOrPartition, // 3: created a moment ago, or its leader moves
		kafka.LeaderNotAvailable, kafka.NotLeaderForPartition, kafka.RequestTimedOut,
		kafka.BrokerNotAvailable, kafka.ReplicaNotAvailable, kafka.NetworkException,
		codeCoordinatorLoads, codeNoCoordinator, codeNotCoordinator,
		kafka.NotEnoughReplicas, kafka.NotEnoughReplicasAfterAppend,
		kafka.NotController, codeConcurrent, kafka.TransactionCoordinatorFenced, kafka.KafkaStorageError,
		kafka.FencedLeaderEpoch, kafka.UnknownLeaderEpoch, kafka.OffsetNotAvailable,
		kafka.ThrottlingQuotaExceeded, kafka.UnknownTopicID:
		return true
	}
	return false
}

// staleEpoch says that the broker knows a newer epoch of the producer.
func staleEpoch(code kafka.Error) bool {
	return code == kafka.InvalidProducerEpoch || code == kafka.ProducerFenced
}

// denied makes an authorization failure terminal, with the commands that mend it;
// other errors pass. operation is what Kafka calls the right to do what was asked
// of the topics. txid is "" where no transactional id is used.
//
// The commands give all rights to a topic that a pipeline has use for, so that they
// are not found out one by one. Read, Write and AlterConfigs imply others.
func denied(err error, operation, user, txid string, topics ...string) error {
	if cdc.IsTerminal(err) {
		return err
	}
	acls := "kafka-acls.sh --bootstrap-server HOST:PORT --add --allow-principal 'User:" + user + "'"
	refuse := func(reason, operation string, commands ...string) error {
		return cdc.Terminal(reason, strings.Join(commands, "\n"), "%w (user %q lacks the right %s)", err, user, operation)
	}
	switch codeOf(err) {
	case kafka.TopicAuthorizationFailed:
		rights := " --operation Create --operation Read --operation Write --operation AlterConfigs"
		if operation == rightDelete {
			rights += " --operation " + rightDelete
		}
		var mend []string
		for _, t := range topics {
			mend = append(mend, acls+rights+" --topic '"+t+"'")
		}
		return refuse("acl-topic", operation, mend...)
	case kafka.TransactionalIDAuthorizationFailed:
		return refuse("acl-transactional-id", rightWrite, acls+" --operation "+rightWrite+" --transactional-id '"+txid+"'")
	case kafka.ClusterAuthorizationFailed:
		return refuse("acl-cluster", "IdempotentWrite", acls+" --operation IdempotentWrite --cluster")
	}
	return err
}

// refusedTopics are those in an AddPartitionsToTxn answer that we have no right to.
func refusedTopics(res *addpartitionstotxn.Response) (topics []string) {
	for _, t := range res.Results {
		if slices.ContainsFunc(t.Results, func(p addpartitionstotxn.ResponsePartition) bool {
			return p.ErrorCode == int16(kafka.TopicAuthorizationFailed)
		}) {
			topics = append(topics, t.Name)
		}
	}
	return topics
}

// The operations of Kafka's ACLs that a pipeline asks for, as kafka-acls.sh has them.
const (
	rightDescribe        = "Describe"
	rightRead            = "Read"
	rightWrite           = "Write"
	rightCreate          = "Create"
	rightDelete          = "Delete"
	rightDescribeConfigs = "DescribeConfigs"
	rightAlterConfigs    = "AlterConfigs"
)
