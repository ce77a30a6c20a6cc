package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/secret"
	"bawn.dev/bawn/internal/sys/text"
)

func secretCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "secret", Short: "Keep API keys and tokens on the host, and put them into a sandbox's requests",
		Long: `Keep API keys and tokens on the host. The guest has a placeholder in $NAME; bawn
replaces it by the secret in requests over TLS to the hosts that the secret is for,
and refuses it everywhere else on these hosts. For that bawn ends TLS to these hosts
and speaks to them anew; connections to other hosts stay end to end. The guest trusts
bawn's certificate from the next boot of the sandbox on.

A secret is for the sandboxes of this directory, or with --all for all of yours.`,
		Example: `  bawn secret set ANTHROPIC_API_KEY --for api.anthropic.com --from-env ANTHROPIC_API_KEY
  bawn secret set GH_TOKEN --for api.github.com,github.com --command 'gh auth token'
  bawn secret set AWS --aws --for BUCKET.s3.REGION.amazonaws.com --command 'aws configure export-credentials'
  bawn secret ls`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(secretSetCommand(), secretLsCommand(), secretRmCommand(), secretCheckCommand())
	return c
}

// setSecretCommand returns the command that sets a secret of a project.
func setSecretCommand(name string) string {
	if len(secret.KnownHosts(name)) > 0 {
		return "bawn secret set " + name
	}
	return "bawn secret set " + name + " --for HOST"
}

// secretScope is the flag that selects the secrets of this directory or those for all.
type secretScope struct{ all bool }

func (s *secretScope) register(c *cobra.Command) {
	c.Flags().BoolVar(&s.all, "all", false, "the secret is for all your sandboxes, not for those of this directory")
}

// dir opens the engine and returns the project directory; empty for all.
func (s *secretScope) dir() (*engine.Engine, string, error) {
	e, _, err := openEngine()
	if err != nil || s.all {
		return e, "", err
	}
	here, err := projectDir("")
	if err != nil {
		return nil, "", err
	}
	dir, err := e.SecretDir(here)
	return e, dir, err
}

// secretFlags are those of bawn secret set.
type secretFlags struct {
	secretScope
	hosts                      []string
	fromEnv, command, file     string
	header, basic, query       string
	bearer, body, otherAllowed bool
	aws                        bool
	region, service            string
}

func secretSetCommand() *cobra.Command {
	var f secretFlags
	c := &cobra.Command{
		Use: "set NAME", Short: "Add a secret, or replace it",
		Long: `Add a secret, or replace the one of that name. The value is read from standard
input, a variable, a file, or the command's output when it is needed. It is kept in
the desktop's keyring where there is one, otherwise in a file of mode 0600. For some
well-known names (ANTHROPIC_API_KEY, OPENAI_API_KEY, GEMINI_API_KEY, GH_TOKEN) bawn
knows the hosts.

Without a flag for the place, the secret is put into the header for credentials in
which the placeholder is (Authorization in all its schemes, X-Api-Key and the like).

With --aws the secret is a pair of keys of AWS, or of a service that takes the same
signatures. The value is the access key ID, the secret access key and, if there is
one, the session token, one a line, or JSON as "aws configure export-credentials"
prints it; with --from-env AWS it is in AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
AWS_SESSION_TOKEN. The guest has placeholders in NAME_ACCESS_KEY_ID and so on, so use
the name AWS; it signs with these, and bawn signs each request anew.`,
		Example: `  bawn secret set ANTHROPIC_API_KEY < key
  bawn secret set GH_TOKEN --for api.github.com,github.com --command 'gh auth token'
  bawn secret set MAPS_KEY --for maps.example.org --query key`,
		Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error { return f.set(c, args[0]) },
	}
	f.register(c)
	c.Flags().StringSliceVar(&f.hosts, "for", nil, "`HOST[:PORT]` that the secret is for (several: commas, or the flag again)")
	c.Flags().StringVar(&f.fromEnv, "from-env", "", "take the value of this variable (`VAR`) now")
	c.Flags().StringVar(&f.command, "command", "", "run this `COMMAND` (sh) on the host when the value is needed; its output is used for five minutes")
	c.Flags().StringVar(&f.file, "file", "", "take the contents of this `FILE` now")
	c.Flags().StringVar(&f.header, "header", "", "put the secret into the header `NAME`")
	c.Flags().BoolVar(&f.bearer, "bearer", false, "put the secret into Authorization: Bearer")
	c.Flags().StringVar(&f.basic, "basic", "", "put the secret into Authorization: Basic as the password of `USER`")
	c.Flags().StringVar(&f.query, "query", "", "put the secret into the field `NAME` of the URL's query")
	c.Flags().BoolVar(&f.body, "body", false, "put the secret into the body (1 MiB at most)")
	c.Flags().BoolVar(&f.aws, "aws", false, "the secret is a pair of keys that signs requests (AWS Signature Version 4)")
	c.Flags().StringVar(&f.region, "region", "", "with --aws: sign for this `REGION` only")
	c.Flags().StringVar(&f.service, "service", "", "with --aws: sign for this `SERVICE` only, such as s3")
	c.Flags().BoolVar(&f.otherAllowed, "other-credentials", false, "let requests to these hosts carry credentials of the guest's too")
	c.MarkFlagsMutuallyExclusive("from-env", "command", "file")
	c.MarkFlagsMutuallyExclusive("header", "bearer", "basic", "query", "body", "aws")
	return c
}

// set does the work of bawn secret set.
func (f *secretFlags) set(c *cobra.Command, name string) error {
	if !f.aws && (f.region != "" || f.service != "") {
		return errors.New("--region and --service belong to --aws")
	}
	s := secret.Secret{Name: name, Place: f.place(c), Command: f.command, OtherCredentials: f.otherAllowed, Keeper: secret.File}
	if f.command != "" {
		s.Keeper = secret.Command
	} else if c.Flags().Changed("command") {
		return errors.New("--command is empty")
	}
	if len(f.hosts) == 0 {
		f.hosts = secret.KnownHosts(name)
	}
	if len(f.hosts) == 0 {
		return hint(fmt.Errorf("the secret %s has no host: bawn puts it only into requests to hosts that you name", text.Line(name)), "bawn secret set %s --for api.example.org", name)
	}
	for _, h := range f.hosts {
		host, err := secret.ParseHost(h)
		if err != nil {
			return fmt.Errorf("--for %w", err)
		}
		s.For = append(s.For, host)
	}
	if err := s.Check(); err != nil { // before the value is asked for
		return err
	}
	e, dir, err := f.dir()
	if err != nil {
		return err
	}
	s.Dir = dir
	value, err := f.value(c)
	if err != nil {
		return err
	}
	if s, err = e.SetSecret(c.Context(), s, value); err != nil {
		return err
	}
	fmt.Fprintf(c.ErrOrStderr(), "bawn: %s is put into requests to %s (%s); %s. A sandbox that was started before the first secret was set trusts bawn's certificate after bawn stop\n",
		s.Name, hostList(s.For), s.Place, keptIn(s.Keeper))
	return nil
}

// place returns the place that the flags name.
func (f *secretFlags) place(c *cobra.Command) secret.Place {
	switch {
	case c.Flags().Changed("header"):
		return secret.Place{Where: secret.InHeader, Arg: f.header}
	case f.bearer:
		return secret.Place{Where: secret.InBearer}
	case c.Flags().Changed("basic"):
		return secret.Place{Where: secret.InBasic, Arg: f.basic}
	case c.Flags().Changed("query"):
		return secret.Place{Where: secret.InQuery, Arg: f.query}
	case f.body:
		return secret.Place{Where: secret.InBody}
	case f.aws:
		return secret.Place{Where: secret.InSignature, Region: f.region, Service: f.service}
	}
	return secret.Place{}
}

// value reads the value from where the flags say, without the end of the last line.
func (f *secretFlags) value(c *cobra.Command) (string, error) {
	var b []byte
	var err error
	switch {
	case f.command != "":
		return "", nil
	case f.aws && f.fromEnv != "":
		return keyPairEnv(f.fromEnv)
	case f.aws && f.file == "" && isTerminal(os.Stdin):
		return askKeyPair(c)
	case f.fromEnv != "":
		v, ok := os.LookupEnv(f.fromEnv)
		if !ok {
			return "", fmt.Errorf("--from-env: the variable %s is not set", text.Line(f.fromEnv))
		}
		b = []byte(v)
	case f.file != "":
		var file *os.File
		if file, err = os.Open(f.file); err == nil {
			b, err = io.ReadAll(io.LimitReader(file, secret.MaxValue+3))
			file.Close()
		}
	case isTerminal(os.Stdin):
		fmt.Fprint(c.ErrOrStderr(), "Value (it is not shown): ")
		b, err = term.ReadPassword(int(os.Stdin.Fd()))
		fmt.Fprintln(c.ErrOrStderr())
	default:
		b, err = io.ReadAll(io.LimitReader(c.InOrStdin(), secret.MaxValue+3))
	}
	if err != nil {
		return "", fmt.Errorf("read the value: %w", err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// keyPairEnv returns a pair of keys, one a line, from variables that begin with that name.
func keyPairEnv(name string) (string, error) {
	var lines []string
	for _, end := range []string{"_ACCESS_KEY_ID", "_SECRET_ACCESS_KEY"} {
		v := os.Getenv(name + end)
		if v == "" {
			return "", fmt.Errorf("--from-env: the variable %s is not set", text.Line(name+end))
		}
		lines = append(lines, v)
	}
	if v := os.Getenv(name + "_SESSION_TOKEN"); v != "" {
		lines = append(lines, v)
	}
	return strings.Join(lines, "\n"), nil
}

// askKeyPair asks for a pair of keys on the terminal.
func askKeyPair(c *cobra.Command) (string, error) {
	var lines []string
	for _, what := range []string{"Access key ID", "Secret access key", "Session token (empty: none)"} {
		fmt.Fprintf(c.ErrOrStderr(), "%s (it is not shown): ", what)
		b, err := term.ReadPassword(int(os.Stdin.Fd()))
		fmt.Fprintln(c.ErrOrStderr())
		if err != nil {
			return "", fmt.Errorf("read the value: %w", err)
		}
		lines = append(lines, strings.TrimSpace(string(b)))
	}
	return strings.TrimSpace(strings.Join(lines, "\n")), nil
}

func hostList(hosts []secret.Host) string {
	var list []string
	for _, h := range hosts {
		list = append(list, h.String())
	}
	return strings.Join(list, ",")
}

// keptIn says where a value is.
func keptIn(k secret.Keeper) string {
	switch k {
	case secret.Keyring:
		return "its value is in the keyring"
	case secret.Command:
		return "its value is asked of the command when it is needed"
	}
	return "its value is in a file that only you can read"
}

func secretLsCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "ls", Short: "List the secrets, without their values", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			e, _, err := openEngine()
			if err != nil {
				return err
			}
			list, err := e.Secrets()
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), append([]secret.Secret{}, list...))
			}
			tw := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 3, ' ', 0)
			fmt.Fprintln(tw, "NAME\tHOSTS\tPLACE\tVALUE IN\tDIRECTORY")
			for _, s := range list {
				dir := s.Dir
				if dir == "" {
					dir = "all"
				}
				fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", s.Name, hostList(s.For), text.Line(s.Place.String()), s.Keeper, text.Line(dir))
			}
			return tw.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func secretRmCommand() *cobra.Command {
	var s secretScope
	c := &cobra.Command{
		Use: "rm NAME...", Short: "Remove secrets and their values", Args: cobra.MinimumNArgs(1), ValidArgsFunction: completeSecrets,
		RunE: func(c *cobra.Command, args []string) error {
			e, dir, err := s.dir()
			if err != nil {
				return err
			}
			for _, name := range args {
				if err := e.RemoveSecret(c.Context(), name, dir); err != nil {
					return err
				}
			}
			return nil
		},
	}
	s.register(c)
	return c
}

func secretCheckCommand() *cobra.Command {
	var s secretScope
	c := &cobra.Command{
		Use: "check NAME", Short: "Show where a secret would be put in, and whether its value can be had",
		Args: cobra.ExactArgs(1), ValidArgsFunction: completeSecrets,
		RunE: func(c *cobra.Command, args []string) error {
			e, dir, err := s.dir()
			if err != nil {
				return err
			}
			k, err := e.CheckSecret(c.Context(), args[0], dir)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s: into %s of requests to %s\n", k.Name, text.Line(k.Place.String()), hostList(k.For))
			for _, h := range k.Denied {
				fmt.Fprintf(c.OutOrStdout(), "%s: no rule allows it (bawn policy allow %s:%d)\n", h, h.Name, h.Port)
			}
			if k.Unavailable != nil {
				return k.Unavailable
			}
			fmt.Fprintln(c.OutOrStdout(), "its value is available")
			return nil
		},
	}
	s.register(c)
	return c
}

// completeSecrets completes names of secrets.
func completeSecrets(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	e, _, err := openEngine()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	list, err := e.Secrets()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, s := range list {
		names = append(names, s.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
