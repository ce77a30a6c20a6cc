package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/session"
	"bawn.dev/bawn/internal/supervisor/launch"
)

func runCommand() *cobra.Command {
	var f specFlags
	var throwaway, noTTY bool
	var user string
	c := &cobra.Command{
		Use:   "run [flags] [--] COMMAND [ARGUMENT...]",
		Short: "Run a command in this directory's sandbox, making it if need be",
		Long: `Run a command in this directory's sandbox. The first run makes the sandbox and
starts it; later ones find it running, from any subdirectory.

The exit status is the command's own; 125 if bawn failed, 126 if the command
cannot be executed, 127 if it is not found.`,
		Example: `  bawn run -- make test
  bawn run -p 3000 -- npm run dev
  bawn run --rm --image docker-archive:alpine.tar -- sh -c 'cat /etc/os-release'`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return hint(errors.New("no command given"), "bawn run -- COMMAND, or bawn shell")
			}
			return runIn(c.Context(), &f, throwaway, invocation{argv: args, user: user, noTTY: noTTY})
		},
	}
	f.register(c.Flags())
	f.complete(c)
	c.Flags().BoolVar(&throwaway, "rm", false, "make a sandbox for this command only and remove it afterwards")
	c.Flags().BoolVarP(&noTTY, "no-tty", "T", false, "do not give the command a terminal")
	c.Flags().StringVarP(&user, "user", "u", "", "run as `USER`: root, or you (default)")
	_ = c.RegisterFlagCompletionFunc("user", completeUsers)
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
		Short: "Run a command in the sandbox NAME, starting it if need be",
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case len(args) > 1 && args[1] == "--":
				args = append(args[:1:1], args[2:]...)
			case len(args) > 1 && strings.HasPrefix(args[1], "-"):
				return hint(fmt.Errorf("%s stands after the sandbox's name, where the command begins", args[1]), "bawn exec %s ... %s -- COMMAND", args[1], args[0])
			}
			if len(args) < 2 {
				return hint(errors.New("want a sandbox and a command"), "bawn exec NAME -- COMMAND")
			}
			inv.argv = args[1:]
			return execIn(c.Context(), args[0], inv)
		},
		ValidArgsFunction: completeExec,
	}
	c.Flags().StringArrayVarP(&inv.env, "env", "e", nil, "pass `NAME[=VALUE]` to the command (repeatable)")
	c.Flags().StringVarP(&inv.dir, "workdir", "w", "", "`DIRECTORY` to run in (default: this one where the guest has it, else the project's)")
	c.Flags().BoolVarP(&inv.noTTY, "no-tty", "T", false, "do not give the command a terminal")
	c.Flags().StringVarP(&inv.user, "user", "u", "", "run as `USER`: root, or you (default)")
	_ = c.RegisterFlagCompletionFunc("user", completeUsers)
	_ = c.RegisterFlagCompletionFunc("env", completeEnv)
	c.Flags().SetInterspersed(false)
	return c
}

// invocation is one command to run in a sandbox.
type invocation struct {
	argv  []string // empty: a login shell
	env   []string // as given to --env
	dir   string
	user  string
	noTTY bool
}

// runIn makes or finds the sandbox that the flags mean, and runs the command.
func runIn(ctx context.Context, f *specFlags, throwaway bool, inv invocation) error {
	inv.env = f.env
	if _, err := parseEnv(inv.env); err != nil { // before anything is made
		return err
	}
	if err := f.checkRules(); err != nil {
		return err
	}
	sandboxes, err := store.Open()
	if err != nil {
		return err
	}
	if err := f.consent(ctx, sandboxes, throwaway); err != nil {
		return err
	}
	in, err := f.resolve(ctx, sandboxes, throwaway)
	if err != nil {
		return err
	}
	spec := in.spec
	if throwaway {
		defer in.owner.Close()
		defer removeThrowaway(sandboxes, spec.Name)
	}
	early := &handshake{}
	err = bringUp(ctx, sandboxes, spec.Name, f, func() { early.begin(ctx, sandboxes.Dir(spec.Name), inv.user) })
	switch {
	case err == nil:
		return invoke(ctx, sandboxes, spec, inv, early)
	case in.made && !throwaway:
		return errors.Join(err, unmake(sandboxes, spec.Name))
	case store.IsNotFound(err) && ctx.Err() == nil: // who made it has removed it meanwhile
		return runIn(ctx, f, throwaway, inv)
	}
	return err
}

// execIn runs the command in a sandbox that exists.
func execIn(ctx context.Context, name string, inv invocation) error {
	if _, err := parseEnv(inv.env); err != nil {
		return err
	}
	sandboxes, err := store.Open()
	if err != nil {
		return err
	}
	spec, err := lookup(sandboxes, name)
	if err != nil {
		return err
	}
	early := &handshake{}
	if err := bringUp(ctx, sandboxes, spec.Name, nil, func() { early.begin(ctx, sandboxes.Dir(spec.Name), inv.user) }); err != nil {
		return err
	}
	return invoke(ctx, sandboxes, spec, inv, early)
}

// handshake is a connection to a guest that is made while its sandbox still
// starts: under emulation that takes as long as the rest. Whoever uses it must have
// waited for the start to end.
type handshake struct {
	done   chan struct{} // nil: nobody began
	client *session.Client
}

// begin begins it, or begins anew with a machine that took the place of the first.
func (h *handshake) begin(ctx context.Context, d store.Dir, user string) {
	before, done := h.done, make(chan struct{})
	h.done = done
	go func() {
		defer close(done)
		if before != nil {
			if <-before; h.client != nil {
				h.client.Close()
			}
		}
		h.client, _ = session.Dial(ctx, d, userOr(user)) // dial tries again, and says why
	}()
}

// end returns the connection, nil if there is none.
func (h *handshake) end() *session.Client {
	if h.done == nil {
		return nil
	}
	<-h.done
	return h.client
}

// userOr is the user to log in as: who runs bawn, if none is named.
func userOr(name string) string {
	if name == "" {
		return guestUser().Name
	}
	return name
}

// invoke runs one command in a running sandbox and returns its exit status as
// an exitStatus.
func invoke(ctx context.Context, sandboxes *store.Store, spec *sandbox.Spec, inv invocation, early *handshake) error {
	warnRules(sandboxes, spec.Name)
	env, err := commandEnv(inv.env)
	if err != nil {
		return err
	}
	// From here on signals are the command's, though as long as there is no
	// connection they end bawn.
	signals := make(chan os.Signal, 16)
	heed(signals, session.Forwarded...)
	defer signal.Stop(signals)
	c := early.end()
	if c == nil {
		if c, err = dial(ctx, sandboxes, spec.Name, inv.user); err != nil {
			return err
		}
	}
	defer c.Close()
	ctx = context.WithoutCancel(ctx)
	cmd := session.Command{
		Argv: inv.argv, Env: append(append([]string{}, spec.Env...), env...), Dir: workdir(spec, inv.dir),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Signals: signals,
	}
	if !inv.noTTY && isTerminal(os.Stdin) && isTerminal(os.Stdout) {
		cmd.Terminal = &session.Terminal{In: os.Stdin, Out: os.Stdout, Type: os.Getenv("TERM")}
	}
	watching, done := context.WithCancel(ctx)
	defer done()
	go watchSpace(watching, sandboxes.Dir(spec.Name), cmd.Terminal != nil)
	exit, err := c.Run(ctx, cmd)
	var still session.StillError
	var output session.OutputError
	if errors.As(err, &output) {
		return err
	}
	if errors.As(err, &still) && spec.Throwaway { // it is removed now
		fmt.Fprintf(os.Stderr, "bawn: %v\n", err)
		return interruption{still.Signal}
	}
	if errors.As(err, &still) {
		fmt.Fprintf(os.Stderr, "bawn: %v: the command ends when it goes on\n  try: bawn ls, which says whether the host's disk is full; bawn stop --force %s\n", err, spec.Name)
		return interruption{still.Signal}
	}
	if errors.Is(err, session.ErrGone) {
		err = why(ctx, sandboxes.Dir(spec.Name), err)
	}
	if err != nil {
		return hint(err, "%s", lookInto(sandboxes, spec))
	}
	if exit.Status == notFound && len(inv.argv) > 0 && !spec.Throwaway {
		fmt.Fprint(os.Stderr, installHint(inv.argv[0], spec.Name))
	}
	if exit.Status != 0 {
		return exitStatus(exit.Status)
	}
	return nil
}

// notFound is the exit status of a command that the guest has not (POSIX XCU 2.8.2).
const notFound = 127

// goneLimit is how long a sandbox that went away may take to say why.
const goneLimit = 5 * time.Second

// why adds to the news that a sandbox has gone what is known of the reason.
func why(ctx context.Context, d store.Dir, gone error) error {
	ctx, cancel := context.WithTimeout(ctx, goneLimit)
	defer cancel()
	if launch.AwaitExit(ctx, d) != nil || d.AwaitSettled(ctx) != nil {
		return gone
	}
	if _, err := d.Spec(); store.IsNotFound(err) {
		return fmt.Errorf("%w: it was removed", gone)
	}
	st, err := d.State()
	switch {
	case err != nil:
		return gone
	case st.Phase == sandbox.Dead:
		return fmt.Errorf("%w: its supervisor died", gone)
	case suspended(d):
		return fmt.Errorf("%w: it was suspended", gone)
	case st.Message != "":
		return fmt.Errorf("%w: %s", gone, st.Message)
	}
	return fmt.Errorf("%w: it was stopped", gone)
}

// dial connects to a running sandbox's guest as user, or as who runs bawn.
func dial(ctx context.Context, sandboxes *store.Store, name, user string) (*session.Client, error) {
	user = userOr(user)
	var c *session.Client
	connect := func() error {
		return showing("Waiting for the sandbox to answer", func() (err error) {
			c, err = session.Dial(ctx, sandboxes.Dir(name), user)
			return err
		})
	}
	err := connect()
	if err != nil && ctx.Err() == nil && !errors.Is(err, session.ErrUser) && startedAgain(ctx, sandboxes, name) {
		err = connect()
	}
	switch {
	case err == nil || ctx.Err() != nil:
		return c, err
	case errors.Is(err, session.ErrUser):
		return nil, hint(err, "--user root, or leave --user out")
	}
	if spec, none := sandboxes.Dir(name).Spec(); none != nil || spec.Throwaway { // it is gone, or will be
		return c, hint(err, "bawn ls")
	}
	return c, hint(err, "bawn logs %s, or bawn stop --force %s and run again", name, name)
}

// startedAgain starts a sandbox that went away between two looks at it: it was
// suspended, being idle, or something killed it and its end was not seen yet.
func startedAgain(ctx context.Context, sandboxes *store.Store, name string) bool {
	ending, cancel := context.WithTimeout(ctx, goneLimit)
	defer cancel()
	return launch.AwaitExit(ending, sandboxes.Dir(name)) == nil && ensureRunning(ctx, sandboxes, name) == nil
}

// watchSpace prints when the sandbox begins to stand still because the host's disk is
// full, and when it goes on: the guest, and with it the command, cannot say anything then.
func watchSpace(ctx context.Context, d store.Dir, raw bool) {
	end := "\n"
	if raw { // the terminal is the guest's, and does not return by itself
		end = "\r\n"
	}
	starved := false
	show := func(now bool) {
		if now == starved {
			return
		}
		if starved = now; !starved {
			fmt.Fprintf(os.Stderr, "bawn: there is room again; the sandbox goes on%s", end)
			return
		}
		fmt.Fprintf(os.Stderr, "bawn: the host's disk is full; the sandbox waits for room%s  try: free some on the file system of %s, or bawn stop --force %s%s",
			end, d.Path, filepath.Base(d.Path), end)
	}
	for again := true; again; {
		again = false
		for e, err := range control.NewClient(d.DialControl).Events(ctx) {
			switch {
			case err != nil:
				return
			case e.Kind == control.KindStatus:
				show(e.Status.Starved)
			case e.Kind == control.KindSpace:
				show(e.Starved)
			case e.Kind == control.KindLagged:
				again = true
			}
		}
	}
}

// workdir is where a command starts: the directory the person stands in when
// the guest has it too, else the project's.
func workdir(spec *sandbox.Spec, want string) string {
	if want != "" {
		return want
	}
	wd, err := os.Getwd()
	if err != nil {
		return spec.GuestDir()
	}
	if real, err := filepath.EvalSymlinks(wd); err == nil {
		wd = real
	}
	if sandbox.Beneath(spec.Dir, wd) {
		return filepath.Join(spec.GuestDir(), strings.TrimPrefix(wd, spec.Dir))
	}
	for _, m := range spec.Mounts {
		if m.Source == m.Target && sandbox.Beneath(m.Source, wd) {
			return wd
		}
	}
	return spec.GuestDir()
}

// removeThrowaway runs when the command has ended, however it ended; signals
// no longer matter.
func removeThrowaway(sandboxes *store.Store, name string) {
	signal.Ignore(os.Interrupt, syscall.SIGHUP, syscall.SIGTERM)
	if err := remove(context.Background(), sandboxes, name, true); err != nil {
		fmt.Fprintf(os.Stderr, "bawn: remove the throwaway sandbox %s: %v\n", name, err)
	}
}
