package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// release is set when a release is built: -ldflags "-X main.release=1.2.3".
var release string

// buildInfo is what `cdc version` shows.
type buildInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"` // built from files that are not committed
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func readBuildInfo() buildInfo {
	b := buildInfo{Version: release, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Commit = s.Value
			case "vcs.modified":
				b.Modified = s.Value == "true"
			}
		}
	}
	if b.Version == "" {
		b.Version = "devel"
		if ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
			b.Version = info.Main.Version // go install cdc@version
		}
	}
	return b
}

// version is the daemon's own, as status and metrics show it.
func version() string { return readBuildInfo().Version }

func newVersionCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := readBuildInfo()
			return g.print(cmd, b, func(w io.Writer) error { return writeVersion(w, b) })
		},
	}
}

func writeVersion(w io.Writer, b buildInfo) error {
	commit := ""
	if b.Commit != "" {
		commit = ", commit " + b.Commit
		if b.Modified {
			commit += " with changes"
		}
	}
	_, err := fmt.Fprintf(w, "cdc %s%s, %s, %s\n", b.Version, commit, b.Go, b.Platform)
	return err
}
