package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/session"
)

func runCommand() *cobra.Command {
	var f specFlags
	var throwaway bool
	var inv invocation
	var a agentFlags
	c := &cobra.Command{
		Use:   "run [flags] [--] COMMAND [ARGUMENT...]",
		Short: "Run a command in this directory's sandbox; create and start it if need be",
		Long: `Run a command in this directory's sandbox. The first run creates the sandbox and
starts it; later runs use it again, from any subdirectory. With --agent the command
is that agent (bawn agents), and the arguments are its own.

The exit status is the command's own; 125 if bawn failed, 126 if the command
cannot be executed, 127 if it is not found.`,
		Example: `  bawn run -- make test
  bawn run -p 3000 -- npm run dev
  bawn run --agent claude --memory 8G -- --continue
  bawn run --rm --image docker-archive:alpine.tar -- sh -c 'cat /etc/os-release'`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := a.check(); err != nil {
				return err
			}
			if a.name != "" {
				return runAgent(c.Context(), &f, a, throwaway, inv, args)
			}
			if len(args) == 0 {
				return hint(errors.New("no command given"), "bawn run -- COMMAND, or bawn shell")
			}
			inv.argv = args
			return runIn(c.Context(), &f, throwaway, inv)
		},
	}
	f.register(c.Flags())
	f.complete(c)
	c.Flags().BoolVar(&throwaway, "rm", false, "create a sandbox for this command only and remove it afterwards")
	inv.register(c)
	a.register(c)
	c.Flags().SetInterspersed(false)
	return c
}

func shellCommand() *cobra.Command {
	var f specFlags
	var user string
	c := &cobra.Command{
		Use:   "shell [flags] [NAME]",
		Short: "Open a login shell in this directory's sandbox, or in NAME's",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				return execIn(c.Context(), args[0], invocation{user: user})
			}
			return runIn(c.Context(), &f, false, invocation{user: user})
		},
		ValidArgsFunction: completeName,
	}
	f.register(c.Flags())
	f.complete(c)
	c.Flags().StringVarP(&user, "user", "u", "", "log in as `USER`: root, or you (default)")
	_ = c.RegisterFlagCompletionFunc("user", completeUsers)
	return c
}

func execCommand() *cobra.Command {
	var inv invocation
	c := &cobra.Command{
		Use:   "exec [flags] NAME [--] COMMAND [ARGUMENT...]",
		Short: "Run a command in the sandbox NAME; start it if need be",
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case len(args) > 1 && args[1] == "--":
				args = append(args[:1:1], args[2:]...)
			case len(args) > 1 && strings.HasPrefix(args[1], "-"):
				return hint(fmt.Errorf("%s stands after the sandbox's name, where the command begins; flags of bawn exec come before the name", args[1]), "bawn exec %s ... %s -- COMMAND", args[1], args[0])
			}
			if len(args) < 2 {
				return hint(errors.New("bawn exec needs the name of a sandbox and a command"), "bawn exec NAME -- COMMAND")
			}
			inv.argv = args[1:]
			return execIn(c.Context(), args[0], inv)
		},
		ValidArgsFunction: completeExec,
	}
	c.Flags().StringArrayVarP(&inv.env, "env", "e", nil, "pass `NAME[=VALUE]` to the command (repeatable)")
	c.Flags().StringVarP(&inv.dir, "workdir", "w", "", "`DIRECTORY` to run in (default: this one if it is shared with the sandbox, else the project directory)")
	inv.register(c)
	_ = c.RegisterFlagCompletionFunc("env", completeEnv)
	c.Flags().SetInterspersed(false)
	return c
}

// invocation is one command to run in a sandbox.
type invocation struct {
	argv []string // empty: a login shell
	env  []string // as given to --env
	dir  string
	user string

	agent *engine.AgentRequest // that argv starts
	setup bool                 // after the commands of devcontainer.json that are due

	noTTY      bool
	noStdin    bool
	waitOutput bool
}

// register adds the flags that run and exec have in common.
func (inv *invocation) register(c *cobra.Command) {
	acceptHabits(c)
	c.Flags().BoolVarP(&inv.noTTY, "no-tty", "T", false, "do not give the command a terminal")
	c.Flags().BoolVarP(&inv.noStdin, "no-stdin", "n", false, "give the command no standard input, as </dev/null does")
	c.Flags().BoolVar(&inv.waitOutput, "wait-output", false, "wait until processes that the command leaves in the background have closed its output, too")
	c.Flags().StringVarP(&inv.user, "user", "u", "", "run as `USER`: root, or you (default)")
	_ = c.RegisterFlagCompletionFunc("user", completeUsers)
}

// runIn makes or finds the sandbox that the flags mean, and runs the command.
func runIn(ctx context.Context, f *specFlags, throwaway bool, inv invocation) error {
	inv.env = f.env
	if _, err := parseEnv(inv.env); err != nil { // before anything is made
		return err
	}
	r, err := f.request(throwaway, inv.user)
	if err != nil {
		return err
	}
	r.Agent = inv.agent
	e, shown, err := openEngine()
	if err != nil {
		return err
	}
	if err := f.useDevcontainer(e, &r); err != nil {
		return err
	}
	askGitDir(e, &r)
	s, err := acquire(ctx, e, r)
	if err != nil {
		return err
	}
	sayOpened(f.allow)
	inv.setup = true
	return use(ctx, shown, s, inv)
}

// acquire calls Engine.Acquire. If the bawn.yaml is not approved and there is a terminal, it
// asks and calls again.
func acquire(ctx context.Context, e *engine.Engine, r engine.Request) (*engine.Session, error) {
	for {
		s, err := e.Acquire(ctx, r)
		if engine.ReasonOf(err) != engine.NotApproved {
			return s, err
		}
		if err := askApproval(ctx, e, err); err != nil {
			return nil, err
		}
	}
}

// execIn runs the command in a sandbox that exists.
func execIn(ctx context.Context, name string, inv invocation) error {
	if _, err := parseEnv(inv.env); err != nil {
		return err
	}
	e, shown, err := openEngine()
	if err != nil {
		return err
	}
	spec, err := find(e, name)
	if err != nil {
		return err
	}
	s, err := e.Attach(ctx, spec.Name, inv.user)
	if err != nil {
		return err
	}
	return use(ctx, shown, s, inv)
}

// use runs one command and closes the session.
func use(ctx context.Context, shown *bars, s *engine.Session, inv invocation) error {
	var err error
	if inv.setup {
		err = s.Setup(ctx, os.Stderr)
	}
	if err == nil {
		err = invoke(ctx, shown, s, inv)
	}
	sayOutcome(s)
	if s.Spec.Throwaway { // no signal may interrupt its removal
		signal.Ignore(os.Interrupt, syscall.SIGHUP, syscall.SIGTERM)
	}
	if cerr := s.Close(); cerr != nil && s.Spec.Throwaway {
		fmt.Fprintln(os.Stderr, "bawn:", message(cerr))
	}
	return err
}

// invoke runs one command and returns its exit status as an exitStatus.
func invoke(ctx context.Context, shown *bars, s *engine.Session, inv invocation) error {
	env, err := commandEnv(inv.env)
	if err != nil {
		return err
	}
	secrets, err := engine.SecretEnv(s.Spec)
	if err != nil {
		return err
	}
	setup, err := s.SetupEnv()
	if err != nil {
		return err
	}
	// From here on signals go to the command. Until there is a connection they also end
	// ctx, and bawn with it.
	signals := make(chan os.Signal, 16)
	notifyUnlessIgnored(signals, session.Forwarded...)
	defer signal.Stop(signals)
	if err := s.Connect(ctx); err != nil {
		return err
	}
	dir := workdir(s.Spec, inv.dir)
	logical := logicalPath(dir, inv.dir)
	var named []string
	if logical != "" {
		named = []string{"PWD=" + logical}
	}
	cmd := command(inv)
	cmd.Env, cmd.Dir, cmd.Links, cmd.Signals = slices.Concat(named, s.Spec.Env, setup, env, secrets), dir, engine.Links(logical), signals
	if cmd.Terminal != nil {
		shown.setRaw(true)
		defer shown.setRaw(false)
	}
	exit, err := s.Run(context.WithoutCancel(ctx), cmd)
	if err != nil {
		return notRun(err, s.Spec)
	}
	if exit.Status == notFound && len(inv.argv) > 0 && !s.Spec.Throwaway {
		fmt.Fprint(os.Stderr, installHint(inv.argv[0]))
	}
	if exit.Status != 0 {
		return exitStatus(exit.Status)
	}
	return nil
}

// command returns the command of an invocation with the streams of this process. It has a
// terminal where standard input and output are one; standard error may be apart.
func command(inv invocation) session.Command {
	cmd := session.Command{
		Argv: inv.argv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		WaitOutput: inv.waitOutput, JobControl: true,
		Umask: engine.Umask(), OpenFiles: engine.OpenFiles(),
	}
	if inv.noStdin {
		cmd.Stdin = nil
	}
	if !inv.noTTY && !inv.noStdin && isTerminal(os.Stdin) && isTerminal(os.Stdout) {
		cmd.Terminal = &session.Terminal{In: os.Stdin, Out: os.Stdout, Type: os.Getenv("TERM")}
		if isTerminal(os.Stderr) {
			cmd.Stderr = nil
		}
	}
	return cmd
}

// notRun returns the error of a command that did not run to its end. If the sandbox does
// not respond to a signal, it prints that and returns the signal as an interruption.
func notRun(err error, spec *sandbox.Spec) error {
	var still session.StillError
	switch {
	case errors.Is(err, session.ErrOlderGuest):
		return hint(err, "bawn stop %s, then run the same command again", spec.Name)
	case !errors.As(err, &still):
		return err
	}
	if spec.Throwaway { // which Close removes
		fmt.Fprintf(os.Stderr, "bawn: %v\n", err)
	} else {
		fmt.Fprintf(os.Stderr, "bawn: %v; the command ends when the sandbox runs again\n  try: bawn ls shows whether the host's disk is full; bawn stop --force %s turns the sandbox off\n", err, spec.Name)
	}
	return interruption{still.Signal}
}

// logicalPath returns the path by which the person reached the directory of a command, want
// or else the working directory, where the host and the guest have it at the same place;
// else "".
func logicalPath(dir, want string) string {
	logical := want
	if want == "" {
		var ok bool
		if logical, ok = engine.LogicalDir(); !ok {
			return ""
		}
	}
	if real, err := filepath.EvalSymlinks(logical); err != nil || !filepath.IsAbs(logical) || want == "" && real != dir {
		return ""
	}
	return logical
}

// notFound is the exit status of a command that does not exist (POSIX XCU 2.8.2).
const notFound = 127

// workdir returns the directory in which a command starts: the working directory if the guest
// has it too, else the project's.
func workdir(spec *sandbox.Spec, want string) string {
	if want != "" {
		return want
	}
	if wd, err := os.Getwd(); err == nil {
		if place, ok := engine.GuestPath(spec, wd); ok {
			return place
		}
	}
	return spec.Project.Guest
}
