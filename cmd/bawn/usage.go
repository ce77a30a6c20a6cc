package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// addUsageHints gives errors about the arguments of a command, and of those below it, a
// text in bawn's style and the next step.
func addUsageHints(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return argumentError(c, args, err)
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		addUsageHints(sub)
	}
}

func argumentError(c *cobra.Command, args []string, err error) error {
	switch {
	case len(args) > 0 && c.HasAvailableSubCommands():
		err = fmt.Errorf("there is no command %q in %s", args[0], c.CommandPath())
		if verb := suggestVerb(c, args[0]); verb != "" {
			return hint(err, "%s %s", c.CommandPath(), verb)
		}
		return hint(err, "%s --help", c.CommandPath())
	case strings.HasPrefix(err.Error(), "requires at least"):
		err = errors.New("an argument is missing")
	case len(args) > 0 && !strings.Contains(c.Use, " "):
		err = fmt.Errorf("%s takes no arguments, but %q was given", c.CommandPath(), args[0])
	default:
		err = fmt.Errorf("%s does not take %s", c.CommandPath(), count(len(args), "argument", "arguments"))
		if len(args) == 0 {
			err = errors.New("an argument is missing")
		}
	}
	return hint(err, "%s", strings.TrimSuffix(c.UseLine(), " [flags]"))
}

// count returns a number with the noun that fits it.
func count(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// flagError returns an error about a flag with the next step. It replaces the texts of
// strconv.
func flagError(c *cobra.Command, err error) error {
	if habit := habitualFlag(c, err); habit != nil {
		return habit
	}
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		want := map[string]string{"int": "a whole number", "bool": "true or false"}[invalid.GetFlag().Value.Type()]
		if want != "" {
			err = fmt.Errorf("--%s %q: must be %s", invalid.GetFlag().Name, invalid.GetValue(), want)
		}
	}
	return hint(err, "%s --help", c.CommandPath())
}

// helpCommand is cobra's help, with an error for a command that does not exist.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Show the help of a command",
		RunE: func(c *cobra.Command, args []string) error {
			at, rest, err := c.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return hint(fmt.Errorf("there is no help about %q", strings.Join(args, " ")), "bawn --help")
			}
			at.InitDefaultHelpFlag() // as it is shown by --help
			return at.Help()
		},
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			at, _, err := c.Root().Find(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, sub := range at.Commands() {
				if sub.IsAvailableCommand() {
					names = append(names, sub.Name()+"\t"+sub.Short)
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
}
