package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/pipeline"
)

// progressEvery is how often the line of progress is drawn.
const progressEvery = 250 * time.Millisecond

// showProgress draws how far a verification is, on one line of a terminal, until
// it is stopped.
func showProgress(w io.Writer, name string, progress func() pipeline.VerifyProgress) (stop func()) {
	if !colored(w) {
		return func() {}
	}
	const clear = "\r\x1b[K"
	done := make(chan struct{})
	var drawing sync.WaitGroup
	began := time.Now()
	drawing.Go(func() {
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				fmt.Fprint(w, clear)
				return
			case now := <-tick.C:
				fmt.Fprintf(w, "%s%s: %s", clear, name, progressLine(progress(), now.Sub(began)))
			}
		}
	})
	return func() {
		close(done)
		drawing.Wait()
	}
}

// progressLine says how much was read, how fast, and about how long it will take.
func progressLine(p pipeline.VerifyProgress, took time.Duration) string {
	line := fmt.Sprintf("%d rows, %d records", p.Rows, p.Records)
	if p.RowsTotal > 0 {
		line = fmt.Sprintf("%d of about %d rows, %d records", p.Rows, max(p.Rows, p.RowsTotal), p.Records)
	}
	if p.RecordsTotal > 0 {
		line += fmt.Sprintf(" of %d", max(p.Records, p.RecordsTotal))
	}
	if s := took.Seconds(); s > 0 {
		line += fmt.Sprintf(", %s/s", size(int64(float64(p.Bytes)/s)))
	}
	done := p.Rows + p.Records
	left := max(0, p.RowsTotal-p.Rows) + max(0, p.RecordsTotal-p.Records)
	switch {
	case p.Waiting != "":
		line += "; waiting: " + p.Waiting
	case p.RecordsTotal > 0 && done > 0:
		line += fmt.Sprintf(", about %s left", seconds(took.Seconds()*float64(left)/float64(done)))
	}
	return line
}

// verdictError is what the verdicts mean for the exit code.
func verdictError(list []cdc.Verification) error {
	different, unchecked := 0, 0
	for _, v := range list {
		switch v.Verdict {
		case cdc.VerdictDifferent:
			different++
		case cdc.VerdictUnchecked:
			unchecked++
		case cdc.VerdictEqual:
		}
	}
	switch {
	case different > 0:
		return &exitError{exitDifference, fmt.Errorf("%d of %d differ", different, len(list))}
	case unchecked > 0:
		return &exitError{exitFailed, fmt.Errorf("%d of %d could not be checked", unchecked, len(list))}
	}
	return nil
}

// writeVerifications writes a line for each result, and below it what needs more words.
func writeVerifications(w io.Writer, list []cdc.Verification) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "PIPELINE\tSUBJECT\tVERDICT\tROWS\tRECORDS\tMISSING\tGHOSTS\tDIFFERENT\tOLDER\tAT\tTOOK")
	for _, v := range list {
		at := "-"
		switch {
		case v.LSN > 0:
			at = v.LSN.String()
		case v.Position > 0:
			at = fmt.Sprint(v.Position)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", v.Pipeline, v.Subject, v.Verdict, v.Rows, v.Records,
			v.Missing, v.Ghosts, v.Different, v.Older, at, seconds(v.Took.Seconds()))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for i := range list {
		if note := verifiedNote(&list[i]); note != "" {
			if _, err := fmt.Fprintf(w, "\n%s %s: %s\n", list[i].Pipeline, list[i].Subject, note); err != nil {
				return err
			}
		}
	}
	return nil
}

// verifiedNote is what the line of a result cannot say.
func verifiedNote(v *cdc.Verification) string {
	var lines []string
	if v.Why != "" {
		lines = append(lines, v.Why)
	}
	for _, s := range v.Samples {
		line := fmt.Sprintf("%s %s", s.Kind, s.Key)
		if s.Partition >= 0 {
			line += fmt.Sprintf(" (partition %d offset %d)", s.Partition, s.Offset)
		}
		for _, c := range s.Columns {
			line += fmt.Sprintf("\n    %s: table %s, topic %s", c.Column, cmp.Or(c.Source, "-"), cmp.Or(c.Target, "-"))
		}
		lines = append(lines, line)
	}
	if n := v.Differences() - int64(len(v.Samples)); n > 0 && len(v.Samples) > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", n))
	}
	if v.Mend != "" {
		lines = append(lines, v.Mend)
	}
	return strings.Join(lines, "\n  ")
}
