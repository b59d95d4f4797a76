package main

import (
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"p11fs/mountd"
	"p11fs/tokens/swtok"
)

// newMan writes the manual pages of the commands; the build calls it.
func newMan(streams) *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages of the commands into DIR",
		Hidden: true,
		Args:   takes(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			c.Root().DisableAutoGenTag = true
			// A fixed date, so that the same source gives the same pages.
			date := time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)
			header := &doc.GenManHeader{Title: "P11FS", Section: "1", Source: "p11fs " + mountd.Version, Manual: "p11fs", Date: &date}
			if err := doc.GenManTree(c.Root(), header, args[0]); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(args[0], "p11fs-mechanisms.7"), mechanismPage(swtok.Mechanisms(), date), 0o644)
		},
	}
}
