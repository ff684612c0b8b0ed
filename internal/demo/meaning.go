package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// category is that of the streams: one a course.
const category = "course"

// meaning is what somebody means by a transaction: events of one course or of
// several, appended together. The zero value means nothing.
type meaning struct{ batches []intent.Batch }

// add puts an event of a course behind those before it; data is without the course.
func (m *meaning) add(course, kind string, data map[string]any) {
	stream := category + "/" + course
	data["course"] = course
	text, err := json.Marshal(data)
	if err != nil {
		panic("demo: data of an event has no JSON form: " + err.Error())
	}
	e := intent.NewEvent{ID: intent.NewID(), Type: kind, Data: text}
	for i := range m.batches {
		if m.batches[i].Stream == stream {
			m.batches[i].Events = append(m.batches[i].Events, e)
			return
		}
	}
	m.batches = append(m.batches, intent.Batch{Stream: stream, Expect: intent.Any, Events: []intent.NewEvent{e}})
}

// append stores the events in the transaction that does what they mean; with none it
// does nothing. cause is the event they follow from, zero for none.
//
// The streams are not expected at a version: what an action has read of a course or
// a student is kept as it is by the locks on their rows.
func (m *meaning) append(ctx context.Context, tx pgx.Tx, actor string, cause intent.ID) error {
	if len(m.batches) == 0 {
		return nil
	}
	why := map[string]string{intent.MetaActor: actor}
	if !cause.IsZero() {
		why[intent.MetaCausation] = cause.String()
	}
	meta, err := json.Marshal(why)
	if err != nil {
		return fmt.Errorf("encode metadata: %w", err)
	}
	for _, b := range m.batches {
		for i := range b.Events {
			b.Events[i].Meta = meta
		}
	}
	_, err = eventstore.AppendTx(ctx, tx, m.batches)
	return err
}

// say appends one event of a course.
func say(ctx context.Context, tx pgx.Tx, actor string, cause intent.ID, course, kind string, data map[string]any) error {
	var m meaning
	m.add(course, kind, data)
	return m.append(ctx, tx, actor, cause)
}

// by names a student as the actor.
func by(student int64) string { return actorStudent + strconv.FormatInt(student, 10) }

// How actors are named: by their kind.
const (
	actorStudent  = "student:"
	actorReaction = "reaction:" // set by the service
	office        = "office"
)
