package history

import (
	"fmt"
	"strings"

	"cdc/internal/cdc"
)

// topicCheck is a topic under comparison.
type topicCheck struct {
	*topic
	v         cdc.Verification
	parts     []*partCheck
	ownTime   bool  // records have the time of the broker
	unchecked bool  // v says why
	first     int64 // position of the first event that is missing
	inside    bool  // an event is missing before one that is there
	another   bool  // it is not the topic that was recorded
	remarks   []string
	repeated  int64
}

// look decides whether a topic can be compared.
func (c *topicCheck) look(v *verification, s cdc.TopicState) {
	l := v.l
	switch {
	case l.memory.progress == nil:
		c.cannot("how far the log was published is not known: progress topic "+l.cfg.Progress+" has no record; start the daemon (cdc run)", "")
		return
	case s.Partitions == 0 && c.recorded:
		c.cannot(fmt.Sprintf("topic %q is gone, which held events of the log", c.name), mendRepublish)
		return
	case s.Partitions == 0:
		return // events that should stand there are missing
	case s.Partitions != l.cfg.Partitions:
		c.cannot(fmt.Sprintf("topic %q has %d partitions and the pipeline %d: streams would be in others", c.name, s.Partitions, l.cfg.Partitions),
			fmt.Sprintf("Set partitions: of the pipeline to %d if that is what it was; else delete the topic, then: %s", s.Partitions, mendRepublish))
		return
	}
	if c.recorded && c.id != "" && s.ID != "" && s.ID != c.id {
		c.another = true
		c.remarks = append(c.remarks, fmt.Sprintf("topic %q was deleted and made again", c.name))
	}
	c.ownTime = s.Config["message.timestamp.type"] == "LogAppendTime"
	for _, p := range c.partitions {
		c.parts = append(c.parts, &partCheck{check: c, tp: p.tp})
	}
}

func (c *topicCheck) cannot(why, mend string) {
	c.unchecked = true
	c.v.Why, c.v.Mend = why, mend
}

// judge gives the verdict.
func (c *topicCheck) judge(v *verification) {
	if c.unchecked {
		c.v.Verdict = cdc.VerdictUnchecked
		return
	}
	why := c.remarks
	if c.repeated > 0 {
		why = append(why, fmt.Sprintf("%d records stand there again, as delivery: at-least-once allows", c.repeated))
	}
	behind := v.upto < v.wanted
	if behind {
		why = append(why, fmt.Sprintf("the log ends at position %d and is published to %d: what lies between was not compared", v.wanted, v.upto))
	}
	if v.refused != nil {
		why = append(why, v.refused.Err.Error())
	}
	switch {
	case c.v.Differences() > 0:
		c.v.Verdict = cdc.VerdictDifferent
		c.v.Mend = c.mend(v)
	case v.refused != nil:
		c.v.Verdict, c.v.Mend = cdc.VerdictUnchecked, v.refused.Mend
	case behind:
		c.v.Verdict, c.v.Mend = cdc.VerdictUnchecked, "cdc run publishes what is waiting; where it runs, cdc status says what it waits for."
	default:
		c.v.Verdict = cdc.VerdictEqual
	}
	c.v.Why = strings.Join(why, "; ")
}

// mend says what makes a topic whole. A publication that is put back writes only what
// lies behind the last record of each partition.
func (c *topicCheck) mend(v *verification) string {
	switch {
	case v.refused != nil:
		return v.refused.Mend
	case c.inside || c.v.Ghosts+c.v.Different > 0 || c.another && c.v.Records > 0:
		return fmt.Sprintf("Find out who has written to or deleted from topic %s. Then delete the topic, and: %s", c.name, mendRepublish)
	}
	return fmt.Sprintf("cdc es republish --from %d", c.first)
}
