package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/share/guard"
)

// Guarded and hidden paths of a sandbox's shares (package guard).

// FileEvent is a change of a guarded path that a guest asked for.
type FileEvent = guard.Event

// FileEventHeading is a line to print above lines made by FileEvent.Text.
const FileEventHeading = guard.EventHeading

// ReadFilesLog calls each for the changes of guarded paths that a sandbox's guest asked for,
// the oldest first. An error of each ends it and is returned.
func (e *Engine) ReadFilesLog(name string, each func(FileEvent) error) error {
	d, err := e.dirOf(name)
	if err != nil {
		return err
	}
	return guard.ReadEvents(d.File(store.FilesLogFile), each)
}

// FollowFilesLog is ReadFilesLog, and then calls each for new events until ctx ends, when it
// returns nil. If the sandbox is removed it returns NotFound.
func (e *Engine) FollowFilesLog(ctx context.Context, name string, each func(FileEvent) error) error {
	d, err := e.dirOf(name)
	if err != nil {
		return err
	}
	return followedLog(name, guard.FollowEvents(ctx, d.File(store.FilesLogFile), each))
}

// CheckPatterns returns an error for a pattern of guarded or hidden paths that makes no sense.
func CheckPatterns(list []string) error {
	for _, p := range list {
		if err := guard.CheckPattern(p); err != nil {
			return err
		}
	}
	return nil
}

// hiddenShown is how many hidden paths are named at a start.
const hiddenShown = 4

// hiddenListed is how many hidden paths Describe names.
const hiddenListed = 1000

// hidden returns the hidden paths that the spec's project has, from its root.
func hidden(spec *sandbox.Spec, limit int) (list []string, more bool) {
	rules, err := guard.New(guardOptions(spec))
	if err != nil {
		return nil, false // the start fails with it
	}
	return rules.Present(spec.Project.Host, limit)
}

// guardOptions are the patterns of a spec.
func guardOptions(spec *sandbox.Spec) guard.Options {
	p := spec.AllPatterns()
	return guard.Options{Guard: p.Guard, NoGuard: p.NoGuard, Hide: p.Hide, Show: p.Show}
}

// sayHidden reports what of the project the guest does not see.
func (e *Engine) sayHidden(spec *sandbox.Spec) {
	if spec.Builder && spec.Throwaway { // from which all is hidden
		return
	}
	list, more := hidden(spec, hiddenShown)
	if len(list) == 0 {
		return
	}
	text := strings.Join(list, ", ")
	if more {
		text += " and more"
	}
	e.notify(Notice{Reason: PathsHidden, Sandbox: spec.Name, Path: spec.Project.Host, Text: "hidden from the sandbox: " + text})
}

// patternsOf checks patterns that a flag gives; a single empty one is none at all.
func patternsOf(field string, list *[]string) (*[]string, error) {
	if list == nil {
		return nil, nil
	}
	if len(*list) == 1 && (*list)[0] == "" {
		return &[]string{}, nil
	}
	var bad *guard.PatternError
	if err := CheckPatterns(*list); errors.As(err, &bad) {
		return nil, &sandbox.FieldError{Field: field, Problem: fmt.Sprint(bad)}
	}
	all := slices.Clone(*list)
	return &all, nil
}
