package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	fetchTimeout = 10 * time.Second
	// maxReport bounds an answer: one pipeline's status is some kilobytes, with a
	// line per table while it snapshots.
	maxReport = 64 << 20
)

// Fetch asks the daemon that listens on addr (host:port) for its report.
func Fetch(ctx context.Context, addr string) (Report, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/v1/status", nil)
	if err != nil {
		return Report{}, fmt.Errorf("ask %q for its status: %w", addr, err)
	}
	// A transport of its own: no proxy from the environment stands between this
	// command and a loopback address, and no idle connection stays behind.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return Report{}, fmt.Errorf("ask the daemon at %s for its status: %w; is it running with admin.listen %s?", addr, err, addr)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReport+1))
	switch {
	case err != nil:
		return Report{}, fmt.Errorf("read the status of the daemon at %s: %w", addr, err)
	case resp.StatusCode != http.StatusOK:
		return Report{}, fmt.Errorf("the server at %s answers %s to /v1/status: is it cdc?", addr, resp.Status)
	case len(body) > maxReport:
		return Report{}, fmt.Errorf("the status of the server at %s is longer than %d bytes: is it cdc?", addr, maxReport)
	}
	var r Report
	if err := json.Unmarshal(body, &r); err != nil {
		return Report{}, fmt.Errorf("read the status of the server at %s: %w; is it cdc?", addr, err)
	}
	return r, nil
}
