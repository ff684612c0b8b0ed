package sink

import (
	"errors"
	"fmt"
	"strings"

	"github.com/segmentio/kafka-go"

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

// denied makes an authorization failure terminal, with the commands that mend
// it; other errors pass. txid is "" where no transactional id is used.
func denied(err error, user, txid string, topics ...string) error {
	if cdc.IsTerminal(err) {
		return err
	}
	acls := "kafka-acls.sh --bootstrap-server BROKER --add --allow-principal User:" + user
	switch codeOf(err) {
	case kafka.TopicAuthorizationFailed:
		var mend []string
		for _, t := range topics {
			mend = append(mend, fmt.Sprintf("%s --operation Read --operation Write --operation Create --operation Describe --operation DescribeConfigs --operation AlterConfigs --topic '%s'", acls, t))
		}
		return cdc.Terminal("acl-topic", strings.Join(mend, "\n"), "%w", err)
	case kafka.TransactionalIDAuthorizationFailed:
		return cdc.Terminal("acl-transactional-id", fmt.Sprintf("%s --operation Write --operation Describe --transactional-id '%s'", acls, txid), "%w", err)
	case kafka.ClusterAuthorizationFailed:
		return cdc.Terminal("acl-cluster", acls+" --operation IdempotentWrite --operation Create --cluster", "%w", err)
	}
	return err
}
