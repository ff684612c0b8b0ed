package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"cdc/internal/cdc"
)

// Controller does what a running pipeline can be asked for. Its methods block
// until that is acknowledged, or ctx ends, and may be called concurrently.
type Controller interface {
	// Copy returns ErrNoPipeline for a name that is not a pipeline of mode: cdc.
	Copy(ctx context.Context, pipeline string, req cdc.CopyRequest) error
	// Repair likewise.
	Repair(ctx context.Context, pipeline string, req cdc.RepairRequest) (cdc.RepairResult, error)
}

// ErrNoPipeline is a Controller's answer to a name it does not know.
var ErrNoPipeline = errors.New("no such pipeline of mode: cdc")

const (
	// maxControlBody bounds a request: 1,000 keys of a kilobyte.
	maxControlBody = 4 << 20
	// ControlTimeout bounds what is waited for: a repair reads its rows when every
	// older transaction of the server has ended.
	ControlTimeout = 2 * time.Minute
)

// Control has the server pass requests on to c. Call it before Run.
func (s *Server) Control(c Controller) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/pipelines/{pipeline}/snapshot", func(w http.ResponseWriter, r *http.Request) {
		control(s, w, r, func(ctx context.Context, req cdc.CopyRequest) (any, error) {
			return struct{}{}, c.Copy(ctx, r.PathValue("pipeline"), req)
		})
	})
	mux.HandleFunc("POST /v1/pipelines/{pipeline}/repair", func(w http.ResponseWriter, r *http.Request) {
		control(s, w, r, func(ctx context.Context, req cdc.RepairRequest) (any, error) {
			return c.Repair(ctx, r.PathValue("pipeline"), req)
		})
	})
	s.Mount(mux, "POST /v1/pipelines/{pipeline}/snapshot", "POST /v1/pipelines/{pipeline}/repair")
}

// control answers one request. Its body must be called JSON: a page in a browser
// cannot send that to another origin unasked.
func control[T any](s *Server, w http.ResponseWriter, r *http.Request, do func(context.Context, T) (any, error)) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		s.write(w, http.StatusUnsupportedMediaType, Refusal{Error: "send JSON, with Content-Type: application/json"})
		return
	}
	var req T
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxControlBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		s.write(w, http.StatusBadRequest, Refusal{Error: fmt.Sprintf("read the request: %v", err)})
		return
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(ControlTimeout + writeTimeout))
	ctx, cancel := context.WithTimeout(r.Context(), ControlTimeout)
	defer cancel()
	answer, err := do(ctx, req)
	var t *cdc.TerminalError
	switch {
	case err == nil:
		s.write(w, http.StatusOK, answer)
	case errors.Is(err, ErrNoPipeline):
		s.write(w, http.StatusNotFound, Refusal{Error: err.Error()})
	case errors.As(err, &t):
		s.write(w, http.StatusConflict, Refusal{Error: t.Err.Error(), Mend: t.Mend})
	case errors.Is(err, context.DeadlineExceeded):
		s.write(w, http.StatusServiceUnavailable, Refusal{Error: err.Error()})
	default:
		s.write(w, http.StatusConflict, Refusal{Error: err.Error()})
	}
}

// Refusal is the answer to a request that was not carried out.
type Refusal struct {
	Error string `json:"error"`
	Mend  string `json:"mend,omitempty"`
}

// Ask has the daemon that listens on addr copy tables of a pipeline.
func Ask(ctx context.Context, addr, pipeline string, req cdc.CopyRequest) error {
	return post(ctx, addr, "/v1/pipelines/"+pipeline+"/snapshot", req, &struct{}{})
}

// Repair has the daemon that listens on addr repair a table of a pipeline.
func Repair(ctx context.Context, addr, pipeline string, req cdc.RepairRequest) (cdc.RepairResult, error) {
	var result cdc.RepairResult
	err := post(ctx, addr, "/v1/pipelines/"+pipeline+"/repair", req, &result)
	return result, err
}

// post sends a request and reads its answer.
func post(ctx context.Context, addr, path string, req, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, ControlTimeout+fetchTimeout)
	defer cancel()
	body, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("ask the daemon at %s: %w", addr, err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask the daemon at %q: %w", addr, err)
	}
	r.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		return &UnreachableError{addr, err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxReport))
	if err != nil {
		return fmt.Errorf("read the answer of the daemon at %s: %w", addr, err)
	}
	if resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(text, answer); err != nil {
			return fmt.Errorf("read the answer of the server at %s: %w; is it cdc?", addr, err)
		}
		return nil
	}
	var refused Refusal
	if json.Unmarshal(text, &refused) != nil || refused.Error == "" {
		return fmt.Errorf("the server at %s answers %s to %s: is it cdc?", addr, resp.Status, path)
	}
	if refused.Mend != "" {
		return cdc.Terminal("refused", refused.Mend, "%s", refused.Error)
	}
	return errors.New(refused.Error)
}

// UnreachableError says that no daemon answers.
type UnreachableError struct {
	Addr string
	Err  error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("ask the daemon at %s: %v; start it: cdc run", e.Addr, e.Err)
}

func (e *UnreachableError) Unwrap() error { return e.Err }
