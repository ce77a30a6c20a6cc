package main

import (
	"errors"
	"fmt"

	"bawn.dev/bawn/internal/control"
)

// controlHint is the next step after an error of a supervisor, or empty.
func controlHint(err error) string {
	var e *control.Error
	if !errors.As(err, &e) {
		return ""
	}
	switch e.Reason {
	case control.ReasonVersion:
		return "bawn stop, then the same again"
	case control.ReasonAttached:
		return "the same with --force, which ends them"
	case control.ReasonPortInUse:
		return fmt.Sprintf("another port of the host, with -p HOST:%d", e.Port.Guest)
	case control.ReasonPortPrivileged:
		return fmt.Sprintf("a port of the host above 1023, with -p HOST:%d", e.Port.Guest)
	case control.ReasonPortPublished:
		return fmt.Sprintf("bawn port --remove %d, to close the one that is published", e.Port.Host)
	case control.ReasonPortNotPublished:
		return "bawn port, which lists those that are"
	}
	return ""
}
