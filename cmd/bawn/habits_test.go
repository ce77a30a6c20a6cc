package main

import (
	"strings"
	"testing"
)

// TestHabits: what is answered to a habit exists, and the habit itself does not.
func TestHabits(t *testing.T) {
	root := rootCommand()
	for word, verb := range habitualVerbs {
		if c, _, err := root.Find([]string{word}); err == nil && c != root {
			t.Errorf("%s is a command", word)
		}
		args := strings.Fields(verb)
		c, rest, err := root.Find(args)
		if err != nil || c == root || len(rest) > 0 && rest[0] != "--" && rest[0] != "--help" {
			t.Errorf("%s: %s: %v, %q", word, verb, err, rest)
		}
	}
	for _, h := range habitualFlags {
		for _, verb := range h.verbs {
			c, _, err := root.Find([]string{verb})
			if err != nil || c == root {
				t.Errorf("%s: %v", verb, err)
				continue
			}
			for _, f := range h.flags {
				if c.Flags().Lookup(f) != nil || len(f) == 1 && c.Flags().ShorthandLookup(f) != nil {
					t.Errorf("%s has %s", verb, f)
				}
			}
		}
	}
}
