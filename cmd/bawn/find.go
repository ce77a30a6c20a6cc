package main

import (
	"os"
	"sync"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/sandbox"
)

// find finds a sandbox by name; an empty name means that of this directory.
func find(e *engine.Engine, name string) (*sandbox.Spec, error) {
	if name != "" {
		return e.Named(name)
	}
	dir, err := projectDir("")
	if err != nil {
		return nil, err
	}
	return e.Find(dir)
}

// namedSandbox opens the engine and finds the sandbox of the optional argument.
func namedSandbox(args []string) (*engine.Engine, *sandbox.Spec, error) {
	if len(args) > 0 {
		return openNamed(args[0])
	}
	return openNamed("")
}

// openNamed opens the engine and finds a sandbox as find does.
func openNamed(name string) (*engine.Engine, *sandbox.Spec, error) {
	e, _, err := openEngine()
	if err != nil {
		return nil, nil, err
	}
	spec, err := find(e, name)
	return e, spec, err
}

// each calls f for the named sandboxes, for all, or for this directory's, one after the other, and
// continues after a failure. It returns the last one and reports those before it, with their next
// steps.
func each(args []string, all bool, f func(*engine.Engine, string) error) error {
	return eachAtOnce(1, args, all, f)
}

// eachAtOnce does what each does, for up to atOnce sandboxes at the same time.
func eachAtOnce(atOnce int, args []string, all bool, f func(*engine.Engine, string) error) error {
	e, _, err := openEngine()
	if err != nil {
		return err
	}
	if all {
		if args, err = e.Names(); err != nil {
			return err
		}
	} else if len(args) == 0 {
		args = []string{""}
	}
	var failed error
	for _, err := range inTurns(atOnce, len(args), func(i int) error {
		spec, err := find(e, args[i])
		switch {
		case err == nil:
			err = f(e, spec.Name)
		case all || engine.ReasonOf(err) == engine.Damaged: // it can still be stopped or removed
			err = f(e, args[i])
		}
		return err
	}) {
		if failed != nil && err != nil {
			report(os.Stderr, failed)
		}
		if err != nil {
			failed = err
		}
	}
	return failed
}

// inTurns calls f with 0 to n-1. The calls begin in this order, and up to atOnce run at the same time.
// It returns their errors in the order of the arguments.
func inTurns(atOnce, n int, f func(i int) error) []error {
	errs := make([]error, n)
	next := make(chan int)
	var workers sync.WaitGroup
	for range min(atOnce, n) {
		workers.Go(func() {
			for i := range next {
				errs[i] = f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	workers.Wait()
	return errs
}
