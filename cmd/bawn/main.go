// Command bawn runs coding agents, or any command, in a virtual machine of
// their own. It is the command-line front end of package engine: each verb is a file of this
// package that reads its flags, calls the engine and shows the result. hints.go has the
// words for what the engine reports, bars.go draws its progress.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/sys/text"
)

// exitFailed is bawn's own failure, as docker-run(1) has it. A command's exit
// status is passed on as it is; 126 and 127 come from the guest.
const exitFailed = 125

// Main runs bawn and returns its exit status (testscript runs it as a function).
func Main() int {
	ctx, stop := untilSignal(context.Background())
	defer stop()
	engine.DistrustShares()
	err := execute(ctx)
	return report(os.Stderr, interruptedBy(ctx, err))
}

// interruption is the cause of a context that a signal ended.
type interruption struct{ sig syscall.Signal }

func (interruption) Error() string { return "interrupted" }

// Is makes an interruption match context.Canceled.
func (interruption) Is(target error) bool { return target == context.Canceled }

// untilSignal returns a context that ends with the first SIGINT, SIGTERM or SIGHUP.
func untilSignal(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	notifyUnlessIgnored(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		select {
		case sig := <-signals:
			cancel(interruption{sig.(syscall.Signal)})
		case <-ctx.Done():
		}
	}()
	return ctx, func() { signal.Stop(signals); cancel(nil) }
}

// notifyUnlessIgnored sends signals to c, except those that bawn was started to ignore, as
// nohup(1) and a shell's "&" have it.
func notifyUnlessIgnored(c chan<- os.Signal, signals ...os.Signal) {
	for _, s := range signals {
		if !signal.Ignored(s) {
			signal.Notify(c, s)
		}
	}
}

// interruptedBy returns the interruption if err is no more than a cancelled context that a
// signal ended, and err otherwise.
func interruptedBy(ctx context.Context, err error) error {
	var why interruption
	if errors.Is(err, context.Canceled) && errors.As(context.Cause(ctx), &why) {
		return why
	}
	return err
}

// exitStatus is an error that only carries a command's exit status.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// report prints an error and the next step, and returns the exit status.
func report(w io.Writer, err error) int {
	var status exitStatus
	var by interruption
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, &by): // the status that a shell gives to a command that a signal ended
		fmt.Fprintln(w, "bawn: interrupted")
		return 128 + int(by.sig)
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(w, "bawn: interrupted")
		return exitFailed
	}
	fmt.Fprintln(w, "bawn:", message(err))
	if step := nextStep(err); step != "" {
		fmt.Fprintln(w, "  try:", text.Block(step))
	}
	return exitFailed
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "bawn",
		Short: "Run coding agents at full autonomy in a virtual machine of their own",
		Long: `bawn gives a command a virtual machine of its own: its own kernel and Docker
daemon, the project directory at the same path, no credentials, and only the
network that you allow.

  bawn claude                run an agent on this directory
  bawn run -- make test      run a command on it
  bawn shell                 look around inside
  bawn ls                    list the sandboxes`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	cobra.EnableCommandSorting = false // help lists commands in the order of use
	root.SetFlagErrorFunc(flagError)
	root.AddGroup(
		&cobra.Group{ID: "agents", Title: "Agents, each by its word:"},
		&cobra.Group{ID: "run", Title: "Run:"},
		&cobra.Group{ID: "manage", Title: "Manage:"},
		&cobra.Group{ID: "net", Title: "Network:"},
		&cobra.Group{ID: "bawn", Title: "This program:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("agents", agentCommands()...)
	add("agents", agentsCommand(), loginCommand(), logoutCommand())
	add("run", runCommand(), shellCommand(), execCommand(), cpCommand())
	add("manage", lsCommand(), statsCommand(), inspectCommand(), stopCommand(), suspendCommand(), resumeCommand(), snapshotCommand(), undoCommand(), reviewCommand(), acceptCommand(), forkCommand(), rmCommand(), logsCommand(), portCommand(), sshConfigCommand(), imageCommand(), volumeCommand(), cacheCommand(), poolCommand())
	add("net", policyCommand(), netCommand(), secretCommand(), trustCommand(), filesCommand())
	add("bawn", doctorCommand(), versionCommand())
	root.AddCommand(sshProxyCommand(), attackCommand(), attackProbe())
	root.SetHelpCommand(helpCommand())
	root.SetHelpCommandGroupID("bawn")
	root.SetCompletionCommandGroupID("bawn")
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	if c, _, err := root.Find([]string{"completion"}); err == nil { // cobra's own accepts any word as a shell
		c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
		for _, shell := range c.Commands() {
			if shell.Name() == "powershell" { // bawn runs on Linux only
				c.RemoveCommand(shell)
			}
		}
	}
	addUsageHints(root)
	return root
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
