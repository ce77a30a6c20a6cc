package apibody

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
)

// gitLabFields are those of an issue, a merge request or a comment that may be written. Not among them is what
// names another project or group (target_project_id, epic_id) or acts at once (merge_after).
var gitLabFields = []string{
	"add_labels", "assignee_id", "assignee_ids", "body", "commit_id", "confidential", "description", "discussion_locked", "due_date", "internal", "issue_type",
	"labels", "milestone_id", "position", "remove_labels", "remove_source_branch", "resolved", "reviewer_ids", "source_branch", "squash", "state_event",
	"target_branch", "title", "weight",
}

// GitLab returns why what is written about an issue or merge request of GitLab must not pass; nil: it may. No
// body at all may.
//
// A line of a text that begins with a slash and a word is a command there (a quick action): /move and /clone
// carry an issue to another project, /merge merges. So none passes, not even where GitLab would not obey it,
// in a block of code.
func GitLab(body []byte) error {
	if len(body) == 0 {
		return nil
	}
	o, err := object(body)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(o)) {
		if !slices.Contains(gitLabFields, name) {
			return fmt.Errorf("the field %s is not one that may be written: those are %s", short(name), strings.Join(gitLabFields, ", "))
		}
	}
	return checkCommands(o)
}

// checkCommands looks for commands in every string.
func checkCommands(v any) error {
	var list []any
	switch v := v.(type) {
	case string:
		if line := command(v); line != "" {
			return fmt.Errorf("the line %s is a quick action of GitLab, which may act on other projects or merge: leave it out, or put something before the slash", short(line))
		}
	case []any:
		list = v
	case map[string]any:
		list = slices.Collect(maps.Values(v))
	}
	for _, one := range list {
		if err := checkCommands(one); err != nil {
			return err
		}
	}
	return nil
}

// command returns the first line that GitLab could take for a command; empty if there is none. GitLab takes
// carriage returns out of a text before it looks, and compares words in any case.
func command(text string) string {
	text = strings.ReplaceAll(text, "\r", "")
	for line := range strings.FieldsFuncSeq(text, func(c rune) bool { return strings.ContainsRune("\n\v\f\u0085\u2028\u2029", c) }) {
		rest, ok := strings.CutPrefix(strings.TrimLeftFunc(line, isBlank), "/")
		if !ok {
			continue
		}
		word := strings.TrimLeftFunc(rest, isWord)
		if len(word) < len(rest) && (word == "" || isBlank([]rune(word)[0])) {
			return line
		}
	}
	return ""
}

// isBlank reports whether a character shows nothing.
func isBlank(c rune) bool { return unicode.IsSpace(c) || !unicode.IsGraphic(c) }

// isWord reports whether a character may be part of a command's name.
func isWord(c rune) bool {
	return c == '_' || unicode.IsLetter(c) || unicode.IsDigit(c) || unicode.IsMark(c)
}
