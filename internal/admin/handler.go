package admin

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"cdc/internal/cdc"
)

// Report is the answer of /v1/status.
type Report struct {
	Version   string       `json:"version"`
	Pipelines []cdc.Status `json:"pipelines"`
}

// Readiness is the answer of /readyz.
type Readiness struct {
	Ready    bool       `json:"ready"`
	NotReady []NotReady `json:"not_ready,omitempty"`
}

// NotReady is a pipeline that is not ready and why.
type NotReady struct {
	Pipeline string    `json:"pipeline"`
	State    cdc.State `json:"state"`
	Reason   string    `json:"reason"`
	Mend     string    `json:"mend,omitempty"`
}

// scrapesAtOnce bounds the answers to /metrics being made at a time: each holds
// its whole text in memory.
const scrapesAtOnce = 4

// Handler serves the paths without a listener.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		s.write(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /readyz", s.ready)
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		r := Report{Version: s.source.Version(), Pipelines: s.source.Status()}
		if r.Pipelines == nil {
			r.Pipelines = []cdc.Status{} // [] in JSON, not null
		}
		s.write(w, http.StatusOK, r)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{
		Registry: s.registry, MaxRequestsInFlight: scrapesAtOnce,
		// A series that cannot be made must not hide the others; promhttp counts
		// and logs it.
		ErrorHandling: promhttp.ContinueOnError,
		ErrorLog:      slog.NewLogLogger(s.log.Handler(), slog.LevelError),
	}))
	for _, m := range s.mounts {
		for _, pattern := range m.patterns {
			mux.Handle(pattern, m.handler)
		}
	}
	mux.HandleFunc("/", s.notFound)
	return mux
}

// paths are what the server answers, for the answer to everything else.
var paths = []string{"/healthz", "/readyz", "/metrics", "/v1/status"}

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	code, text := http.StatusNotFound, "no such path"
	for _, p := range paths {
		if r.URL.Path == p {
			w.Header().Set("Allow", "GET, HEAD")
			code, text = http.StatusMethodNotAllowed, "only GET is answered here"
		}
	}
	all := slices.Clone(paths)
	for _, m := range s.mounts {
		all = append(all, m.patterns...)
	}
	s.write(w, code, map[string]any{"error": text, "paths": all})
}

// ready is 200 when every pipeline runs and none is stalled.
func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	r := Readiness{Ready: true}
	for _, p := range s.source.Status() {
		if !p.Ready {
			r.Ready = false
			r.NotReady = append(r.NotReady, NotReady{Pipeline: p.Name, State: p.State, Reason: whyNot(p), Mend: p.Mend})
		}
	}
	code := http.StatusOK
	if !r.Ready {
		code = http.StatusServiceUnavailable
	}
	s.write(w, code, r)
}

// whyNot is the nearest there is to a reason.
func whyNot(p cdc.Status) string {
	switch {
	case p.Error != "":
		return p.Error
	case p.Stalled != "":
		return p.Stalled
	}
	return "the pipeline is " + string(p.State)
}

// write sends v as JSON. A client that went away is no concern of the daemon.
func (s *Server) write(w http.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil { // a number JSON cannot say: the fault is in Status
		s.log.Error("write answer of the admin server", "error", err)
		code, body = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n')) // nobody is left to tell
}
