package main

import (
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/sandbox"
)

// What the shell completes (bawn completion).

// completeNames completes names of sandboxes that are not in args yet.
func completeNames(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	e, _, err := openEngine()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	names, err := e.Names()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	names = slices.DeleteFunc(names, func(n string) bool { return slices.Contains(args, n) })
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeName is for commands that take one sandbox.
func completeName(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return completeNames(c, args, word)
}

// completeExec completes a sandbox and then a command with its arguments, which are
// files more often than not.
func completeExec(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return completeNames(c, args, word)
}

// completePlaces are files of this machine, and sandboxes with the colon that
// a path follows.
func completePlaces(c *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	names, _ := completeNames(c, nil, word)
	var list []string
	for _, n := range names {
		if strings.HasPrefix(n, word) {
			list = append(list, n+":")
		}
	}
	return list, cobra.ShellCompDirectiveNoSpace
}

func completeUsers(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"root", engine.GuestUser().Name}, cobra.ShellCompDirectiveNoFileComp
}

// completeEnv returns the variables that are set here.
func completeEnv(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var names []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		names = append(names, name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeCaches completes the last of several kinds of packages with commas between them.
func completeCaches(_ *cobra.Command, _ []string, word string) (list []string, _ cobra.ShellCompDirective) {
	before := word[:strings.LastIndexByte(word, ',')+1]
	for _, c := range sandbox.Caches {
		if !slices.Contains(strings.Split(before, ","), string(c)) {
			list = append(list, before+string(c))
		}
	}
	return list, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// complete registers how the values of the flags are completed.
func (f *specFlags) complete(c *cobra.Command) {
	_ = c.RegisterFlagCompletionFunc("name", completeNames)
	_ = c.RegisterFlagCompletionFunc("env", completeEnv)
	_ = c.RegisterFlagCompletionFunc("volume", completeVolumePlaces)
	_ = c.RegisterFlagCompletionFunc("cache", completeCaches)
	_ = c.MarkFlagDirname("dir")
	_ = c.MarkFlagDirname("local-dir")
	for _, flag := range []string{"cpus", "memory", "disk", "rate", "publish", "add-host"} {
		_ = c.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions)
	}
}
