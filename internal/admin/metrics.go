package admin

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"cdc/internal/cdc"
)

// newRegistry is a registry of its own: nothing an imported package registers
// globally can change what we expose.
func newRegistry(source Source) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		&collector{source: source},
	)
	return r
}

// collector makes the metrics of all pipelines from one call of Status a scrape,
// so that they fit each other.
type collector struct{ source Source }

// metric is a number read from a Status.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(*cdc.Status) float64
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, append([]string{"pipeline"}, labels...), nil)
}

func counter(name, help string, read func(*cdc.Status) uint64) metric {
	return metric{describe(name, help), prometheus.CounterValue, func(s *cdc.Status) float64 { return float64(read(s)) }}
}

func gauge(name, help string, read func(*cdc.Status) float64) metric {
	return metric{describe(name, help), prometheus.GaugeValue, read}
}

var metrics = []metric{
	counter("cdc_transactions_total", "Source transactions read from the replication stream.",
		func(s *cdc.Status) uint64 { return s.Transactions }),
	counter("cdc_changes_total", "Row changes read from the replication stream or the snapshot.",
		func(s *cdc.Status) uint64 { return s.Changes }),
	counter("cdc_records_total", "Kafka records acknowledged by the brokers.",
		func(s *cdc.Status) uint64 { return s.Records }),
	counter("cdc_record_batch_bytes_total", "Bytes of record batches appended to partitions, before compression.",
		func(s *cdc.Status) uint64 { return s.Bytes }),
	counter("cdc_skipped_records_total", "Records left out because their partition already held them.",
		func(s *cdc.Status) uint64 { return s.Skipped }),
	counter("cdc_dead_letters_total", "Records written to the dead-letter topic.",
		func(s *cdc.Status) uint64 { return s.DeadLetters }),
	counter("cdc_take_overs_total", "Times the pipeline fenced older writers and read its positions again.",
		func(s *cdc.Status) uint64 { return s.TakeOvers }),
	counter("cdc_restarts_total", "Times the pipeline started again after an error that can pass.",
		func(s *cdc.Status) uint64 { return s.Restarts }),
	counter("cdc_toast_rereads_total", "Rows read back by key because the stream left a value out.",
		func(s *cdc.Status) uint64 { return s.Rereads }),
	gauge("cdc_ready", "1 when the pipeline is running and not stalled.",
		func(s *cdc.Status) float64 { return oneIf(s.Ready) }),
	gauge("cdc_stalled", "1 when the pipeline is running but makes no progress; /readyz says why.",
		func(s *cdc.Status) float64 { return oneIf(s.Stalled != "") }),
	gauge("cdc_tables", "Tables the pipeline captures.",
		func(s *cdc.Status) float64 { return float64(s.Tables) }),
	gauge("cdc_lag_bytes", "Bytes of WAL between the server's end and what every partition has acknowledged.",
		func(s *cdc.Status) float64 { return float64(max(0, s.LagBytes)) }),
	gauge("cdc_lag_seconds", "Age of the oldest commit not yet acknowledged, 0 when caught up.",
		func(s *cdc.Status) float64 { return s.LagSeconds }),
	gauge("cdc_slot_retained_wal_bytes", "Bytes of WAL the replication slot holds back on the server.",
		func(s *cdc.Status) float64 { return float64(s.SlotBytes) }),
	gauge("cdc_buffered_bytes", "Bytes read from Postgres and not yet acknowledged by Kafka.",
		func(s *cdc.Status) float64 { return float64(s.BufferedBytes) }),
	gauge("cdc_last_acknowledgement_latency_seconds", "Time the newest acknowledged request to Kafka took.",
		func(s *cdc.Status) float64 { return s.AckLatency.Seconds() }),
}

var (
	descState = describe("cdc_state", "1 for the state the pipeline is in, 0 for all others.", "state")
	descSafe  = describe("cdc_slot_safe_wal_bytes", "Bytes of WAL that can still be written before the slot may be lost; absent where the server sets no limit.")
	descWAL   = describe("cdc_slot_wal_status_info", "Always 1; wal_status of the replication slot as Postgres gives it.", "wal_status")
	descSince = describe("cdc_state_start_timestamp_seconds", "Unix time at which the pipeline entered its state.")
	descAcks  = describe("cdc_acknowledgement_latency_seconds", "Time from sending a request to Kafka to its acknowledgement.")
	descRows  = describe("cdc_snapshot_rows", "Rows of the table the snapshot has read so far.", "table")
	descTotal = describe("cdc_snapshot_estimated_rows", "The planner's estimate of the rows of the table being snapshotted.", "table")
	descRead  = describe("cdc_snapshot_bytes", "Bytes of the table the snapshot has read so far, in COPY's text form.", "table")
	descDone  = describe("cdc_snapshot_done", "1 when the snapshot of the table is finished.", "table")
	descHead  = describe("cdc_log_position", "Position of the newest numbered event.")
	descPub   = describe("cdc_log_published_position", "Position up to which every event is acknowledged in its topic.")
	descAlarm = describe("cdc_log_alarms", "Changes of stored events seen in the WAL and not acknowledged.")
	descPart  = describe("cdc_part_position", "Position of the log a part has reached: publication, views, reactions.", "part")
	descFault = describe("cdc_part_faulty", "1 when the part stands still because of an error.", "part")
	descTries = describe("cdc_part_restarts_total", "Times the part started again after an error.", "part")
	descAge   = describe("cdc_verify_age_seconds", "Time since the newest verification of a table, topic, log or view ended.", "subject")
	descAt    = describe("cdc_verify_lsn", "Position in the WAL at which a table and its topic were compared.", "subject")
	descDiff  = describe("cdc_verify_differences", "Keys that differ, as of the newest verification.", "subject", "kind")
	descBlind = describe("cdc_verify_unchecked", "1 when the newest verification came to no verdict; cdc status says why.", "subject")
	descBuild = prometheus.NewDesc("cdc_build_info", "Always 1; the version of the daemon.", []string{"version"}, nil)
)

// states are those cdc_state has a series for.
var states = []cdc.State{
	cdc.StateStarting, cdc.StateWaiting, cdc.StateSnapshot, cdc.StateReplaying, cdc.StateStreaming,
	cdc.StateBackingOff, cdc.StateFailed, cdc.StateStopped, cdc.StateDone,
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range metrics {
		ch <- m.desc
	}
	for _, d := range []*prometheus.Desc{descState, descSafe, descWAL, descSince, descAcks, descRows, descTotal, descRead, descDone, descBuild,
		descHead, descPub, descAlarm, descPart, descFault, descTries, descAge, descAt, descDiff, descBlind} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		m, err := prometheus.NewConstMetric(d, kind, v, labels...)
		if err != nil { // a label that is not UTF-8: one series is missing, the rest are served
			m = prometheus.NewInvalidMetric(d, err)
		}
		ch <- m
	}
	set := func(d *prometheus.Desc, v float64, labels ...string) { send(d, prometheus.GaugeValue, v, labels...) }
	set(descBuild, 1, c.source.Version())
	all := c.source.Status()
	for i := range all {
		s := &all[i]
		for _, m := range metrics {
			send(m.desc, m.kind, m.read(s), s.Name)
		}
		for _, state := range states {
			set(descState, oneIf(s.State == state), s.Name, string(state))
		}
		if s.SlotSafe >= 0 {
			set(descSafe, float64(s.SlotSafe), s.Name)
		}
		if s.SlotStatus != "" {
			set(descWAL, 1, s.Name, s.SlotStatus)
		}
		if !s.Since.IsZero() {
			set(descSince, float64(s.Since.UnixMilli())/1000, s.Name)
		}
		count, buckets := cumulative(s.Acks)
		acks, err := prometheus.NewConstHistogram(descAcks, count, s.Acks.Sum, buckets, s.Name)
		if err != nil {
			acks = prometheus.NewInvalidMetric(descAcks, err)
		}
		ch <- acks
		for _, t := range s.Snapshot {
			set(descRows, float64(t.Rows), s.Name, t.Table)
			set(descRead, float64(t.Bytes), s.Name, t.Table)
			set(descDone, oneIf(t.Done), s.Name, t.Table)
			if t.RowsTotal > 0 {
				set(descTotal, float64(t.RowsTotal), s.Name, t.Table)
			}
		}
		for _, v := range s.Verified {
			// Not below 0 where the clock was set back.
			set(descAge, max(0, time.Since(v.At).Seconds()), s.Name, v.Subject)
			set(descBlind, oneIf(v.Verdict == cdc.VerdictUnchecked), s.Name, v.Subject)
			if v.Verdict == cdc.VerdictUnchecked {
				continue
			}
			if v.LSN > 0 {
				set(descAt, float64(v.LSN), s.Name, v.Subject)
			}
			set(descDiff, float64(v.Missing), s.Name, v.Subject, "missing")
			set(descDiff, float64(v.Ghosts), s.Name, v.Subject, "ghost")
			set(descDiff, float64(v.Different), s.Name, v.Subject, "different")
		}
		if l := s.Log; l != nil {
			set(descHead, float64(l.Head), s.Name)
			set(descPub, float64(l.Published), s.Name)
			set(descAlarm, float64(l.Alarms), s.Name)
			for _, p := range l.Parts {
				set(descPart, float64(p.Position), s.Name, p.Name)
				set(descFault, oneIf(p.Error != ""), s.Name, p.Name)
				send(descTries, prometheus.CounterValue, float64(p.Restarts), s.Name, p.Name)
			}
		}
	}
}

// cumulative turns counts per bucket into Prometheus' counts up to each bound.
func cumulative(l cdc.Latency) (count uint64, buckets map[float64]uint64) {
	buckets = make(map[float64]uint64, len(cdc.LatencyBuckets))
	for i, bound := range cdc.LatencyBuckets {
		count += l.Counts[i]
		buckets[bound] = count
	}
	return count + l.Counts[len(l.Counts)-1], buckets
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
