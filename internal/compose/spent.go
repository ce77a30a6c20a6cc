package compose

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// A small file can make a reader work for hours, or fill its memory: by aliases, by extends, by ranges of ports,
// by documents (all that was read is checked again after each), by nesting (compose-go makes and splits a path of
// all keys for each value), by variables (the rest of the text is searched again for each), and by depends_on (each
// way through the services is followed). So what the reader will have to do is counted before it does it.

const (
	maxChecked      = 100_000  // values, each once more for each document after it
	maxDepth        = 32       // of values within values
	maxKey          = 256      // of a key, in bytes
	maxText         = 64 << 10 // of another text, in bytes: the time to split a command is by the square of it
	maxPorts        = 1024     // of all services, with those that ranges stand for
	maxWays         = 100_000  // from a service along depends_on to another one, of all services
	maxSubstitution = 16 << 20 // bytes that are searched for variables, counted again for each variable of a text

	valueBytes = 64 // of a text count as one value
)

// spent is what was read so far.
type spent struct {
	read    int // values
	checked int // values, each once for each document after it, too
	port    int
	bytes   int // that were searched for variables
}

// values counts values that are read.
func (s *spent) values(n int) error {
	s.read += n
	s.checked += n
	if s.read > maxNodes {
		return fmt.Errorf("more than %d values, with those that aliases and extends stand for, or %d within each other, or a key of more than %d bytes, or a text of more than %d", maxNodes, maxDepth, maxKey, maxText)
	}
	return nil
}

// document counts a document of that many values, after which all values are checked again.
func (s *spent) document(n int) error {
	if s.checked += s.read; s.checked > maxChecked {
		return fmt.Errorf("too many documents, for the values that they have: make them one")
	}
	return s.values(n)
}

// ports counts the ports that an entry of a list of ports stands for, as compose-go converts values.
func (s *spent) ports(entry string) (any, error) {
	target, _, _ := strings.Cut(entry[strings.LastIndexByte(entry, ':')+1:], "/")
	n := 1
	if first, last, ok := strings.Cut(target, "-"); ok {
		from, err := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err == nil && err2 == nil && to > from {
			n = to - from + 1
		}
	}
	if s.port += n; n > maxPorts || s.port > maxPorts {
		return nil, fmt.Errorf("more than %d ports", maxPorts)
	}
	return entry, nil
}

// substitution counts a text that is searched for variables.
func (s *spent) substitution(text string) error {
	return s.search(len(text) * strings.Count(text, "$"))
}

func (s *spent) search(n int) error {
	if s.bytes += n; s.bytes > maxSubstitution {
		return fmt.Errorf("too many variables in long texts, or values of variables that are too long")
	}
	return nil
}

// weigher counts the values of one document. It has the counts of those with anchors.
type weigher map[*yaml.Node]weight

// weight is how many values a value consists of, and how deep they are within each other.
type weight struct{ values, depth int }

// weight returns how many values a value at that depth consists of, with its aliases followed, or more than
// maxNodes. One that is in itself is endless.
func (w weigher) weight(n *yaml.Node, depth int) int { return w.of(n, depth).values }

func (w weigher) of(n *yaml.Node, depth int) weight {
	tooMuch := weight{values: maxNodes + 1}
	if n.Kind == yaml.AliasNode {
		known, ok := w[n.Alias]
		if !ok || depth+known.depth > maxDepth {
			return tooMuch
		}
		return known
	}
	if len(n.Value) > maxText {
		return tooMuch
	}
	total := weight{values: 1 + len(n.Value)/valueBytes}
	for i, c := range n.Content {
		if depth == maxDepth || n.Kind == yaml.MappingNode && i%2 == 0 && len(scalar(c)) > maxKey {
			return tooMuch
		}
		part := w.of(c, depth+1)
		total.depth = max(total.depth, part.depth+1)
		if total.values += part.values; total.values > maxNodes {
			return tooMuch
		}
	}
	if n.Anchor != "" {
		w[n] = total
	}
	return total
}

// scalar returns the text of a value that is one, or an alias of one.
func scalar(n *yaml.Node) string {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n.Value
}

// extended returns how many values the services of a document get from those that they extend, or more than
// maxNodes. The document was weighed. A service of another file has foreign values at most: what it gets by itself
// is counted when that file is read.
func (w weigher) extended(section *yaml.Node, foreign int) (total int, err error) {
	var services map[string]yaml.Node
	if section.Kind != 0 {
		err = section.Decode(&services)
	}
	for name := range services {
		of, file := base(services, name)
		if file {
			continue
		}
		for range services { // compose-go refuses a longer way, which is a circle
			if of == "" || total > maxNodes {
				break
			}
			service, ok := services[of]
			if !ok { // a name with variables: one of them, or a service of another file
				service = *section
				total += foreign
			}
			total += w.weight(&service, 0)
			if of, file = base(services, of); file {
				total += foreign
				break
			}
		}
	}
	return total, err
}

// base returns the name of the service that a service extends, and whether it is one of another file.
func base(services map[string]yaml.Node, name string) (of string, file bool) {
	service, ok := services[name]
	if !ok {
		return "", false
	}
	var c struct {
		Extends yaml.Node `yaml:"extends"`
	}
	if service.Decode(&c) != nil || c.Extends.Kind == 0 {
		return "", false
	}
	var long struct {
		Service string    `yaml:"service"`
		File    yaml.Node `yaml:"file"`
	}
	if c.Extends.Decode(&of) == nil {
		return of, false
	}
	if c.Extends.Decode(&long) == nil {
		return long.Service, long.File.Kind != 0
	}
	return "", false
}

// ways refuses services that depend on others in more than maxWays ways, or in a circle.
func ways(services map[string]any) error {
	from := map[string]int{} // a service that is not done has 0
	var count func(name string) error
	count = func(name string) error {
		if n, seen := from[name]; seen {
			if n == 0 {
				return fmt.Errorf("depends_on: the service %.200q depends on itself: a cycle", name)
			}
			return nil
		}
		from[name] = 0
		total := 1
		service, _ := services[name].(map[string]any)
		others, _ := service["depends_on"].(map[string]any)
		for other := range others {
			if err := count(other); err != nil {
				return err
			}
			total = min(total+from[other], maxWays+1)
		}
		from[name] = total
		return nil
	}
	all := 0
	for name := range services {
		if err := count(name); err != nil {
			return err
		}
		if all += from[name]; all > maxWays {
			return fmt.Errorf("depends_on: there are more than %d ways along it", maxWays)
		}
	}
	return nil
}
