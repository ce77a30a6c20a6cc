package attack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// tryLimit bounds one try of an attack: a connection, a request, a race.
const tryLimit = 5 * time.Second

// startLimit bounds the start of another process of the probe's, which takes long on a busy host.
const startLimit = time.Minute

// probe is the side of the attacks that runs in the sandbox.
type probe struct {
	spec
	file string // of the specification
}

// Probe makes all attacks from inside of a sandbox, with the project as the current
// directory, and writes a line of JSON for each. args are those that follow Verb.
func Probe(args []string, out io.Writer) error {
	if len(args) < 1 || len(args) > 2 {
		return fmt.Errorf("%s wants the file of the specification", Verb)
	}
	p := &probe{file: args[0]}
	b, err := os.ReadFile(p.file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &p.spec); err != nil {
		return fmt.Errorf("%s: %w", p.file, err)
	}
	if len(args) == 2 { // in a namespace of its own; see nested
		said, err := tcpTo(args[1])(p)
		_, werr := fmt.Fprintln(out, said)
		return errors.Join(err, werr)
	}
	lines := json.NewEncoder(out)
	for _, a := range attacks {
		said, err := a.try(p)
		got := answer{ID: a.id, Tried: err == nil, Said: said}
		if err != nil {
			got.Said = err.Error()
		}
		if err := lines.Encode(got); err != nil {
			return err
		}
	}
	return nil
}
