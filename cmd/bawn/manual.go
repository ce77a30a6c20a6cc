//go:build manual

package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// With the build tag manual, this main replaces bawn's: it writes what a package of
// bawn has beside the program, so that the libraries for that are not linked into it.
// The date of the pages comes from SOURCE_DATE_EPOCH.
//
//	go run -tags manual ./cmd/bawn DIR
func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run -tags manual ./cmd/bawn DIR")
		os.Exit(2)
	}
	if err := writeManual(rootCommand(), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "manual:", err)
		os.Exit(1)
	}
}

// writeManual writes a man page for each verb to dir/man1, and the completions of
// each shell to dir/completions.
func writeManual(root *cobra.Command, dir string) error {
	pages, completions := filepath.Join(dir, "man1"), filepath.Join(dir, "completions")
	for _, d := range []string{pages, completions} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	root.DisableAutoGenTag = true
	header := &doc.GenManHeader{Section: "1", Source: "bawn " + release, Manual: "bawn"}
	if err := doc.GenManTree(root, header, pages); err != nil {
		return err
	}
	if err := root.GenBashCompletionFileV2(filepath.Join(completions, "bawn.bash"), true); err != nil {
		return err
	}
	if err := root.GenZshCompletionFile(filepath.Join(completions, "_bawn")); err != nil {
		return err
	}
	return root.GenFishCompletionFile(filepath.Join(completions, "bawn.fish"), true)
}
