package engine

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/lockfile"
)

// ruleLines are the lines of a file of rules: rules, comments and empty lines. Changes keep
// every line that is not the rule in question.
type ruleLines []string

// canonicalLine returns the rule of a line in its canonical form, without its comment. A line
// that is no rule is returned as it is.
func canonicalLine(line string) string {
	code, _, _ := strings.Cut(line, "#")
	words := strings.Fields(code)
	if len(words) < 2 {
		return line
	}
	for _, a := range []policy.Action{policy.Allow, policy.Deny} {
		if words[0] != a.String() {
			continue
		}
		if text, err := policy.Canonical(a, strings.Join(words[1:], " ")); err == nil {
			return a.String() + " " + text
		}
	}
	return line
}

// has reports whether a rule, in its canonical form, is among the lines.
func (l ruleLines) has(rule string) bool {
	return slices.ContainsFunc(l, func(line string) bool { return canonicalLine(line) == rule })
}

// add appends the rules that are not there yet.
func (l ruleLines) add(rules []string) ruleLines {
	for _, r := range rules {
		if !l.has(r) {
			l = append(l, r)
		}
	}
	return l
}

// remove deletes the lines with the rules.
func (l ruleLines) remove(rules []string) ruleLines {
	return slices.DeleteFunc(l, func(line string) bool { return slices.Contains(rules, canonicalLine(line)) })
}

// editRules changes a file of rules. Changes by several processes follow one another: a
// lock beside the file orders them. If the result does not parse, the file stays as it was
// and the error is a policy.SyntaxError. A symbolic link stays, and the file that it leads to
// is changed.
func editRules(ctx context.Context, file string, edit func(ruleLines) (ruleLines, error)) error {
	return withRulesLocked(ctx, file, func() error {
		lines, err := readLines(file)
		if err != nil {
			return err
		}
		if lines, err = edit(lines); err != nil {
			return err
		}
		text := []byte(strings.Join(lines, "\n") + "\n")
		if _, err := policy.ParseFile(file, text); err != nil {
			return err
		}
		return store.WriteRules(file, text)
	})
}

// removeRules removes a file of rules, and not in the middle of a change.
func removeRules(ctx context.Context, file string) error {
	return withRulesLocked(ctx, file, func() error { return store.RemoveRules(file) })
}

// withRulesLocked calls f while nobody else changes the file. Its folder is made.
func withRulesLocked(ctx context.Context, file string, f func() error) error {
	if err := store.MakeRulesFolder(file); err != nil {
		return err
	}
	l, err := lockfile.Acquire(ctx, file+".lock")
	if err != nil {
		return err
	}
	defer l.Close()
	return f()
}

// readLines reads a file's lines; one that does not exist has none.
func readLines(file string) (ruleLines, error) {
	b, err := store.ReadRules(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil || len(b) == 0 {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n"), nil
}
