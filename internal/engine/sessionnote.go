package engine

import (
	"os"
	"time"

	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/share/guard"
	"bawn.dev/bawn/internal/share/versions"
	"bawn.dev/bawn/internal/undo"
)

// Outcome counts what a person may want to review after a session.
type Outcome struct {
	Runs    int  // paths that the host may run or trust
	More    bool // there were too many changes to count them all
	Kept    int  // guarded paths of which the guest has changed its version
	Refused int  // changes that were refused
}

// outcomeMost is how many changed paths Outcome looks at: it must not delay the end of a session.
const outcomeMost = 2000

// Outcome returns what happened since the session began, also by other sessions of its sandbox. It
// reads no file of the project. What cannot be read counts as nothing.
func (s *Session) Outcome() (o Outcome) {
	s.countRuns(&o)
	for _, folder := range privateShares(s.Spec, s.d) {
		list, err := versions.List(folder, 0)
		if err != nil {
			continue
		}
		slots := map[string]bool{}
		for _, v := range list {
			if !v.Changed.Before(s.began.Truncate(time.Second)) && !slots[v.Slot] {
				slots[v.Slot] = true
				o.Kept++
			}
		}
	}
	_ = eachRefused(s.d, s.began, func(guard.Event) { o.Refused++ })
	return o
}

// countRuns counts what the host may run or trust of what was changed.
func (s *Session) countRuns(o *Outcome) {
	st, err := undo.OpenToRead(s.d.File(store.UndoFolder))
	if err != nil {
		return
	}
	defer st.Close()
	root, err := os.Open(s.Spec.Dir)
	if err != nil {
		return
	}
	defer root.Close()
	list, more, err := st.Touched(root, s.began, outcomeMost)
	if err != nil {
		return
	}
	o.More = more
	if len(list) == 0 { // the project's configuration need not be read
		return
	}
	f, err := newFinder(s.Spec, root)
	if err != nil {
		return
	}
	for i := range list {
		if len(f.Find(&list[i])) > 0 {
			o.Runs++
		}
	}
}
