// Package proctest makes directories of a test ones that guests can write to.
package proctest

import (
	"testing"

	"bawn.dev/bawn/internal/sys/fileid"
	"bawn.dev/bawn/internal/sys/proc"
)

// Share makes directories the only ones that guests can write to, until the test ends (proc.Distrust). Each is
// found anew at each question.
func Share(t testing.TB, dirs ...string) {
	t.Helper()
	t.Cleanup(func() { proc.Distrust(nil) })
	proc.Distrust(func() (list []proc.Writable, err error) {
		for _, dir := range dirs {
			id, err := fileid.Of(dir)
			if err != nil {
				return nil, err
			}
			list = append(list, proc.Writable{ID: id, Why: "a guest can write to " + dir})
		}
		return list, nil
	})
}
