package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/egress"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sandbox/store"
)

func netCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "net", Short: "Watch what a sandbox does on the network",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(netLogCommand(), netAskCommand())
	return c
}

func netLogCommand() *cobra.Command {
	var follow, denied, asJSON bool
	var name string
	c := &cobra.Command{
		Use: "log", Short: "Show every decision on the sandbox's traffic", Args: cobra.NoArgs,
		Long: `Show every decision on the sandbox's traffic: time, verdict, protocol, the
process in the guest as the guest tells it, name or address and port, rule or
reason; when a connection ends, bytes and duration. The log is bounded: the
oldest goes first. docs/policy.md has the fields of --json.`,
		Example: `  bawn net log -f --denied
  bawn net log --json | jq 'select(.event == "close") | [.name, .sent]'`,
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := sandboxDir(name)
			if err != nil {
				return err
			}
			if !asJSON {
				fmt.Fprintln(c.OutOrStdout(), egress.Heading)
			}
			show := func(e egress.Entry) error {
				if denied && e.Verdict != egress.Denied {
					return nil
				}
				return printEntry(c.OutOrStdout(), e, asJSON)
			}
			file := d.File(store.NetLogFile)
			if follow {
				err = egress.FollowLog(c.Context(), file, show)
			} else {
				settleLog(c.Context(), d)
				err = egress.ReadLog(file, show)
			}
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, context.Canceled) || errors.Is(err, egress.ErrLogGone) {
				return nil // there is no more to show
			}
			return err
		},
	}
	c.Flags().StringVar(&name, "name", "", "`NAME` of the sandbox (default: this directory's)")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on as more comes")
	c.Flags().BoolVar(&denied, "denied", false, "only what was denied")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON lines")
	return c
}

// settleLimit is how long the log's last lines are waited for.
const settleLimit = time.Second

// settleLog lets a sandbox that runs write down what it has decided, which may wait
// for the name of a process.
func settleLog(ctx context.Context, d store.Dir) {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	_ = control.NewClient(d).SettleLog(ctx) // one that is stopped has written all
}

func sandboxDir(name string) (store.Dir, error) {
	sandboxes, err := store.Open()
	if err != nil {
		return store.Dir{}, err
	}
	spec, err := lookup(sandboxes, name)
	if err != nil {
		return store.Dir{}, err
	}
	return sandboxes.Dir(spec.Name), nil
}

func printEntry(w io.Writer, e egress.Entry, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(e)
	}
	_, err := fmt.Fprintln(w, e.Text())
	return err
}

func netAskCommand() *cobra.Command {
	var s scope
	c := &cobra.Command{
		Use: "ask", Short: "Be asked about each new denial as it happens",
		Long: `Be asked about each new denial as it happens, until interrupted: allow it until
the sandbox stops (once), for this sandbox (sandbox), for all of yours (always),
or leave it denied. What was denied meanwhile has failed; the command in the
sandbox has to try again.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if !isTerminal(os.Stdin) {
				return errors.New("net ask wants a terminal: unattended, what is denied stays denied")
			}
			_, d, err := s.file()
			if err != nil {
				return err
			}
			if d == nil {
				return errors.New("--all: a log belongs to one sandbox")
			}
			return ask(c.Context(), *d, s.name, os.Stdin, c.OutOrStdout())
		},
	}
	c.Flags().StringVar(&s.name, "name", "", "`NAME` of the sandbox (default: this directory's)")
	return c
}

// ask follows the log from now on and asks about each rule that is missing, once.
func ask(ctx context.Context, d store.Dir, name string, in *os.File, out io.Writer) error {
	began := time.Now()
	person := &typist{tty: in, r: bufio.NewReader(in)}
	asked := map[string]bool{}
	fmt.Fprintln(out, "Waiting for denials. Interrupt with Ctrl-C.")
	err := egress.FollowLog(ctx, d.File(store.NetLogFile), func(e egress.Entry) error {
		if e.Verdict != egress.Denied || e.Suggest == "" || asked[e.Suggest] || e.Time.Before(began) || !e.WantsHost() {
			return nil
		}
		rules, err := d.Rules()
		if err != nil {
			return err
		}
		f, err := missing(e)
		if err != nil || suggestion(f, policy.Compile(rules).Decide(f)) == "" {
			return nil //nolint:nilerr // a rule decides about it since
		}
		asked[e.Suggest] = true
		person.forget() // what was typed before is no answer to this
		fmt.Fprintf(out, "%s\n  allow %s? [o]nce, [s]andbox, [a]lways, [N]o: ", e.Text(), e.Suggest)
		line, err := person.line(ctx)
		if err != nil {
			fmt.Fprintln(out)
			return err
		}
		if err := obey(ctx, d, name, e.Suggest, strings.TrimSpace(line), out); err != nil {
			// The sandbox is gone, say: the next answer may have a better end.
			fmt.Fprintf(out, "  %s\n", visibleText(err.Error()))
		}
		return nil
	})
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, io.EOF):
		return nil
	case errors.Is(err, egress.ErrLogGone):
		fmt.Fprintln(out, "The sandbox was removed.")
		return nil
	}
	return err
}

// typist is a person at a terminal, who is listened to only while a question is
// open.
type typist struct {
	tty *os.File
	r   *bufio.Reader
}

// forget drops what was typed and not read (termios(3), tcflush).
func (p *typist) forget() {
	_, _ = p.r.Discard(p.r.Buffered())
	_ = unix.IoctlSetInt(int(p.tty.Fd()), unix.TCFLSH, unix.TCIFLUSH)
}

// line is what is typed from now on. When ctx ends first, nobody listens any more.
func (p *typist) line(ctx context.Context) (string, error) {
	type read struct {
		text string
		err  error
	}
	c := make(chan read, 1)
	go func() {
		text, err := p.r.ReadString('\n')
		c <- read{text, err}
	}()
	select {
	case r := <-c:
		return r.text, r.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// obey does what was answered, and says what holds now.
func obey(ctx context.Context, d store.Dir, name, rule, answer string, out io.Writer) error {
	var err error
	var holds string
	switch strings.ToLower(answer) {
	case "o", "once":
		holds = "allowed until the sandbox stops"
		err = control.NewClient(d).AllowOnce(ctx, rule)
	case "s", "sandbox":
		holds = "allowed for this sandbox"
		err = (&scope{name: name}).change(ctx, policy.Allow, []string{rule}, false)
	case "a", "always":
		holds = "allowed for all your sandboxes"
		err = (&scope{all: true}).change(ctx, policy.Allow, []string{rule}, false)
	default:
		holds = "stays denied"
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "  %s %s\n", rule, holds)
	return nil
}
