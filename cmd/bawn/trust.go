package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/project"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/size"
	"bawn.dev/bawn/internal/sys/text"
)

func trustCommand() *cobra.Command {
	var how trustFlags
	var forget, schema bool
	var devcontainer string
	var envFiles []string
	c := &cobra.Command{
		Use:   "trust [DIRECTORY]",
		Short: "Show what a project's bawn.yaml or devcontainer.json asks for, and approve it",
		Long: `Show what a project's bawn.yaml, or with --devcontainer its devcontainer.json, asks
for, and approve it. The file is only a proposal, because the guest can write to it:
nothing in it takes effect until you approve it, and you must approve every later change,
even its removal. After a change, bawn shows the difference. It keeps the approved text
outside every shared directory.

Rules take effect at once, all other settings at the next start of the sandbox. A rule
that opens services of the host is confirmed twice; --yes needs --allow-host for it. With
--show, the exit status is 0 if there is nothing to approve, and 1 otherwise.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if schema {
				_, err := c.OutOrStdout().Write(project.Schema)
				return err
			}
			e, _, err := openEngine()
			if err != nil {
				return err
			}
			dir, err := trustedDirectory(e, args)
			if err != nil {
				return err
			}
			if c.Flags().Changed(devcontainerFlag) {
				if forget {
					return forgetDevcontainer(e, dir, devcontainer)
				}
				return how.devcontainer(c, e, dir, devcontainer, envFiles)
			}
			if len(envFiles) > 0 {
				return hint(errors.New("--env-file is for the compose files of a devcontainer.json"), "bawn trust --devcontainer --env-file FILE")
			}
			if forget {
				return e.Forget(c.Context(), dir)
			}
			return how.trust(c, e, func() (*project.Check, error) { return e.CheckProject(dir) })
		},
	}
	c.Flags().BoolVarP(&how.yes, "yes", "y", false, "approve without asking")
	c.Flags().BoolVar(&how.allowHost, "allow-host", false, "with --yes: approve also rules that open services of the host")
	c.Flags().BoolVar(&how.show, "show", false, "only show the file and whether it is approved")
	c.Flags().BoolVar(&forget, "forget", false, "withdraw the approval")
	c.Flags().BoolVar(&how.asJSON, "json", false, "print JSON")
	registerDevcontainer(c.Flags(), &devcontainer, "the project's devcontainer.json, or the one at `PATH`, in place of bawn.yaml")
	c.Flags().StringArrayVar(&envFiles, "env-file", nil, "with --devcontainer: let its compose files have the values of the variables that they name from `FILE` (.env), though the sandbox does not see it")
	c.Flags().BoolVar(&schema, "schema", false, "print the JSON Schema of bawn.yaml")
	c.MarkFlagsMutuallyExclusive("yes", "show", "forget", "schema")
	return c
}

// forgetDevcontainer withdraws the approval of a devcontainer.json.
func forgetDevcontainer(e *engine.Engine, dir, path string) error {
	name, err := trustedDevcontainer(dir, path)
	if err != nil {
		return err
	}
	return e.ForgetDevcontainer(dir, name)
}

// devcontainer shows a devcontainer.json and approves it, with values from files of variables.
func (f trustFlags) devcontainer(c *cobra.Command, e *engine.Engine, dir, path string, envFiles []string) error {
	name, err := trustedDevcontainer(dir, path)
	if err != nil {
		return err
	}
	within, err := inProject(dir, envFiles)
	if err != nil {
		return err
	}
	return f.trust(c, e, func() (*project.Check, error) { return e.CheckDevcontainer(dir, name, within...) })
}

// inProject returns the paths of files of the project, relative to its directory.
func inProject(dir string, files []string) (list []string, err error) {
	for _, f := range files {
		rel, err := engine.DevcontainerPath(dir, f)
		if err != nil {
			return nil, err
		}
		list = append(list, rel)
	}
	return list, nil
}

// trustFlags say how bawn trust shows a file and decides about it.
type trustFlags struct{ yes, allowHost, show, asJSON bool }

// trust shows a file of a project that look checks. Unless f.show is set, it then approves the file as decide
// does; otherwise a file that is not approved is exit status 1.
func (f trustFlags) trust(c *cobra.Command, e *engine.Engine, look func() (*project.Check, error)) error {
	check, err := look()
	if err == nil && f.yes {
		err = e.FetchFeatures(c.Context(), check)
	}
	if err != nil {
		return err
	}
	if err := printCheck(c.OutOrStdout(), check, f.asJSON); err != nil {
		return err
	}
	if !f.show {
		return decide(c.Context(), e, check, f.yes, f.allowHost)
	}
	if !check.Settled() {
		return exitStatus(1)
	}
	return nil
}

// trustedDirectory returns the directory in args, or else the project directory of the sandbox
// that bawn run would use here.
func trustedDirectory(e *engine.Engine, args []string) (string, error) {
	if len(args) == 1 {
		return projectDir(args[0])
	}
	dir, err := projectDir("")
	if err != nil {
		return "", err
	}
	if spec, err := e.Find(dir); err == nil {
		return spec.Dir, nil
	}
	return dir, nil
}

// decide approves the proposal after asking, or without asking if yes is set. Without a
// question, services of the host are opened only if allowHost is set too.
func decide(ctx context.Context, e *engine.Engine, c *project.Check, yes, allowHost bool) error {
	arguments, without := trustArguments(c.Dir, otherFile(c)), "--no-project-file"
	if otherFile(c) != nil {
		without = "--devcontainer="
	}
	for _, f := range c.EnvFiles {
		arguments = "--env-file " + pathArgument(filepath.Join(c.Dir, f)) + " " + arguments
	}
	switch {
	case c.Settled():
		return nil
	case c.Err != nil: // which was shown
		return hint(errors.New("not approved: the file has mistakes"), "correct the file; until then, bawn run %s ignores it", without)
	case yes && !allowHost && opensHost(c):
		return hint(errors.New("not approved: the file opens services of the host, which --yes alone does not approve"), "bawn trust --yes --allow-host %s approves that too", arguments)
	case yes:
	case !attended():
		return hint(errors.New("not approved: there is no terminal to ask at"), "bawn trust --yes %s approves without asking", arguments)
	default:
		if yes, err := agreed(ctx, e, c); err != nil {
			return err
		} else if !yes {
			fmt.Fprintln(os.Stderr, "bawn: not approved; nothing was changed")
			return exitStatus(1)
		}
	}
	return e.Approve(ctx, c)
}

// agreed asks the user about what was shown: once, and a second time if it opens services of
// the host. Features are fetched first, if the user agrees to that, and shown.
func agreed(ctx context.Context, e *engine.Engine, c *project.Check) (bool, error) {
	if len(c.Unfetched) > 0 {
		if !askYes("Fetch these features, to see what they ask for: " + text.Line(strings.Join(c.Unfetched, ", ")) + "?") {
			return false, nil
		}
		if err := e.FetchFeatures(ctx, c); err != nil {
			return false, err
		}
		showCheck(os.Stderr, c)
		if c.Err != nil {
			return false, c.Err
		}
	}
	return askYes(trustQuestion(c)) && (!opensHost(c) || askWord("This opens SERVICES OF THE HOST to the guest.", hostWord)), nil
}

// hostWord is what the user types to confirm that services of the host are opened.
const hostWord = "host"

// opensHost reports whether a proposal opens services of the host.
func opensHost(c *project.Check) bool {
	return c.Proposal != nil && slices.ContainsFunc(allowed(c.Proposal), func(r string) bool {
		x, err := engine.ExposureOf(r)
		return err != nil || x.Severity() == policy.OpensHost
	})
}

// allowed returns all rules of a proposal that allow: those of the sandbox and those of its build.
func allowed(p *project.Proposal) []string {
	if p.Build == nil {
		return p.Allow
	}
	return slices.Concat(p.Allow, p.Build.Allow)
}

// askApproval shows a bawn.yaml that is not approved and asks about it. It returns nil
// if it is approved now, and the engine's error if not.
func askApproval(ctx context.Context, e *engine.Engine, notApproved error) error {
	c := engine.As(notApproved).Check
	if !attended() {
		return notApproved
	}
	showCheck(os.Stderr, c)
	switch yes, err := agreed(ctx, e, c); {
	case err != nil:
		return err
	case !yes:
		return notApproved
	}
	return e.Approve(ctx, c)
}

func trustQuestion(c *project.Check) string {
	if c.Status == project.Removed {
		return "Continue without the file?"
	}
	return "Approve this?"
}

func printCheck(w io.Writer, c *project.Check, asJSON bool) error {
	if !asJSON {
		showCheck(w, c)
		return nil
	}
	v := struct {
		Directory string            `json:"directory"`
		File      string            `json:"file"`
		Status    project.Status    `json:"status"`
		Problem   string            `json:"problem,omitempty"`
		Proposal  *project.Proposal `json:"proposal,omitempty"`
		Opens     []string          `json:"opens,omitempty"` // what needs attention
		Unfetched []string          `json:"unfetched,omitempty"`
		Others    []string          `json:"othersChanged,omitempty"`
		Text      string            `json:"text,omitempty"`
		Approved  string            `json:"approvedText,omitempty"`
	}{Directory: c.Dir, File: c.File(), Status: c.Status, Proposal: c.Proposal, Text: string(c.Text), Approved: string(c.Approved), Unfetched: c.Unfetched, Others: c.Others}
	if c.Err != nil {
		v.Problem = c.Err.Error()
	}
	if c.Proposal != nil {
		for _, r := range allowed(c.Proposal) {
			if x, err := engine.ExposureOf(r); err == nil && x.Opens != "" {
				v.Opens = append(v.Opens, x.Text)
			}
		}
	}
	return printJSON(w, v)
}

// showCheck shows the user the file, or what has changed in it, and what it
// asks for in plain words. No byte of it reaches the terminal as it is.
func showCheck(w io.Writer, c *project.Check) {
	file := text.Line(c.File())
	switch c.Status {
	case project.None:
		fmt.Fprintf(w, "%s does not exist, and no earlier one is approved\n", file)
		return
	case project.New, project.Approved:
		word := "is not approved"
		if c.Status == project.Approved {
			word = "is approved"
		}
		fmt.Fprintf(w, "%s %s. It says:\n\n", file, word)
		for _, l := range splitLines(c.Text) {
			fmt.Fprintf(w, "  | %s\n", text.Line(l))
		}
	case project.Changed, project.Removed:
		word := "has changed since you approved it:"
		switch {
		case c.Status == project.Removed:
			word = "was removed since you approved it:"
		case len(c.Others) > 0:
			word = "is as you approved it, but since then this has changed: " + text.Line(strings.Join(c.Others, ", "))
		case len(c.EnvFiles) > 0 && string(c.Approved) == string(c.Text):
			word = "is as you approved it, but would get more of " + text.Line(strings.Join(c.EnvFiles, ", ")) + ":"
		}
		fmt.Fprintf(w, "%s %s\n\n", file, word)
		for _, l := range diffLines(c.Approved, c.Text) {
			fmt.Fprintf(w, "  %c %s\n", l.sign, text.Line(l.text))
		}
	}
	fmt.Fprintln(w)
	if c.Err != nil {
		for l := range strings.Lines(c.Err.Error()) {
			fmt.Fprintf(w, "It cannot be used: %s\n", text.Line(strings.TrimSuffix(l, "\n")))
		}
		return
	}
	if c.Proposal != nil {
		fmt.Fprintln(w, "It asks for:")
		for _, l := range plainWords(c.Dir, c.Proposal) {
			fmt.Fprintf(w, "  %s\n", text.Line(l))
		}
		fmt.Fprintln(w)
	}
}

// secretWords tells of each secret that a project names to which hosts the person has bound it.
func secretWords(dir string, names []string) (list []string) {
	set, err := engine.NamedSecrets(dir, names)
	if err != nil {
		return []string{"the secrets " + strings.Join(names, ", ") + ", of which it cannot be read whether they are set: " + err.Error()}
	}
	for _, s := range set {
		words := "the secret " + s.Name + ", which you have not set: " + setSecretCommand(s.Name)
		if len(s.For) > 0 {
			var hosts []string
			for _, h := range s.For {
				hosts = append(hosts, h.String())
			}
			words = "the secret " + s.Name + ", which you have set for " + strings.Join(hosts, ", ") + " only"
		}
		list = append(list, words)
	}
	return list
}

// plainWords lists what a proposal asks for.
func plainWords(dir string, p *project.Proposal) []string {
	var list []string
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if p.Image != "" {
		add("the image %s", p.Image)
	}
	list = append(list, buildWords(p.Build)...)
	if p.CPUs != 0 {
		add("%d virtual CPUs", p.CPUs)
	}
	if p.Memory != 0 {
		add("%s of memory", size.Format(p.Memory))
	}
	if p.Disk != 0 {
		add("a disk of up to %s", size.Format(p.Disk))
	}
	list = append(list, mountWords(dir, p)...)
	for _, d := range p.LocalDirs {
		add("%s of the project is on the sandbox's own disk, where the host does not see it", d)
	}
	for _, c := range p.Caches {
		add("packages of %s that its lock files name are fetched by the host and shared with your other sandboxes", c)
	}
	for _, v := range p.Volumes {
		may := "read and change"
		if v.ReadOnly() {
			may = "read"
		}
		add("the guest may %s your volume %s, which other sandboxes may use too, at %s", may, v.Name, v.Guest)
	}
	for _, port := range p.Ports {
		host := fmt.Sprintf("port %d of the host (127.0.0.1)", port.Host)
		if port.Host == 0 {
			host = "a free port of the host (127.0.0.1)"
		}
		add("%s leads to the guest's port %d", host, port.Guest)
	}
	for _, r := range p.Allow {
		add("the guest may reach %s", exposureText(r))
	}
	for _, r := range p.Deny {
		add("the guest must not reach %s", r)
	}
	list = append(list, setupWords(p.Setup)...)
	list = append(list, secretWords(dir, p.Secrets)...)
	for _, g := range p.Guard {
		add("the guest must not change on the host what matches %s", g)
	}
	for _, h := range p.Hide {
		add("the guest does not see what matches %s", h)
	}
	if len(list) == 0 {
		add("nothing")
	}
	return list
}

// exposureText returns what a rule that was parsed before opens, in plain words.
func exposureText(rule string) string {
	x, err := engine.ExposureOf(rule)
	if err != nil { // cannot be
		return rule
	}
	return x.Text
}

// buildWords lists what the build of an image asks for; nil asks for nothing.
func buildWords(b *project.Build) (list []string) {
	if b == nil {
		return nil
	}
	what := "an image that is built from " + b.Dockerfile()
	if b.Target != "" {
		what += ", up to the stage " + b.Target
	}
	list = append(list, fmt.Sprintf("%s, in a machine of its own that reads the project (context: %s), without hidden files, and may reach %s", what, b.Context, strings.Join(engine.BuildRules, ", ")))
	list = append(list, "what "+b.Dockerfile()+" and the files that it copies say is NOT part of the approval: the guest may change them, and so what the build does and sends to these hosts")
	for _, a := range b.Args {
		list = append(list, "the argument "+a+" for the build")
	}
	for _, r := range b.Allow {
		list = append(list, "the build may reach "+exposureText(r))
	}
	return list
}

// mountWords lists the files of the host that the guest would get, with those outside the
// project in capitals.
func mountWords(dir string, p *project.Proposal) []string {
	mounts, err := p.Resolve(dir)
	if err != nil {
		return []string{fmt.Sprintf("a mount that will be refused: %v", err)}
	}
	var list []string
	for _, m := range mounts {
		may := "read and CHANGE"
		if m.ReadOnly() {
			may = "read"
		}
		where := "in the project"
		if !sandbox.Beneath(dir, m.Host) {
			where = "OUTSIDE THE PROJECT"
		}
		s := fmt.Sprintf("the guest may %s %s, which is %s", may, m.Host, where)
		if m.Guest != m.Host {
			s += ", at " + m.Guest
		}
		list = append(list, s)
	}
	return list
}
