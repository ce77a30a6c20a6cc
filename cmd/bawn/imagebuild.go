package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/session"
	"bawn.dev/bawn/internal/sys/text"
)

// buildFlags are the flags of bawn image build.
type buildFlags struct {
	file, target, progress string

	tags, args, secrets, allow, show []string

	noCache bool
}

func imageBuildCommand() *cobra.Command {
	var f buildFlags
	c := &cobra.Command{
		Use: "build [flags] CONTEXT", Short: "Build an image from a Dockerfile, in a machine of its own",
		Long: `Build an image from the Dockerfile of a directory, as docker build does, by BuildKit
in a machine of the directory's own: the builder. It sees the directory read-only,
without hidden files (bawn inspect lists them); .dockerignore applies. It may reach
Docker Hub and the packages of Debian, Ubuntu and Alpine; --allow adds to that, for
later builds too. FROM bawn/default is bawn's own image.

The machine is stopped after the build. Its disk keeps the cache; bawn ls shows it as
build-NAME, and bawn image prune --build-cache removes it. A failed build ends with
the exit status of docker build; 125 is a failure of bawn.`,
		Example: `  bawn image build -t web .
  bawn run --image web -- make test
  bawn image build --allow preset:npm --secret id=token,src=token.txt -t web .`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := f.request(args[0], c.Flags().Changed("show"))
			if err != nil {
				return err
			}
			return build(c.Context(), c.OutOrStdout(), r)
		},
	}
	c.Flags().StringVarP(&f.file, "file", "f", "", "Dockerfile `PATH`, relative to the working directory, or - for standard input (default: CONTEXT/Dockerfile)")
	c.Flags().StringArrayVarP(&f.tags, "tag", "t", nil, "`NAME` of the image, such as web or web:1.2 (default: build/ and the directory's name)")
	c.Flags().StringVar(&f.target, "target", "", "build up to this `STAGE`")
	c.Flags().StringArrayVar(&f.args, "build-arg", nil, "set an argument of the Dockerfile: `NAME[=VALUE]` (repeatable; without a value, that of the environment)")
	c.Flags().StringArrayVar(&f.secrets, "secret", nil, "let the build read a secret: `id=ID[,src=FILE|,env=NAME]` (repeatable)")
	c.Flags().BoolVar(&f.noCache, "no-cache", false, "do not use what earlier builds left")
	c.Flags().StringVar(&f.progress, "progress", "", "how progress is shown: auto, plain or tty (default: auto)")
	c.Flags().StringArrayVar(&f.allow, "allow", nil, "allow the builder to reach `RULE`: HOST[:PORTS], ADDRESS, preset:NAME (repeatable; see bawn policy)")
	c.Flags().StringArrayVar(&f.show, "show", nil, "show hidden paths that match `PATTERN` to the builder (repeatable; '' none)")
	return c
}

// request returns the build that the flags ask for. show means that --show was given.
func (f *buildFlags) request(dir string, show bool) (engine.BuildRequest, error) {
	r := engine.BuildRequest{Context: dir, File: f.file, Stdin: os.Stdin, Target: f.target, NoCache: f.noCache, Progress: f.progress, Allow: f.allow}
	switch {
	case dir == "-" || strings.Contains(dir, "://") || strings.HasPrefix(dir, "git@"):
		return r, hint(fmt.Errorf("the context %q is not a directory", dir), "clone or unpack it, then bawn image build DIRECTORY")
	case len(f.tags) > 1:
		return r, hint(errors.New("an image has one name here, and --tag was given more than once"), "build once more with the other name: the cache makes that quick")
	case len(f.tags) == 1 && f.tags[0] == "":
		return r, errors.New("--tag is empty")
	case !slices.Contains([]string{"", "auto", "plain", "tty"}, f.progress):
		return r, fmt.Errorf("--progress %q: must be auto, plain or tty", f.progress)
	}
	r.Tag = strings.Join(f.tags, "")
	if show {
		r.Show = &f.show
	}
	for _, a := range f.args {
		name, _, set := strings.Cut(a, "=")
		if name == "" {
			return r, fmt.Errorf("--build-arg %q: write NAME=VALUE", a)
		}
		if v, ok := os.LookupEnv(name); !set && ok {
			a = name + "=" + v
		} else if !set {
			continue // docker build leaves it out, too
		}
		r.Args = append(r.Args, a)
	}
	for _, given := range f.secrets {
		s, err := readBuildSecret(given)
		if err != nil {
			return r, fmt.Errorf("--secret %q: %w", given, err)
		}
		if slices.ContainsFunc(r.Secrets, func(o engine.BuildSecret) bool { return o.ID == s.ID }) {
			return r, fmt.Errorf("--secret %q: the ID %s is given twice", given, s.ID)
		}
		r.Secrets = append(r.Secrets, s)
	}
	return r, nil
}

// maxBuildSecret bounds a secret, in bytes, as BuildKit does (docs.docker.com, build secrets).
const maxBuildSecret = 500 << 10

// secretID matches the IDs of secrets.
var secretID = regexp.MustCompile(`^[A-Za-z0-9_.][A-Za-z0-9_.-]*$`)

// readBuildSecret reads the secret that a value of --secret means.
func readBuildSecret(given string) (engine.BuildSecret, error) {
	id, file, env, err := parseBuildSecret(given)
	s := engine.BuildSecret{ID: id}
	switch {
	case err != nil:
		return s, err
	case env != "":
		v, ok := os.LookupEnv(env)
		if !ok {
			return s, fmt.Errorf("the environment has no variable %s", env)
		}
		s.Value = []byte(v)
	default:
		if s.Value, err = readSecretFile(file); err != nil {
			return s, err
		}
	}
	if len(s.Value) > maxBuildSecret {
		return s, fmt.Errorf("it has more than %d bytes", maxBuildSecret)
	}
	return s, nil
}

// parseBuildSecret reads docker build's form of a secret: the fields of a line of CSV. Without a
// source, the secret is the environment variable that is called like the ID, or else that file. Where
// it returns both a file and a variable, the variable counts.
func parseBuildSecret(given string) (id, file, env string, err error) {
	fields, err := csv.NewReader(strings.NewReader(given)).Read()
	if err != nil {
		return "", "", "", errors.New("write id=ID,src=FILE or id=ID,env=NAME")
	}
	for _, field := range fields {
		key, value, _ := strings.Cut(field, "=")
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "id":
			id = value
		case "src", "source":
			file = value
		case "env":
			env = value
		case "type":
			if value != "file" && value != "env" {
				return "", "", "", fmt.Errorf("the type %q is not known: it is file or env", value)
			}
		default:
			return "", "", "", fmt.Errorf("the field %q is not known: write id=ID,src=FILE or id=ID,env=NAME", key)
		}
	}
	if !secretID.MatchString(id) {
		return "", "", "", errors.New("it needs an ID of letters, digits, dots, hyphens and underscores")
	}
	if file == "" && env == "" {
		file = id
		if _, ok := os.LookupEnv(id); ok {
			env = id
		}
	}
	return id, file, env, nil
}

// readSecretFile reads the beginning of a file, enough to see that it is too large.
func readSecretFile(path string) ([]byte, error) {
	e, _, err := openEngine()
	if err != nil {
		return nil, err
	}
	f, err := e.OpenSource(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxBuildSecret+1))
}

// build builds the image and prints its reference and digest.
func build(ctx context.Context, out io.Writer, r engine.BuildRequest) error {
	e, shown, err := openEngine()
	if err != nil {
		return err
	}
	b, err := e.StartBuild(ctx, r)
	if err != nil {
		return err
	}
	defer func() { // no signal may interrupt the end of the machine
		signal.Ignore(os.Interrupt, syscall.SIGHUP, syscall.SIGTERM)
		if cerr := b.Close(); cerr != nil {
			fmt.Fprintln(os.Stderr, "bawn:", message(cerr))
		}
	}()
	if err := runBuild(ctx, shown, b); err != nil {
		return err
	}
	i, err := b.Save(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s\t%s\n", i.Ref, i.Digest)
	return err
}

// runBuild runs the build itself, and returns its exit status as an exitStatus. What it prints
// goes to standard error.
func runBuild(ctx context.Context, shown *bars, b *engine.Build) error {
	env, err := commandEnv(nil)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 16)
	notifyUnlessIgnored(signals, session.Forwarded...)
	defer signal.Stop(signals)
	cmd := session.Command{Stdout: os.Stderr, Stderr: os.Stderr, JobControl: true, Signals: signals, Env: env}
	if isTerminal(os.Stdin) && isTerminal(os.Stderr) {
		cmd.Terminal = &session.Terminal{In: os.Stdin, Out: os.Stderr, Type: os.Getenv("TERM")}
		cmd.Stdin, cmd.Stderr = os.Stdin, nil
		shown.setRaw(true)
		defer shown.setRaw(false)
	}
	exit, err := b.Run(context.WithoutCancel(ctx), cmd)
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case exit.Status == 0:
		return nil
	}
	shown.around(func() { fmt.Fprint(os.Stderr, deniedWords(b.Builder(), b.Denied(ctx))) })
	return exitStatus(exit.Status)
}

// deniedWords returns what a failed build was denied, and the next step, or "" for nothing.
func deniedWords(builder string, rules []string) string {
	if len(rules) == 0 {
		return ""
	}
	step := "bawn image build"
	for _, r := range rules {
		step += " --allow " + pathArgument(r)
	}
	return fmt.Sprintf("bawn: the build was denied %s (bawn net log --denied --name %s)\n  try: %s\n", text.Line(strings.Join(rules, ", ")), builder, text.Line(step))
}
